# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. Metrics, and why their numbers differ
#
# Disentanglement metrics of one name differ by whose code computes them more than models differ. Here the same four
# codes meet every convention: *perfect*, each factor on a latent of its own beside latents of noise; *noisy*, the same
# with noise on top; *rotated*, three factors mixed; *random*, which know nothing. The factors have the sizes of
# dSprites: 3 shapes, 6 scales, 40 orientations, 32 positions along x and y.

# %% tags=["parameters"]
examples = 2000
latents = 8
noise = 0.15
reference = False
seed = 0

# %%
import holoviews as hv
import numpy as np
import pandas as pd
from scipy.stats import special_ortho_group

import cvi_widgets as cvi

cvi.setup()
sizes = {"shape": 3, "scale": 6, "orientation": 40, "posX": 32, "posY": 32}
rng = np.random.default_rng(seed)
factors = np.stack([rng.integers(0, k, examples) for k in sizes.values()], axis=1)
aligned = 2 * factors / (np.array(list(sizes.values())) - 1) - 1
spare = rng.normal(size=(examples, latents - len(sizes)))
mixed = aligned[:, 2:] @ special_ortho_group.rvs(3, random_state=seed)
codes = {
    "perfect": np.hstack([aligned, spare]),
    "noisy": np.hstack([aligned + noise * rng.normal(size=aligned.shape), 0.05 * spare]),
    "rotated": np.hstack([aligned[:, :2], mixed, 0.05 * spare]) + 0.05 * rng.normal(size=(examples, latents)),
    "random": rng.normal(size=(examples, latents)),
}

# %% [markdown]
# ## One table
# Each row is a metric under one convention, each column a code. The first convention of a metric is the one we hold to
# be sound; `dlib` is disentanglement_lib's, `dcf` and `zaidi` belong to two other libraries. Set `reference = True` to
# add disentanglement_lib's DCI, whose gradient boosting takes minutes. NaN: codes that know nothing have no such score.

# %%
m = cvi.metrics
trees = ["bagged", "permuted", *(["dlib"] if reference else [])]
asked = [
    *((m.mig, name, "mig") for name in ("adjusted", "dlib", "dcf", "zaidi", "zaidi_discrete")),
    *((m.dci, name, "dci_disentanglement") for name in trees),
    *((m.sap, name, "sap") for name in ("tree", "r2", "dlib")),
    *((m.modularity_score, name, "modularity") for name in ("adjusted", "dlib")),
    *((m.explicitness, name, "explicitness") for name in ("scaled", "dlib")),
    *((m.infomec, name, part) for part in ("infom", "infoc") for name in ("adjusted", "histogram")),
    *((m.irs, name, "irs") for name in ("quantile", "dlib")),
    *((m.factor_vae_score, name, "factor_vae_score") for name in ("active", "dlib")),
    *((m.beta_vae_score, name, "beta_vae_score") for name in ("active", "dlib")),
]
quick = {"draws": 50, "null_draws": 20, "seed": seed, "factor_names": list(sizes)}
done = {}
rows = []
for metric, convention, part in asked:
    for code, z in codes.items():
        key = (metric, convention, code)
        if key not in done:
            extra = {"resamples": 15, "null_draws": 0} if metric is m.dci else {}
            done[key] = metric(z, factors, convention=convention, **(quick | extra))
        found = done[key].sel(metric=part)
        numbers = {name: found[name].item() for name in ("value", "ci_low", "ci_high", "null_mean")}
        rows.append({"metric": part, "convention": convention, "code": code, **numbers})
table = pd.DataFrame(rows)
side_by_side = table.pivot(index=["metric", "convention"], columns="code", values="value")[list(codes)]
side_by_side.loc[list(dict.fromkeys((part, name) for _, name, part in asked))].round(3)

# %% [markdown]
# ## One picture
# A mark per convention with its 95 % interval. Where the marks of one colour spread, the convention decides.

# %%
labels = [f"{part} [{name}]" for part, name in dict.fromkeys((part, name) for _, name, part in asked)][::-1]
place = {label: i for i, label in enumerate(labels)}
table["row"] = [place[f"{r.metric} [{r.convention}]"] for r in table.itertuples()]
colours = {"perfect": "#0072b2", "noisy": "#009e73", "rotated": "#d55e00", "random": "#767676"}
layers = []
for shift, (code, colour) in enumerate(colours.items()):
    part = table[table["code"] == code].dropna(subset=["value"])
    y = part["row"] + 0.3 - 0.2 * shift
    lines = part.dropna(subset=["ci_low"])
    heights = y.loc[lines.index]
    layers.append(hv.Segments((lines["ci_low"], heights, lines["ci_high"], heights)).opts(color=colour, line_width=2))
    points = {"value": part["value"], "row": y, "what": part["metric"] + " [" + part["convention"] + "]"}
    layers.append(hv.Points(points, ["value", "row"], "what", label=code).opts(color=colour, size=7, tools=["hover"]))
hv.Overlay(layers).opts(
    width=900,
    height=24 * len(labels) + 90,
    yticks=[(i, label) for label, i in place.items()],
    ylim=(-0.6, len(labels) - 0.4),
    xlim=(-0.05, 1.05),
    xlabel="value",
    ylabel="",
    title="The same codes under every convention",
    show_grid=True,
    legend_position="right",
)

# %% [markdown]
# ## Why they differ

# %%
reasons = {
    "mig [dlib]": "20 bins cannot tell 32 or 40 classes apart, so a perfect code stays below 1.",
    "mig [dcf]": "Cuts the factors to 20 bins as well: perfect codes reach 1, for a coarser question.",
    "mig [zaidi]": "Divides by the entropy of the code, not of the factor: noise on a latent counts twice.",
    "mig [adjusted]": "Bins follow the ranks, what chance would give is subtracted: 1 for perfect, 0 for random.",
    "dci_disentanglement [bagged]": "Impurity also rewards what trees learn by heart, so noise lowers it.",
    "dci_disentanglement [permuted]": "Counts what helps on held-out examples: noisy but aligned latents score high.",
    "dci_disentanglement [dlib]": "Gradient boosting learns by heart as well; the score moves with the examples given.",
    "sap [dlib]": "A line cannot pick the middle classes of one latent: even perfect codes stay near 0.2.",
    "sap [r2]": "Takes class numbers for a scale: fair to positions, wrong for shape or a full circle.",
    "modularity [dlib]": "Latents that know nothing enter with estimation noise, about 0.7 each.",
    "modularity [adjusted]": "Averages only over latents that know of some factor: none does in random codes.",
    "irs [dlib]": "Divides a 99 % quantile by a maximum, so noise alone scores 0.3.",
    "factor_vae_score": "Asks only which latent moves least: a mixed code can pass.",
    "beta_vae_score": "Any linear trace of the factor will do: a mixed code passes.",
    "explicitness": "Reads from all latents at once, so no rotation changes it.",
}
pd.DataFrame({"reason": reasons}).rename_axis("convention").style.set_properties(**{"text-align": "left"})

# %% [markdown]
# Dead latents are counted and named, never averaged in:

# %%
pd.DataFrame(
    {code: done[(m.mig, "adjusted", code)]["dead"].values for code in codes},
    index=pd.RangeIndex(latents, name="latent"),
).T

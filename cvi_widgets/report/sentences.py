"""Sentences computed from the data: what each part of the report shows, in plain words with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from cvi_widgets.report.source import Source
from cvi_widgets.report.words import count, direction, duration, listed, number, with_interval
from cvi_widgets.views import as_uint8, sites_of
from cvi_widgets.views.style import actives, interval

_MODELS = {
    "vae": "VAE",
    "beta_vae": "\u03b2-VAE",
    "beta_tc_vae": "\u03b2-TC-VAE",
    "factor_vae": "FactorVAE",
    "dip_vae": "DIP-VAE",
    "annealed_vae": "annealed VAE",
    "vq_vae": "VQ-VAE",
}
_DATA = {
    "dsprites": "dSprites",
    "dsprites-official": "dSprites",
    "scm-dsprites": "causally drawn dSprites",
    "shapes3d-like": "a stand-in for 3D Shapes",
    "shapes3d": "3D Shapes",
    "mpi3d-toy": "MPI3D, toy",
    "mpi3d-realistic": "MPI3D, realistic",
    "mpi3d-real": "MPI3D, real",
    "mpi3d-real-complex": "MPI3D, complex",
    "cars3d": "Cars3D",
    "smallnorb": "SmallNORB",
    "celeba": "CelebA",
}
_SPACE = "\u00a0"


def title(source: Source) -> str:
    """What the page is about, as a headline."""
    model = source.config.model
    beta = getattr(model, "beta", None)
    weight = f" (\u03b2{_SPACE}={_SPACE}{beta:g})" if beta is not None else ""
    data = _DATA.get(source.config.data.dataset, source.run.data.name)
    return f"What a {_MODELS.get(model.model, model.model)}{weight} learned from {data}"


def opening(source: Source) -> str:
    """The page's first paragraph."""
    parts = []
    history, posterior, latent = source.group("training"), source.group("posterior"), source.latent
    if history is not None:
        seen = int(history.attrs.get("images", history["images"].values[-1]))
        seconds = history.attrs.get("seconds")
        time = f" in {duration(float(seconds))}" if seconds else ""
        parts.append(f"After {seen:,} images{time},")
    if posterior is not None and "reconstruction" in posterior:
        mean = float(posterior["reconstruction"].mean())
        parts.append(f"the model rebuilds images it has never seen at {number(mean)} nats each")
        if latent is not None and "active" in latent:
            alive = actives(latent)
            parts.append(f"and uses {int(alive.sum()) or 'none'} of its {len(alive)} latents")
    first = f"{' '.join(parts)}." if len(parts) > 1 else ""
    second = ""
    if latent is not None and "slope" in latent:
        second = _best_mover(latent)
    return " ".join(s for s in (first, second) if s)


def training(source: Source) -> str:
    """How long it learned, how fast, and where it ended."""
    history = source.group("training")
    assert history is not None
    attrs = history.attrs
    seen = int(attrs.get("images", history["images"].values[-1]))
    start, end = (float(history["reconstruction"].values[i]) for i in (0, -1))
    text = f"{seen:,} images took the reconstruction from {number(start)} to {number(end)} nats"
    if attrs.get("seconds"):
        text += f" in {duration(float(attrs['seconds']))}"
    if attrs.get("images_per_second"):
        text += f", at {number(float(attrs['images_per_second']))} images per second"
    return f"{text}."


def pictures(source: Source, originals: Any, rebuilt: Any) -> str:
    """How close the shown reconstructions are."""
    a, b = as_uint8(originals).astype(float) / 255, as_uint8(rebuilt).astype(float) / 255
    error = float(np.abs(a - b).mean())
    wrong = 100 * float(((a > 0.5) != (b > 0.5)).mean())
    return (
        f"Here are {count(len(a), 'image')} the model never trained on, above what it makes of them. A pixel is off by "
        f"{number(error, 2)} on average (0 is black, 1 is white), and {number(wrong, 2)} % of the pixels end on the "
        "wrong side of one half."
    )


def latents(dataset: xr.Dataset) -> str:
    """What setting a latent does, the clearest movers first."""
    moves = [mover(dataset, r) for r in ("centroid_x", "centroid_y") if _has_readout(dataset, r)]
    return " ".join([m for m in moves if m] or [strength(dataset)])


def mover(dataset: xr.Dataset, readout: str) -> str:
    """`Raising latent 3 by one moves the picture's centre 4.1 px to the right.`; empty without an active latent."""
    found = _steepest(dataset, readout)
    if found is None:
        return ""
    latent, slope, low, high = found
    ends = (low, high) if slope >= 0 else (-high, -low)
    sure = "" if low > 0 or high < 0 else ", which may be nothing"
    return (
        f"Raising latent {latent} by one moves the picture's centre {with_interval(abs(slope), *ends, 'px')} "
        f"{direction(readout, slope)}{sure}."
    )


def reads(dataset: xr.Dataset) -> str:
    """How well the reader reads each factor: what it cannot read, the map cannot show."""
    known = zip(dataset["factor"].values.astype(str), dataset["reader_r2"].values.tolist(), strict=True)
    told = [f"{factor} {r2:.2f}" if np.isfinite(r2) else f"{factor} never varies" for factor, r2 in known]
    left_out = "" if np.isfinite(dataset["ces_factor"].values).all() else "; below 0.2 a factor is left out"
    return f"Variance of held-out images that it reads (R\u00b2): {listed(told)}{left_out}."


def strength(dataset: xr.Dataset) -> str:
    """Which latent changes the picture most."""
    if "ces_l2" not in dataset:
        return ""
    top = int(np.nanargmax(dataset["ces_l2"].values))
    low, high = (float(a.values[top]) for a in interval(dataset, "ces_l2"))
    value = with_interval(float(dataset["ces_l2"].values[top]), low, high)
    return f"Latent {dataset['latent'].values[top]} changes the picture most: causal effect strength {value}."


def dead(dataset: xr.Dataset) -> tuple[str, ...]:
    """Which latents do nothing; empty when all are in use."""
    alive = actives(dataset)
    if alive.all():
        return ()
    names = [f"z{z}" for z, a in zip(dataset["latent"].values, alive, strict=True) if not a]
    verb, pronoun = ("is", "it") if len(names) == 1 else ("are", "they")
    said = (
        f"{count(len(names), 'latent')} of {len(alive)} {verb} dead ({listed(names)}): the mean hardly varies from "
        f"image to image, so {pronoun} carry nothing about it."
    ).replace("it carry", "it carries")
    if "ces_l2" in dataset and alive.any():
        strongest = float(np.nanmax(dataset["ces_l2"].values[~alive]))
        said += f" Setting {'it' if pronoun == 'it' else 'them'} moves the picture by {number(strongest, 2)} at most."
    return (f"{said} Dead latents are greyed throughout, and kept.",)


def factors(dataset: xr.Dataset, metrics: xr.Dataset | None) -> str:
    """Which latent answers to which factor, and how selective units are with depth."""
    text = answers(dataset)
    if metrics is not None:
        for name in metrics["metric"].values.astype(str):
            if name.startswith("monosemantic"):
                text += " " + by_site(metrics, name)
    return text


def answers(dataset: xr.Dataset) -> str:
    """`Changing posX moves z0 most (1.6 sd of mu [1.5, 1.7]); ...`."""
    array = dataset["delta_mu"].transpose("factor", "latent")
    low, high = (a.transpose("factor", "latent").values for a in interval(dataset, "delta_mu"))
    unit = str(array.attrs.get("units", ""))
    said = []
    for i, factor in enumerate(array["factor"].values):
        j = int(np.nan_to_num(array.values[i]).argmax())
        value = with_interval(float(array.values[i, j]), float(low[i, j]), float(high[i, j]), unit if i == 0 else "")
        said.append(f"{factor} z{array['latent'].values[j]} ({value})")
    return f"The latent that answers most to each factor: {listed(said)}."


def by_site(metrics: xr.Dataset, name: str) -> str:
    """A metric from the first site to the last."""
    row = metrics.sel(metric=name)
    keep = np.isfinite(row["value"].values)
    sites, values = row["site"].values[keep], row["value"].values[keep]
    words = name.split("[")[0].replace("_", " ").capitalize()
    said = [f"{s} {number(float(v), 2)}" for s, v in zip(sites, values, strict=True)]
    return f"{words} by site: {listed(said)}."


def network(patch: xr.Dataset | None, mediation: xr.Dataset | None) -> str:
    """What single units carry."""
    said = [patching(patch) if patch is not None else "", mediating(mediation) if mediation is not None else ""]
    return " ".join(s for s in said if s)


def patching(dataset: xr.Dataset) -> str:
    """The strongest single unit of the encoder, and how concentrated transfer is there."""
    sites = [s for s in sites_of(dataset) if not s.startswith("latent.")] or sites_of(dataset)
    here = np.isin(dataset["site"].values.astype(str), sites)
    part = dataset.isel(unit=np.flatnonzero(here))
    if not part.sizes["unit"]:
        return ""
    top = int(np.nan_to_num(part["transfer"].values).argmax())
    low, high = (float(a.values[top]) for a in interval(part, "transfer"))
    site, channel = str(part["site"].values[top]), int(part["channel"].values[top])
    same = np.maximum(0, np.nan_to_num(part["transfer"].values[part["site"].values.astype(str) == site]))
    share = np.cumsum(np.sort(same)[::-1]) / max(same.sum(), 1e-12)
    needed = int(np.searchsorted(share, 0.5) + 1)
    value = with_interval(float(part["transfer"].values[top]), low, high)
    return (
        f"The unit that carries most of an image's code across is {site}[{channel}]: swapping it alone goes {value} of "
        f"the way to the source. At {site}, {needed} of {count(len(same), 'unit')} hold half of the summed transfer."
    )


def mediating(dataset: xr.Dataset) -> str:
    """The largest mediated share before the code."""
    sites = dataset["site"].values.astype(str)
    part = dataset.isel(unit=np.flatnonzero([not s.startswith("latent.") for s in sites]))
    array = part["mediated"].transpose("unit", "factor")
    if not array.size:
        return ""
    unit, factor = np.unravel_index(int(np.nan_to_num(array.values).argmax()), array.shape)
    low, high = (float(a.transpose("unit", "factor").values[unit, factor]) for a in interval(part, "mediated"))
    where = f"{array['site'].values[unit]}[{array['channel'].values[unit]}]"
    value = with_interval(float(array.values[unit, factor]), low, high)
    cause = array["factor"].values[factor]
    return f"The strongest mediator is {where}, which passes on {value} of what {cause} does to the code."


def graph(dataset: xr.Dataset) -> str:
    """How many known effects lie in their measured intervals."""
    known = dataset["known"].values
    defined = np.isfinite(known) & np.isfinite(dataset["measured"].values)
    off = np.asarray(dataset["cause"].values)[:, None] != np.asarray(dataset["outcome"].values)[None, :]
    defined = defined & off[None]
    inside = (known >= dataset["measured_low"].values) & (known <= dataset["measured_high"].values) & defined
    return (
        f"The graph behind these images is known: {int(inside.sum())} of {count(int(defined.sum()), 'effect')} between "
        "factors, total, direct and indirect, lie inside the 95 % interval that was measured from images drawn from it."
    )


def _best_mover(dataset: xr.Dataset) -> str:
    steep = [(r, f) for r in ("centroid_x", "centroid_y") if _has_readout(dataset, r) and (f := _steepest(dataset, r))]
    return mover(dataset, max(steep, key=lambda s: abs(s[1][1]))[0]) if steep else ""


def _has_readout(dataset: xr.Dataset, readout: str) -> bool:
    return "slope" in dataset and readout in dataset["readout"].values


def _steepest(dataset: xr.Dataset, readout: str) -> tuple[int, float, float, float] | None:
    slopes = dataset[["slope", "slope_low", "slope_high"]].sel(readout=readout)
    alive = actives(dataset) & np.isfinite(slopes["slope"].values)
    if not alive.any():
        return None
    top = int(np.where(alive, np.abs(slopes["slope"].values), -1).argmax())
    low, high = float(slopes["slope_low"].values[top]), float(slopes["slope_high"].values[top])
    return int(dataset["latent"].values[top]), float(slopes["slope"].values[top]), low, high

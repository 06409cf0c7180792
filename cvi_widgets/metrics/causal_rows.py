"""Rows from latent interventions and mediation: effects on factors, the decoder's modularity, M x CES, mediators.

Source: arXiv 2505.03530 for the quantities; where its definitions are open, every row names the one taken.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.metrics import causal
from cvi_widgets.metrics.rows import Row, row
from cvi_widgets.metrics.selectivity import modularity_rows
from cvi_widgets.metrics.statistics import Floats, bootstrap, bootstrap_means, interval

Q = 0.05
"""Share of false ones that is put up with among the units called mediators."""


def posterior_grid_rows(latents: xr.Dataset, active: NDArray[np.bool_], draws: int, seed: int) -> dict[str, Row]:
    """CES with each latent set to quantiles of its own aggregate posterior, which no latent's range can inflate."""
    if not active.any():
        return {}
    l2 = latents["l2"].values[:, active].mean(1)
    root = float(np.sqrt(latents.attrs["n_pixels"]))
    said = "with v quantiles of each latent's aggregate posterior, mean over v and active latents"
    return {
        "ces_l2_posterior_mean": row(
            bootstrap(l2, draws, seed), f"E ||D(z) - D(z; do(z_i = v))||_2 {said}", "intensity"
        ),
        "ces_rms_posterior_mean": row(
            bootstrap(l2 / root, draws, seed), f"E ||D(z) - D(z; do(z_i = v))||_2 / sqrt(pixels) {said}", "intensity"
        ),
    }


def factor_rows(latents: xr.Dataset, active: NDArray[np.bool_], draws: int, seed: int) -> dict[str, Row]:
    """Specificity in terms of factors over active latents, where a reader was at hand."""
    if "factor_example" not in latents or not active.any():
        return {}
    per_example = _readable(latents)
    drawn = _specific(bootstrap_means(per_example, draws, seed))
    value = _specific(per_example.mean(0))
    low, high = interval(drawn[:, active].mean(1))
    convention = (
        "1 - H(p)/ln |F| with p_f the share of factor f in the change that the latent causes in factors as read, "
        f"of the {per_example.shape[-1]} that are read at all, mean over active latents; reader R^2 "
        + ", ".join(f"{f} {r:.2f}" for f, r in zip(latents["factor"].values, latents["reader_r2"].values, strict=True))
    )
    return {"specificity_factor_mean": Row(float(value[active].mean()), float(low), float(high), convention, "1")}


def latent_factor_rows(latents: xr.Dataset, draws: int, seed: int) -> dict[str, Row]:
    """Per latent: specificity in terms of factors, and the effect on each factor."""
    if "factor_example" not in latents:
        return {}
    per_example = _readable(latents)
    low, high = interval(_specific(bootstrap_means(per_example, draws, seed)))
    rows = {
        "specificity_factor": Row(
            _specific(per_example.mean(0)), low, high, "1 - H(p)/ln |F|, p the share of each factor in ces_factor", "1"
        )
    }
    for factor in latents["factor"].values.astype(str):
        of_factor = latents.sel(factor=factor)
        ends = [np.asarray(of_factor[key].values, np.float64) for key in _ends("ces_factor")]
        rows[f"ces_{factor}"] = Row(
            ends[0], ends[1], ends[2], f"mean |change| of {factor} as read off the decoded image", "sd of the factor"
        )
    return rows


def decoder_rows(latents: xr.Dataset, active: NDArray[np.bool_], site: str, draws: int, seed: int) -> dict[str, Row]:
    """Circuit modularity of active latents at one decoder site: do they use separate pathways to the picture?"""
    here = latents["site"].values.astype(str) == site
    changes = latents["unit_change_example"].transpose("latent", "example", "unit").values[active][..., here]
    profile = "mean |change| of each unit of the decoder site when the latent is set"
    return modularity_rows(np.asarray(changes), "modularity", profile, draws, seed, of="latents")


def product_row(modularity: Row | None, strength: Row | None) -> dict[str, Row]:
    """M x CES of the run, as in the first version of the paper."""
    if modularity is None or strength is None:
        return {}
    convention = (
        "modularity_mu times ces_l2_mean (arXiv 2505.03530 v1, section 5.5.1); "
        "interval: product of the ends, for both are positive"
    )
    ends = [float(np.asarray(m) * np.asarray(s)) for m, s in zip(modularity[:3], strength[:3], strict=True)]
    return {"modularity_mu_x_ces_l2": Row(ends[0], ends[1], ends[2], convention, "intensity")}


def mediation_rows(mediation: xr.Dataset) -> dict[str, Row]:
    """Largest share of a factor's effect in one encoder unit, and how many units carry anything."""
    encoder = mediation.isel(unit=np.char.startswith(mediation["site"].values.astype(str), "encoder."))
    if not encoder.sizes["unit"] or not np.isfinite(encoder["mediated"].values).any():
        return {}
    shares = encoder["mediated"].transpose("factor", "unit")
    moving = np.isfinite(shares.values).all(axis=1)
    best = np.argmax(np.where(np.isfinite(shares.values), shares.values, -np.inf), axis=1)[moving]
    ends = [
        float(encoder[key].transpose("factor", "unit").values[moving][np.arange(len(best)), best].mean())
        for key in _ends("mediated")
    ]
    rows = {
        "mediated_largest": Row(
            ends[0],
            ends[1],
            ends[2],
            "largest <NIE, TE> / ||TE||^2 of one encoder unit, mean over factors; interval: mean of the chosen units'",
            "1",
        )
    }
    if "mediated_q" in encoder:
        surviving = (encoder["mediated_q"].values < Q).any(axis=encoder["mediated_q"].get_axis_num("factor"))
        said = f"encoder units that mediate some factor at a false discovery rate of {Q:g} over the map"
        rows["mediators"] = Row(float(surviving.sum()), np.nan, np.nan, said, "units")
    return rows


def _readable(latents: xr.Dataset) -> Floats:
    """Effects on the factors that the reader reads, (example, latent, factor)."""
    values = latents["factor_example"].transpose("example", "latent", "factor").values
    return np.asarray(values[..., np.isfinite(values).all(axis=(0, 1))])


def _specific(per_factor: Floats | NDArray[np.float32]) -> Floats:
    return causal.specificity(np.asarray(per_factor, np.float64))


def _ends(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"

"""Rows from input interventions: how selective units are, and how separate the factors' pathways.

Source: arXiv 2505.03530, equation 11 for polysemanticity; circuit modularity with its permutation null.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.metrics import causal
from cvi_widgets.metrics.rows import Row
from cvi_widgets.metrics.statistics import Floats, Null, bootstrap_means, interval


def _responses(inputs: xr.Dataset, site: str | None) -> Floats:
    """Responses per pair, shape (pair, factor, unit), of one site or of all encoder sites."""
    names = inputs["site"].values.astype(str)
    at = names == site if site else np.char.startswith(names, "encoder.")
    return np.asarray(inputs["response_pair"].transpose("pair", "factor", "unit").values[:, :, at])


def selectivity_rows(inputs: xr.Dataset, site: str | None, tau: float, draws: int, seed: int) -> dict[str, Row]:
    """Polysemanticity, share of monosemantic units and number of dead ones, at one site or at all encoder sites."""
    pairs = _responses(inputs, site)
    where = "units of the site" if site else "encoder units"
    mean = pairs.mean(0)
    drawn = bootstrap_means(pairs, draws, seed)
    dead = float((mean.max(0) == 0).sum()) if mean.size else 0.0
    measures = {
        "polysemanticity": (
            causal.polysemanticity,
            f"sum_f r_f / max_f r_f (1 to number of factors), mean over {where} that respond at all",
            "factors",
        ),
        "polysemantic_fraction": (
            lambda r: causal.polysemantic_fraction(r, tau),
            f"share of factors that reach {tau:g} of the largest response, mean over {where} that respond at all",
            "1",
        ),
        "monosemantic_share": (
            lambda r: causal.monosemantic(r, tau),
            f"share of {where} in which exactly one factor reaches {tau:g} of the largest response",
            "1",
        ),
    }
    rows = {}
    for name, (measure, convention, units) in measures.items():
        low, high = interval(_means_defined(measure(drawn)))
        rows[name] = Row(float(_means_defined(measure(mean))), float(low), float(high), convention, units)
    rows["dead_units"] = Row(dead, np.nan, np.nan, f"{where} that respond to no factor in any pair", "units")
    return rows


def mu_modularity_rows(inputs: xr.Dataset, active: NDArray[np.bool_], draws: int, seed: int) -> dict[str, Row]:
    """Circuit modularity of the factors at mu, over active latents."""
    pairs = np.abs(inputs["delta_mu_pair"].transpose("factor", "pair", "latent").values)[..., active]
    return modularity_rows(
        pairs / inputs["sd_mu"].values[active],
        "modularity_mu",
        "mean |change| of each active latent in sd of mu",
        draws,
        seed,
    )


def site_modularity_rows(inputs: xr.Dataset, site: str, draws: int, seed: int) -> dict[str, Row]:
    """Circuit modularity of the factors at one site."""
    pairs = np.moveaxis(_responses(inputs, site), 0, 1)
    return modularity_rows(pairs, "modularity", "mean |change| of each unit of the site", draws, seed)


def modularity_rows(
    pairs: Floats, name: str, profile: str, draws: int, seed: int, of: str = "factors"
) -> dict[str, Row]:
    """Rows of M and of its normalised form from changes of shape (factor, pair, unit), or (latent, example, unit)."""
    convention = f"1 - mean over pairs of {of} of |Pearson rho| between their profiles ({profile})"
    if pairs.shape[-1] < 2 or len(pairs) < 2:
        empty = Row(np.nan, np.nan, np.nan, convention, "1")
        return {name: empty, f"{name}_normalised": empty}
    found = causal.modularity(pairs.mean(1), draws, seed)
    drawn = np.stack([bootstrap_means(p, draws, seed + k) for k, p in enumerate(pairs)], axis=1)
    low, high = (float(v) for v in interval(causal.circuit_modularity(drawn)))
    null = found.null
    return {
        name: Row(found.value, low, high, f"{convention}; null: each profile permuted over units", "1", null),
        f"{name}_normalised": Row(
            found.normalised,
            causal.normalised_modularity(low, null.mean),
            causal.normalised_modularity(high, null.mean),
            "(M - M_null) / (1 - M_null): 0 by chance, 1 without any correlation; the null is taken as known",
            "1",
            Null(0.0, null.sd / (1 - null.mean) if null.mean < 1 else np.nan, null.p),
        ),
    }


def _means_defined(per_unit: Floats) -> Floats:
    defined = np.isfinite(per_unit)
    count = defined.sum(-1)
    total = np.where(defined, per_unit, 0).sum(-1)
    return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))

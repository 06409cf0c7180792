"""All metrics of one run, from its stored data sets: intervals, conventions, and nulls where they mean something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.errors import StoreError
from cvi_widgets.metrics import causal
from cvi_widgets.metrics.causal_rows import (
    decoder_rows,
    factor_rows,
    latent_factor_rows,
    mediation_rows,
    posterior_grid_rows,
    product_row,
)
from cvi_widgets.metrics.position import position_latent, r_squared, r_squared_draws
from cvi_widgets.metrics.rows import Row, joined, row, table
from cvi_widgets.metrics.selectivity import mu_modularity_rows, selectivity_rows, site_modularity_rows
from cvi_widgets.metrics.standard import disentanglement_rows
from cvi_widgets.metrics.statistics import Floats, bootstrap, bootstrap_means, interval

NEEDED = ("observations", "posterior", "effects/input", "effects/latent")
POSITION = (("posX", "centroid_x"), ("posY", "centroid_y"))
"""Factors that are positions, and the image read-out that follows each."""


def summarise(
    stored: Mapping[str, xr.Dataset],
    factor_values: Mapping[str, Sequence[float] | NDArray[np.float64]],
    *,
    tau: float = 0.2,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, xr.Dataset]:
    """Metrics of a run, of its latents and of its sites.

    Parameters
    ----------
    stored : data sets by their path in the store
        `observations`, `posterior`, `effects/input` and `effects/latent` are needed; `effects/latent_posterior` and
        `effects/mediation` add what follows from them.
    factor_values : values of each factor's classes, by factor
    tau : share of a unit's largest response that counts as responding
    draws : of every bootstrap and of every permutation null

    Returns
    -------
    Data sets `metrics/run` (metric), `metrics/latent` (metric, latent), `metrics/site` (metric, site of the encoder or
    mu), `metrics/decoder` (metric, site of the decoder); variables value, ci_low, ci_high, null_mean, null_sd, p;
    coordinates convention and units.

    Raises
    ------
    StoreError
        When a data set is missing.
    """
    missing = [name for name in NEEDED if name not in stored]
    if missing:
        raise StoreError(f"metrics need /{missing[0]}, which is not stored; stored are {', '.join(stored) or 'none'}.")
    posterior, observed = stored["posterior"], stored["observations"]
    inputs, latents = stored["effects/input"], stored["effects/latent"]
    mu = posterior["mu"].values
    n = len(mu)
    variance = _variances(mu, draws, seed)
    active = causal.active_latents(mu)
    factors = {
        str(f): np.asarray(factor_values[str(f)], np.float64)[observed["factor_class"].sel(factor=f).values]
        for f in observed["factor"].values
        if str(f) in factor_values
    }
    moving = {f: v for f, v in factors.items() if np.ptp(v) > 0}
    follows = {f: r_squared_draws(mu, values, draws, seed) for f, values in moving.items()}
    rows = {
        **_quality(posterior, variance, active, draws, seed),
        **_effects(latents, active, draws, seed),
        **selectivity_rows(inputs, None, tau, draws, seed),
        **mu_modularity_rows(inputs, active, draws, seed),
        **_position(mu, moving, follows, latents, draws, seed),
        **factor_rows(latents, active, draws, seed),
        **disentanglement_rows(
            mu, observed["factor_class"].values, [str(f) for f in observed["factor"].values], draws, seed
        ),
    }
    if "effects/latent_posterior" in stored:
        rows |= posterior_grid_rows(stored["effects/latent_posterior"], active, draws, seed)
    if "effects/mediation" in stored:
        rows |= mediation_rows(stored["effects/mediation"])
    rows |= product_row(rows.get("modularity_mu"), rows.get("ces_l2_mean"))
    attrs: dict[str, str | int | float] = {
        "n_examples": n,
        "n_pairs": inputs.sizes["pair"],
        "draws": draws,
        "seed": seed,
        "tau": tau,
        "interval": "95 % percentile bootstrap over examples, or over pairs where the metric is of pairs",
        "dead_latents": ", ".join(str(i) for i in np.flatnonzero(~active)) or "none",
    }
    sites = list(dict.fromkeys(str(s) for s in inputs["site"].values))
    per_site = [
        selectivity_rows(inputs, site, tau, draws, seed) | site_modularity_rows(inputs, site, draws, seed)
        for site in sites
    ]
    per_latent = _latent_rows(posterior, latents, variance, mu, moving, follows, draws, seed)
    per_latent |= latent_factor_rows(latents, draws, seed)
    tables = {
        "metrics/run": table(rows, attrs),
        "metrics/latent": table(per_latent, attrs, ("latent", np.arange(mu.shape[1]))),
        "metrics/site": table(joined(per_site), attrs, ("site", np.array(sites, dtype=str))),
    }
    if "unit_change_example" in latents and latents.sizes["unit"]:
        behind = list(dict.fromkeys(latents["site"].values.astype(str)))
        parts = [decoder_rows(latents, active, site, draws, seed) for site in behind]
        tables["metrics/decoder"] = table(joined(parts), attrs, ("site", np.array(behind, dtype=str)))
    return tables


def _quality(
    posterior: xr.Dataset, variance: Floats, active: NDArray[np.bool_], draws: int, seed: int
) -> dict[str, Row]:
    rows = {}
    for name in ("reconstruction", "reconstruction_at_mean"):
        if name in posterior:
            what = posterior[name].attrs.get("long_name", "negative log likelihood")
            rows[f"{name}_nats"] = row(
                bootstrap(posterior[name].values, draws, seed),
                f"{what}; summed over pixels, mean over held-out images",
                "nats",
            )
    rows["kl_nats"] = row(
        bootstrap(posterior["kl"].values.sum(1), draws, seed),
        "KL from the posterior to the standard normal, summed over latents, mean over held-out images",
        "nats",
    )
    low, high = interval((variance > causal.ACTIVE_VARIANCE).sum(1))
    convention = "latents whose mu varies by more than 0.01 over held-out images"
    rows["active_latents"] = Row(float(active.sum()), float(low), float(high), convention, "latents")
    return rows


def _effects(latents: xr.Dataset, active: NDArray[np.bool_], draws: int, seed: int) -> dict[str, Row]:
    root = float(np.sqrt(latents.attrs["n_pixels"]))
    l2 = latents["l2"].values
    specific = latents["specificity"].values
    ends = [latents[f"specificity_{end}"].values for end in ("low", "high")]
    conventions = {
        "ces_l2_mean": "E ||D(z) - D(z; do(z_i = v))||_2 over all pixels, mean over values v and active latents",
        "ces_rms_mean": "ces_l2_mean divided by the root of the number of pixels and channels",
    }
    rows = {
        name: row(_over_active(l2 / scale, active, draws, seed), conventions[name], "intensity")
        for name, scale in (("ces_l2_mean", 1.0), ("ces_rms_mean", root))
    }
    mean, low, high = (float(v[active].mean()) if active.any() else np.nan for v in (specific, *ends))
    rows["specificity_mean"] = Row(
        mean,
        low,
        high,
        "1 - H(p)/ln n with p the share of each pixel in the mean squared change, mean over active latents; "
        "interval: mean of the latents' intervals",
        "1",
    )
    return rows


def _over_active(l2: Floats, active: NDArray[np.bool_], draws: int, seed: int) -> tuple[float, float, float]:
    if not active.any():
        return (np.nan, np.nan, np.nan)
    value, low, high = bootstrap(l2[:, active].mean(1), draws, seed)
    return float(value), float(low), float(high)


def _position(
    mu: Floats,
    factors: Mapping[str, Floats],
    follows: Mapping[str, Floats],
    latents: xr.Dataset,
    draws: int,
    seed: int,
) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    found = {}
    for factor, readout in POSITION:
        if factor not in factors:
            continue
        best = position_latent(mu, factors[factor], draws, seed)
        found[factor] = (best, readout)
        low, high = interval(follows[factor][:, best.latent])
        rows[f"position_r2_{factor}"] = Row(
            best.r2,
            float(low),
            float(high),
            f"largest R^2 between {factor} and mu of one latent (here latent {best.latent}); "
            "null: best of as many latents with the factor permuted over images",
            "1",
            best.null,
        )
    if not found:
        return rows
    factor = max(found, key=lambda f: found[f][0].r2)
    best, readout = found[factor]
    top = rows[f"position_r2_{factor}"]
    rows["position_r2"] = top._replace(convention=f"{top.convention}; the better of the positions, {factor}")
    per_example = latents["slope_example"].sel(latent=best.latent, readout=readout).values
    rows["position_shift_px"] = row(
        _absolute(bootstrap(per_example, draws, seed)),
        f"pixels that {readout} of the decoded image moves per unit of latent {best.latent}, most like {factor}; "
        "size of the mean least-squares slope over the values set",
        "px",
    )
    return rows


def _absolute(measured: tuple[Floats, Floats, Floats]) -> tuple[float, float, float]:
    """The interval of |slope| from that of the slope; it starts at 0 where the slope's interval holds 0."""
    value, low, high = (float(v) for v in measured)
    ends = sorted((abs(low), abs(high)))
    return abs(value), 0.0 if low <= 0 <= high else ends[0], ends[1]


def _latent_rows(
    posterior: xr.Dataset,
    latents: xr.Dataset,
    variance: Floats,
    mu: Floats,
    factors: Mapping[str, Floats],
    follows: Mapping[str, Floats],
    draws: int,
    seed: int,
) -> dict[str, Row]:
    n_latents = mu.shape[1]
    nothing = np.full(n_latents, np.nan)
    v_low, v_high = interval(variance)
    rows = {
        "variance": Row(mu.var(0), v_low, v_high, "variance of mu over held-out images", "mu squared"),
        "active": Row(
            causal.active_latents(mu).astype(np.float64),
            nothing,
            nothing,
            "1 where the variance of mu exceeds 0.01",
            "1",
        ),
        "kl_nats": Row(*bootstrap(posterior["kl"].values, draws, seed), "KL of the latent, mean over images", "nats"),
    }
    stored = {
        "ces_l2": ("E ||D(z) - D(z; do(z_i = v))||_2 over all pixels, mean over values v", "intensity"),
        "ces_rms": ("ces_l2 divided by the root of the number of pixels and channels", "intensity"),
        "specificity": ("1 - H(p)/ln n, p the share of each pixel in the mean squared change", "1"),
    }
    for name, (convention, units) in stored.items():
        ends = [np.asarray(latents[key].values, np.float64) for key in (name, f"{name}_low", f"{name}_high")]
        rows[name] = Row(ends[0], ends[1], ends[2], convention, units)
    energy = latents["energy"].values.reshape(n_latents, -1)
    rows["specificity_published"] = Row(
        causal.specificity_published(energy), nothing, nothing, "1 / (H(p) + 1e-6), the same p, natural logarithm", "1"
    )
    for factor, drawn in follows.items():
        low, high = interval(drawn)
        convention = f"squared Pearson correlation of mu with {factor}"
        rows[f"r2_{factor}"] = Row(r_squared(mu, factors[factor]), low, high, convention, "1")
    return rows


def _variances(mu: Floats, draws: int, seed: int) -> Floats:
    """Bootstrap draws of Var mu, shape (draw, latent)."""
    centred = mu - mu.mean(0)
    moments = bootstrap_means(np.concatenate([centred, centred**2], axis=1), draws, seed)
    first, second = np.split(moments.astype(np.float64), 2, axis=1)
    return np.asarray(second - first**2)

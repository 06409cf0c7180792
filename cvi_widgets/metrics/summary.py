"""All metrics of one run, from its stored data sets: intervals, conventions, and nulls where they mean something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.errors import StoreError
from cvi_widgets.metrics import causal
from cvi_widgets.metrics.position import position_latent, r_squared, r_squared_draws
from cvi_widgets.metrics.statistics import Null, bootstrap, bootstrap_means, interval

Floats = NDArray[np.float64]
NEEDED = ("observations", "posterior", "effects/input", "effects/latent")
POSITION = (("posX", "centroid_x"), ("posY", "centroid_y"))
"""Factors that are positions, and the image read-out that follows each."""
_NO_NULL = Null(np.nan, np.nan, np.nan)


class Row(NamedTuple):
    """One metric; numbers for a run, arrays over latents or sites."""

    value: float | Floats
    low: float | Floats
    high: float | Floats
    convention: str
    units: str
    null: Null | Sequence[Null] = _NO_NULL


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
        `observations`, `posterior`, `effects/input` and `effects/latent` are needed.
    factor_values : values of each factor's classes, by factor
    tau : share of a unit's largest response that counts as responding
    draws : of every bootstrap and of every permutation null

    Returns
    -------
    Data sets `metrics/run` (metric), `metrics/latent` (metric, latent), `metrics/site` (metric, site); variables value,
    ci_low, ci_high, null_mean, null_sd, p; coordinates convention and units.

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
        **_selectivity(inputs, None, tau, draws, seed),
        **_mu_modularity(inputs, active, draws, seed),
        **_position(mu, moving, follows, latents, draws, seed),
    }
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
    per_site = [_selectivity(inputs, s, tau, draws, seed) | _site_modularity(inputs, s, draws, seed) for s in sites]
    return {
        "metrics/run": _table(rows, attrs),
        "metrics/latent": _table(
            _latent_rows(posterior, latents, variance, mu, moving, follows, draws, seed),
            attrs,
            ("latent", np.arange(mu.shape[1])),
        ),
        "metrics/site": _table(_joined(per_site), attrs, ("site", np.array(sites, dtype=str))),
    }


def _quality(
    posterior: xr.Dataset, variance: Floats, active: NDArray[np.bool_], draws: int, seed: int
) -> dict[str, Row]:
    rows = {}
    for name in ("reconstruction", "reconstruction_at_mean"):
        if name in posterior:
            what = posterior[name].attrs.get("long_name", "negative log likelihood")
            rows[f"{name}_nats"] = _row(
                bootstrap(posterior[name].values, draws, seed),
                f"{what}; summed over pixels, mean over held-out images",
                "nats",
            )
    rows["kl_nats"] = _row(
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
        name: _row(_over_active(l2 / scale, active, draws, seed), conventions[name], "intensity")
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


def _responses(inputs: xr.Dataset, site: str | None) -> Floats:
    """Responses per pair, shape (pair, factor, unit), of one site or of all encoder sites."""
    names = inputs["site"].values.astype(str)
    at = names == site if site else np.char.startswith(names, "encoder.")
    return np.asarray(inputs["response_pair"].transpose("pair", "factor", "unit").values[:, :, at])


def _selectivity(inputs: xr.Dataset, site: str | None, tau: float, draws: int, seed: int) -> dict[str, Row]:
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


def _mu_modularity(inputs: xr.Dataset, active: NDArray[np.bool_], draws: int, seed: int) -> dict[str, Row]:
    pairs = np.abs(inputs["delta_mu_pair"].transpose("factor", "pair", "latent").values)[..., active]
    return _modularity_rows(
        pairs / inputs["sd_mu"].values[active],
        "modularity_mu",
        "mean |change| of each active latent in sd of mu",
        draws,
        seed,
    )


def _site_modularity(inputs: xr.Dataset, site: str, draws: int, seed: int) -> dict[str, Row]:
    pairs = np.moveaxis(_responses(inputs, site), 0, 1)
    return _modularity_rows(pairs, "modularity", "mean |change| of each unit of the site", draws, seed)


def _modularity_rows(pairs: Floats, name: str, profile: str, draws: int, seed: int) -> dict[str, Row]:
    """Rows of M and of its normalised form from changes of shape (factor, pair, unit)."""
    convention = f"1 - mean over pairs of factors of |Pearson rho| between their profiles ({profile})"
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
    rows["position_shift_px"] = _row(
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


def _means_defined(per_unit: Floats) -> Floats:
    defined = np.isfinite(per_unit)
    count = defined.sum(-1)
    total = np.where(defined, per_unit, 0).sum(-1)
    return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))


def _row(measured: Sequence[float | Floats], convention: str, units: str) -> Row:
    value, low, high = (float(v) for v in measured)
    return Row(value, low, high, convention, units)


def _joined(per_site: Sequence[Mapping[str, Row]]) -> dict[str, Row]:
    joined = {}
    for name, first in per_site[0].items():
        rows = [site[name] for site in per_site]
        value, low, high = (np.array([row[k] for row in rows], np.float64) for k in range(3))
        joined[name] = Row(value, low, high, first.convention, first.units, [row.null for row in rows])  # type: ignore[misc]
    return joined


def _table(
    rows: Mapping[str, Row],
    attrs: Mapping[str, str | int | float],
    along: tuple[str, NDArray[np.generic]] | None = None,
) -> xr.Dataset:
    dims = ("metric",) if along is None else ("metric", along[0])
    shape = () if along is None else (len(along[1]),)
    columns: dict[str, list[Floats]] = {k: [] for k in ("value", "ci_low", "ci_high", "null_mean", "null_sd", "p")}
    for row in rows.values():
        null = row.null if isinstance(row.null, Null) else Null(*np.array(row.null, np.float64).T)
        for key, number in zip(columns, (row.value, row.low, row.high, *null), strict=True):
            columns[key].append(np.broadcast_to(np.asarray(number, np.float64), shape))
    names = {
        "value": "value",
        "ci_low": "lower end of the 95 % interval",
        "ci_high": "upper end of the 95 % interval",
        "null_mean": "mean under the null",
        "null_sd": "standard deviation under the null",
        "p": "p value under the null",
    }
    variables = {
        key: xr.DataArray(np.stack(column), dims=dims, attrs={"long_name": names[key], "units": "see coordinate units"})
        for key, column in columns.items()
    }
    variables["p"].attrs["units"] = "1"
    coords: dict[str, tuple[str, NDArray[np.generic]]] = {
        "metric": ("metric", np.array(list(rows), dtype=str)),
        "convention": ("metric", np.array([r.convention for r in rows.values()], dtype=str)),
        "units": ("metric", np.array([r.units for r in rows.values()], dtype=str)),
    }
    if along is not None:
        coords[along[0]] = (along[0], along[1])
    return xr.Dataset(variables, coords, attrs=dict(attrs))

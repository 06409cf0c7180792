"""Headline cards: every metric with its interval, its null and the convention it was computed by."""

from __future__ import annotations

import math
from collections.abc import Mapping

import xarray as xr

from cvi_widgets.report.parts import Card, Table
from cvi_widgets.report.words import chance, number, with_interval

KNOWN: Mapping[str, tuple[str, str]] = {
    "reconstruction_nats": ("Reconstruction", "What a held-out image costs given its code; lower is better."),
    "active_latents": ("Latents in use", "Latents whose mean varies from image to image; the others are dead."),
    "position_shift_px": ("Position", "How far the most position-like latent moves the picture per unit."),
    "position_r2": ("Position in one latent", "How much of the position a single latent holds; 1 is all of it."),
    "ces_l2_mean": ("Causal effect strength", "How far the picture moves when one latent in use is set."),
    "specificity_mean": ("Specificity", "1 when setting a latent changes a single pixel, 0 when it changes all alike."),
    "monosemantic_share": ("Monosemantic units", "Share of encoder units that answer to one factor only."),
    "modularity_mu": ("Circuit modularity", "Do factors move separate latents? Read it beside its null."),
    "polysemanticity": ("Factors per unit", "1 for a unit that answers to one factor only."),
    "mig": ("Mutual information gap", "Lead of the latent that knows most about a factor over the runner-up."),
    "dci_disentanglement": ("Disentanglement (DCI)", "Does each latent predict one factor only?"),
    "sap": ("SAP", "Lead of the best single-latent predictor of a factor over the runner-up."),
}
"""Headline metrics in the order of the page: what people call them, and what they say. Others go to the table."""

_COUNTS = ("latents", "units", "pairs", "examples")


def base_name(metric: str) -> str:
    """A metric's name without its convention: `mig[dlib-hist20]` is `mig`."""
    return metric.split("[")[0].strip()


def card(row: xr.Dataset, metric: str) -> Card:
    """The card of one row of `/metrics`."""
    value, low, high = (_get(row, name) for name in ("value", "ci_low", "ci_high"))
    null, spread, p = (_get(row, name) for name in ("null_mean", "null_sd", "p"))
    unit, convention = (_text(row, name) for name in ("units", "convention"))
    title, meaning = KNOWN.get(base_name(metric), (base_name(metric).replace("_", " ").capitalize(), ""))
    weak = math.isfinite(p) and p > 0.05
    return Card(
        name=metric,
        title=title,
        value=f"{value:,.0f}" if unit in _COUNTS and value.is_integer() else number(value),
        unit="" if unit == "1" else unit,
        interval=_interval(value, low, high, unit),
        null=_null_sentence(null, spread, p, weak),
        meaning=meaning,
        convention=convention,
        scale=_scale(value, low, high, null, spread, unit),
        weak=weak,
    )


def metric_cards(metrics: xr.Dataset) -> tuple[Card, ...]:
    """Cards of the headline metrics that are defined for this run."""
    names = [str(m) for m in metrics["metric"].values]
    known = list(KNOWN)
    order = sorted((m for m in names if base_name(m) in KNOWN), key=lambda m: known.index(base_name(m)))
    rows = ((m, metrics.isel(metric=names.index(m))) for m in order)
    return tuple(card(row, m) for m, row in rows if math.isfinite(_get(row, "value")))


def metric_table(metrics: xr.Dataset) -> Table:
    """Every metric with interval, null and convention."""
    rows = []
    for i, name in enumerate(metrics["metric"].values.astype(str)):
        row = metrics.isel(metric=i)
        shown = card(row, name)
        null = _null_sentence(_get(row, "null_mean"), _get(row, "null_sd"), _get(row, "p"), False)
        value = f"{shown.value} {shown.unit}".strip()
        rows.append((name, value, shown.interval, null.removeprefix("chance gives "), shown.convention))
    return Table(
        ("metric", "value", "95 % interval", "by chance", "how it is computed"), tuple(rows), folded="All metrics"
    )


def _interval(value: float, low: float, high: float, unit: str) -> str:
    if not math.isfinite(low):
        return ""
    if unit in _COUNTS:
        return f"[{low:,.0f}, {high:,.0f}]"
    return with_interval(value, low, high).partition(" ")[2]


def _null_sentence(null: float, spread: float, p: float, weak: bool) -> str:
    if not math.isfinite(null):
        return ""
    around = f"\u00a0±\u00a0{number(spread, 1)}" if math.isfinite(spread) else ""
    verdict = f" ({chance(p)})".replace(" ", "\u00a0") if math.isfinite(p) else ""
    tail = ", so this is no more than chance" if weak else ""
    return f"chance gives {number(null, 2)}{around}{verdict.replace(chr(160), ' ', 1)}{tail}"


def _scale(value: float, low: float, high: float, null: float, spread: float, unit: str) -> dict[str, float] | None:
    if not (math.isfinite(value) and math.isfinite(low) and math.isfinite(high)):
        return None
    ends = [v for v in (value, low, high, null) if math.isfinite(v)]
    left = min(0.0, *ends)
    right = 1.0 if unit in ("", "1") and max(ends) <= 1 else 1.15 * max(ends)
    width = (right - left) or 1.0
    out = {"value": (value - left) / width, "low": (low - left) / width, "high": (high - left) / width}
    if math.isfinite(null):
        half = 1.96 * spread if math.isfinite(spread) else 0.0
        out |= {
            "null": (null - left) / width,
            "null_low": max(0.0, (null - half - left) / width),
            "null_high": min(1.0, (null + half - left) / width),
        }
    return {k: round(100 * v, 2) for k, v in out.items()}


def _get(row: xr.Dataset, name: str) -> float:
    return float(row[name].values) if name in row else float("nan")


def _text(row: xr.Dataset, name: str) -> str:
    return str(row[name].values) if name in row.variables else ""

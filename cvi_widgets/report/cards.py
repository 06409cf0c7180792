"""Headline cards: every metric with its interval, its null and the convention it was computed by."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr

from cvi_widgets.report.parts import Card
from cvi_widgets.report.words import chance, number, with_interval

KNOWN: Mapping[str, tuple[str, str]] = {
    "reconstruction": ("Reconstruction", "Cost of a held-out image given its code; lower is better."),
    "active_latents": ("Latents in use", "Latents whose mean varies from image to image; the others are dead."),
    "ces": ("Causal effect strength", "How far the picture moves when one latent is set, averaged over the latents."),
    "ces_l2": ("Causal effect strength", "How far the picture moves when one latent is set, over all pixels."),
    "ces_rms": ("Causal effect per pixel", "The same effect per pixel, comparable across image sizes."),
    "specificity": ("Specificity", "1 when setting a latent changes one thing only, 0 when it changes everything alike."),
    "specificity_factor": ("Specificity over factors", "1 when a latent answers to one factor only."),
    "polysemanticity": ("Factors per unit", "1 for a unit that answers to one factor only."),
    "monosemantic": ("Monosemantic units", "Share of units that answer to one factor only."),
    "circuit_modularity": ("Circuit modularity", "Do factors travel on separate units? Read it beside its null."),
    "modularity": ("Modularity", "Does each latent hold information on one factor only?"),
    "mig": ("Mutual information gap", "Lead of the latent that knows most about a factor over the runner-up."),
    "dci_disentanglement": ("Disentanglement (DCI)", "Does each latent predict one factor only?"),
    "dci_completeness": ("Completeness (DCI)", "Is each factor predicted by one latent only?"),
    "dci_informativeness": ("Informativeness (DCI)", "How well the factors can be read from the code."),
    "sap": ("SAP", "Lead of the best single-latent predictor of a factor over the runner-up."),
    "position": ("Position", "How far the most position-like latent moves the sprite."),
}


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
        value=number(value),
        unit="" if unit == "1" else unit,
        interval=with_interval(value, low, high).partition(" ")[2] if math.isfinite(low) else "",
        null=_null_sentence(null, spread, p, weak),
        meaning=meaning,
        convention=convention,
        scale=_scale(value, low, high, null, spread, unit),
        weak=weak,
    )


def metric_cards(metrics: xr.Dataset | None) -> tuple[Card, ...]:
    """Cards of every defined metric of the run, those that people ask for first in front."""
    if metrics is None:
        return ()
    known = list(KNOWN)
    names = [str(m) for m in metrics["metric"].values]
    order = sorted(names, key=lambda m: known.index(base_name(m)) if base_name(m) in KNOWN else len(known))
    rows = ((m, metrics.isel(metric=names.index(m))) for m in order)
    return tuple(card(row, m) for m, row in rows if math.isfinite(_get(row, "value")))


def reconstruction_card(posterior: xr.Dataset | None) -> tuple[Card, ...]:
    """Mean held-out reconstruction with a normal interval over the images."""
    if posterior is None or "reconstruction" not in posterior:
        return ()
    values = posterior["reconstruction"].values.astype(float)
    mean, half = float(values.mean()), 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    title, meaning = KNOWN["reconstruction"]
    return (
        Card(
            "reconstruction",
            title,
            number(mean),
            "nats",
            with_interval(mean, mean - half, mean + half).partition(" ")[2],
            "",
            meaning,
            f"Mean over {len(values):,} held-out images of the summed negative log likelihood of their pixels; "
            "interval from the standard error of the mean.",
        ),
    )


def active_card(latent: xr.Dataset | None) -> tuple[Card, ...]:
    """How many latents are in use."""
    if latent is None or "active" not in latent:
        return ()
    active = np.asarray(latent["active"].values, bool)
    title, meaning = KNOWN["active_latents"]
    return (
        Card(
            "active_latents",
            title,
            str(int(active.sum())),
            f"of {len(active)}",
            "",
            "",
            meaning,
            "A latent is in use when the variance of its mean over the examples is above 0.01 (Burda et al. 2016).",
        ),
    )


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

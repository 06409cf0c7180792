"""The parts of the report: each reads its groups, says in a sentence what they show, and lays out the views."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from cvi_widgets import views
from cvi_widgets.report import sentences
from cvi_widgets.report.cards import metric_cards, metric_table
from cvi_widgets.report.parts import Block, Cards, Section, Table, picture, plot
from cvi_widgets.report.scrub import scrubber
from cvi_widgets.report.source import Source
from cvi_widgets.report.strips import traversals
from cvi_widgets.report.words import listed, with_interval
from cvi_widgets.views.style import actives, sample_size

SHOWN = 8
"""Examples in the scrubber and pictures beside their reconstructions."""
SITE_METRICS = ("polysemanticity", "monosemantic_share", "modularity", "dead_units")


def sections(source: Source) -> tuple[Section, ...]:
    """All parts that the run's store has something for, and, where one is missing that should be there, a note."""
    made = (make(source) for make in _PARTS)
    return tuple(part for part in made if part is not None)


def headline(source: Source) -> Section:
    """Figures first: every metric with interval, null and convention."""
    metrics = source.group("metrics/run")
    if metrics is None:
        return _missing("headline", "Figures", "Headline figures", "metrics/run")
    lead = "Each figure stands with its 95 % interval and, where chance alone would give something, with what it gives."
    return Section(
        "headline", "Figures", "Headline figures", lead, (Cards(metric_cards(metrics)), metric_table(metrics))
    )


def training(source: Source) -> Section:
    """How it learned."""
    dataset = source.group("training")
    if dataset is None:
        return _missing("training", "Training", "How it learned", "training")
    alt = f"Loss terms in nats per image over {int(dataset['images'].values[-1]):,} images, on a logarithmic axis."
    blocks: list[Block] = [
        plot(views.training_curves(dataset), alt, "Means over the images since the point before.", half=True)
    ]
    if "kl_latent" in dataset:
        blocks.append(
            plot(
                views.kl_curves(dataset),
                "KL divergence of each latent from the prior while learning.",
                "Each rise is a latent being taken into use; those that stay on the floor carry nothing.",
                half=True,
            )
        )
    return Section("training", "Training", "How it learned", sentences.training(source), tuple(blocks))


def pictures(source: Source) -> Section:
    """Originals beside reconstructions."""
    title, index = "What it sees, what it keeps", source.shown(2 * SHOWN)
    if not index.size:
        return _missing("pictures", "Pictures", title, "observations")
    rebuilt = source.reconstructions(len(index))
    if rebuilt is None:
        return Section(
            "pictures", "Pictures", title, "", missing="The store holds no reconstructions and the run has no model."
        )
    originals = source.run.data.images(index)
    half = -(-len(index) // 2)
    blocks = []
    for begin in range(0, len(index), half):
        part = slice(begin, begin + half)
        both = np.stack([views.as_uint8(originals[part]), views.as_uint8(rebuilt[part])])
        blocks.append(
            picture(
                views.mosaic(both),
                f"{both.shape[1]} held-out images above their reconstructions.",
                rows=("original", "rebuilt"),
            )
        )
    return Section("pictures", "Pictures", title, sentences.pictures(source, originals, rebuilt), tuple(blocks))


def latents(source: Source) -> Section:
    """What each latent does: the scrubber, traversals, strength, position."""
    title, dataset = "Reach in and move it", source.latent
    if dataset is None:
        return _missing("latents", "Latents", title, "effects/latent")
    blocks: list[Block] = []
    if "traversal" in dataset:
        shown = min(SHOWN, dataset.sizes["shown"])
        index, codes = source.shown(shown), source.own_codes(shown)
        rebuilt = source.reconstructions(shown)
        if len(index) and len(codes) and rebuilt is not None:
            blocks.append(
                scrubber(
                    dataset,
                    source.run.data.images(index),
                    rebuilt,
                    codes,
                    "One intervention at a time: do(z = value), all other latents held at the example's own code. "
                    "Frames are the model's own, stored when the run was made.",
                )
            )
        blocks.extend(traversals(dataset))
    if "ces_l2" in dataset:
        blocks.append(
            plot(
                views.ces_bars(dataset),
                f"Bars: causal effect strength of each latent. {sentences.strength(dataset)}",
                "Mean distance between the picture and its edited self, with 95 % intervals. Dead latents (grey, with "
                "a dagger) do not vary from image to image.",
            )
        )
    if "ces_factor" in dataset and np.isfinite(dataset["ces_factor"].values).any():
        blocks.append(
            plot(
                views.effect_on_factors(dataset),
                f"Heat map: mean change of each factor when one latent is set. {sentences.reads(dataset)}",
                "What setting a latent does to the picture, in terms of factors as a frozen network reads them. "
                f"{sentences.reads(dataset)}",
            )
        )
    if "readout_shift" in dataset and actives(dataset).any():
        for readout in dataset["readout"].values.astype(str):
            if readout.startswith("centroid"):
                blocks.append(
                    plot(
                        views.position_panel(dataset, readout),
                        f"Mean {readout.replace('_', ' ')} shift in pixels against the value each latent is set to. "
                        f"{sentences.mover(dataset, readout)}",
                        "Where the picture's centre of brightness goes, averaged over examples, with 95 % bands.",
                        half=True,
                    )
                )
    return Section("latents", "Latents", title, sentences.latents(dataset), tuple(blocks), sentences.dead(dataset))


def factors(source: Source) -> Section:
    """From factors to code and units."""
    title, dataset = "From factors to the code", source.group("effects/input")
    if dataset is None:
        return _missing("factors", "Factors", title, "effects/input")
    if source.latent is not None and "active" in source.latent:
        dataset = dataset.assign(active=("latent", source.latent["active"].values))
    blocks: list[Block] = [
        plot(
            views.factor_by_latent(dataset),
            f"Heat map: mean change of each latent when one factor changes. {sentences.answers(dataset)}",
            f"Mean absolute change of mu over {sample_size(dataset)} pairs of images that differ in one factor only. "
            "A clean code has one strong cell in each row and none shared.",
        )
    ]
    sites = views.sites_of(dataset)
    for site in sites:
        blocks.append(
            plot(
                views.input_response(dataset, site),
                f"Heat map: share of each unit's response at {site} that goes to each factor.",
                "Columns are units, grouped by the factor that moves them most; colour is the share of a unit's "
                "response that goes to the factor."
                if site == sites[-1]
                else "",
            )
        )
    metrics = source.group("metrics/site")
    if metrics is not None:
        for name in (n for n in SITE_METRICS if n in metrics["metric"].values):
            if np.isfinite(metrics["value"].sel(metric=name).values).any():
                blocks.append(
                    plot(
                        views.site_bars(metrics, name),
                        sentences.by_site(metrics, name),
                        _convention(metrics, name),
                        half=True,
                    )
                )
    return Section("factors", "Factors", title, sentences.factors(dataset, metrics), tuple(blocks))


def network(source: Source) -> Section:
    """Patching and mediation."""
    title = "Through the network"
    patching, mediation = source.group("effects/patching"), source.group("effects/mediation")
    if patching is None and mediation is None:
        return _missing("network", "Network", title, "effects/patching", "effects/mediation")
    blocks: list[Block] = []
    if patching is not None:
        blocks.append(
            plot(
                views.patching_map(patching),
                f"Map: transfer of each single unit, by site. {sentences.patching(patching)}",
                f"One unit's value is taken from a source image and put into a base image ({sample_size(patching)} "
                "pairs). Transfer 1 would carry the whole code across, 0 nothing of it.",
            )
        )
    if mediation is not None:
        sites = views.sites_of(mediation)
        for site in sites:
            caption = (
                "Columns are units, grouped by the factor they carry most of; colour is the share of the factor's "
                "total effect on the code that goes through the unit alone, zero in the middle. At latent.mu the "
                "shares of a row add up to one."
            )
            blocks.append(
                plot(
                    views.mediation_map(mediation, site),
                    f"Map: mediated share of each factor's effect at {site}.",
                    caption if site == sites[-1] else "",
                )
            )
        blocks.append(_top_mediators(mediation))
    lacks = [n for n, d in (("effects/patching", patching), ("effects/mediation", mediation)) if d is None]
    return Section(
        "network",
        "Network",
        title,
        sentences.network(patching, mediation),
        tuple(blocks),
        missing=_lacks(*lacks) if lacks else "",
    )


def graph(source: Source) -> Section | None:
    """Known and measured effects, for data with a known causal graph; left out for other data."""
    title, dataset = "Against the known graph", source.group("effects/graph")
    if dataset is None:
        return (
            _missing("graph", "Known graph", title, "effects/graph")
            if source.config.data.dataset.startswith("scm")
            else None
        )
    caption = "Dots are measured effects with their 95 % intervals, grey ticks the known ones."
    block = plot(
        views.graph_effects(dataset), f"Scatter of measured against known effects. {sentences.graph(dataset)}", caption
    )
    return Section("graph", "Known graph", title, sentences.graph(dataset), (block,))


def _top_mediators(dataset: xr.Dataset) -> Table:
    array = dataset["mediated"].transpose("factor", "unit")
    rows = []
    for i, factor in enumerate(array["factor"].values):
        # The code itself mediates everything by construction: the question is which unit before it does.
        inside = np.array([not s.startswith("latent.") for s in array["site"].values.astype(str)])
        values = np.where(inside, np.nan_to_num(array.values[i]), -np.inf)
        top = int(values.argmax()) if inside.any() else int(np.nan_to_num(array.values[i]).argmax())
        cell = dataset.isel(unit=top).sel(factor=factor)
        low, high = (float(cell.get(f"mediated_{end}", cell["mediated"])) for end in ("low", "high"))
        unit = f"{array['site'].values[top]}[{array['channel'].values[top]}]"
        rows.append((str(factor), unit, with_interval(float(cell["mediated"]), low, high)))
    return Table(("factor", "unit that carries most", "mediated share [95 % interval]"), tuple(rows))


def _convention(metrics: xr.Dataset, name: str) -> str:
    return str(metrics["convention"].sel(metric=name).values) if "convention" in metrics.coords else ""


def _missing(id: str, short: str, title: str, *groups: str) -> Section:
    return Section(id, short, title, "", missing=_lacks(*groups))


def _lacks(*groups: str) -> str:
    return f"The run's store has no {listed([f'/{g}' for g in groups])}, so this part cannot be shown."


_PARTS: tuple[Callable[[Source], Section | None], ...] = (
    headline,
    latents,
    pictures,
    factors,
    network,
    graph,
    training,
)

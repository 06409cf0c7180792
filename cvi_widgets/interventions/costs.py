"""What a measurement will cost, before it is run."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from cvi_widgets.interventions.engine import (
    BUDGET,
    TRACES,
    Groups,
    Method,
    Units,
    method_for,
    pairs_per_batch,
    read,
    unit_groups,
)
from cvi_widgets.interventions.linear import projected
from cvi_widgets.interventions.model import Images, Model
from cvi_widgets.interventions.outcomes import Outcome, Readout, measured_sites, readout
from cvi_widgets.interventions.patching import decodes, unit_changes
from cvi_widgets.interventions.sites import Site
from cvi_widgets.interventions.trace import Trace, record

_SAMPLED = 4


@dataclass(frozen=True)
class CostPlan:
    """Cost of one measurement.

    Attributes
    ----------
    table : per site: `method`, `units`, `runs` (partial or full passes of one batch), `seconds`
    n_pairs, batch : pairs in all and at once
    passes : full passes that come on top, in images
    n_bytes : most bytes that recorded values and re-runs take at once
    seconds : of the whole measurement, intervals excluded
    """

    table: pd.DataFrame
    n_pairs: int
    batch: int
    passes: int
    n_bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.n_pairs} pairs, {self.batch} at a time: {self.passes} full passes and "
            f"{int(self.table['runs'].sum())} re-runs of a batch, about {self.seconds:.2g} s "
            f"and {self.n_bytes / 2**20:.0f} MiB."
        )

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self.table.to_html()}"


def plan(
    model: Model,
    base: Images,
    source: Images | None = None,
    sites: str | Sequence[str] | None = None,
    units: Units = "each",
    outcome: Outcome = "mu",
    *,
    pairs: int | None = None,
    method: Method = "auto",
    budget: int = BUDGET,
) -> CostPlan:
    """Passes, bytes and seconds of `patch` with these arguments.

    Seconds are extrapolated from a few units per site on one batch, timed here and now, so they hold for this machine
    as busy as it is.

    Parameters
    ----------
    base, source, sites, units, outcome, method, budget : as in `patch`; without `source`, base stands in for it
    pairs : number of pairs when it is not that of `base`, which may then be a sample
    """
    images = model.images(base)
    other = images.flip(0) if source is None else model.images(source)
    y = readout(model, outcome)
    chosen = [(site, unit_groups(site, units)) for site in measured_sites(model, sites, y)]
    n = len(images) if pairs is None else pairs
    decode = decodes(y, chosen)
    size = min(pairs_per_batch(model, decode, budget), n)
    tiled = images[torch.arange(size) % len(images)], other[torch.arange(size) % len(other)]
    record(model, tiled[0], decode=decode)
    begun = time.perf_counter()
    run_base, run_source = (record(model, x, decode=decode) for x in tiled)
    recording = time.perf_counter() - begun
    batches = n / size
    rows = []
    for site, groups in chosen:
        used = method_for(model, site, y, method)
        runs, seconds = _timed(model, run_base, run_source, tiled[0], site, groups, y, used)
        rows.append((site.name, used, len(groups), math.ceil(batches) * runs, seconds * batches))
    table = pd.DataFrame(rows, columns=["site", "method", "units", "runs", "seconds"]).set_index("site")
    total = float(table["seconds"].sum()) + recording * batches
    return CostPlan(table, n, size, 2 * n, TRACES * run_base.n_bytes, total)


def _timed(
    model: Model,
    base: Trace,
    source: Trace,
    images: torch.Tensor,
    site: Site,
    groups: Groups,
    outcome: Readout,
    method: Method,
) -> tuple[int, float]:
    """Runs and seconds of all groups on one batch, from some of them; a first one warms caches and is not counted."""
    before = read(base, outcome)
    total = read(source, outcome) - before

    def seconds_of(some: Groups) -> float:
        begun = time.perf_counter()
        unit_changes(model, base, images, source.value, [(site, some)], outcome, method, before, total)
        return time.perf_counter() - begun

    step = max(1, len(groups) // _SAMPLED)
    sample = groups[::step][:_SAMPLED]
    seconds_of(sample[:1])
    if method == "linear" and len(outcome.targets) == 1 and projected(base, site.name, outcome.targets[0]) is not None:
        # All units in one product, whose cost is not that of a few of them times their number.
        return 1, seconds_of(groups)
    return len(groups), seconds_of(sample) * len(groups) / len(sample)

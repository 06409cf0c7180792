"""Patching every unit of every convolution: the hooked twin, suffix, linear delta, and two other libraries.

    pip install -e ".[bench]"
    python tests/benchmarks/bench_interventions.py [--pairs 512] [--network paper] [--outcome mu] [--threads 1]

Each row is one way of swapping every unit of one layer for its source value over all pairs and reading the outcome, on
the same model and the same pairs in the same run. Base and source runs are recorded once for all layers and counted in
a line of their own; nobody else needs them, so the hooked rows are given the source's values for nothing. Ways that run
whole passes per unit are timed on a few units, evenly spaced, and scaled up to all; the column `units` says how many
were run. Seconds are the median of the rounds, with their range; ratios are to the hooked twin of the same layer. All
ways are checked against the twin before anything is timed. Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cvi_widgets import training
from cvi_widgets.config import RunConfig
from cvi_widgets.interventions import patch, plan, wrap
from cvi_widgets.interventions.engine import BUDGET, each_unit, traced, unit_groups
from cvi_widgets.interventions.model import Model
from cvi_widgets.interventions.outcomes import Readout, readout
from cvi_widgets.interventions.sites import Site
from cvi_widgets.models import build

Way = Callable[[list[int]], Tensor]
"""Units to outcomes (unit, pair, ...) flattened."""


class Whole(nn.Module):
    """The half or all of the model as one forward, which is what other libraries wrap."""

    def __init__(self, net: nn.Module, outcome: str) -> None:
        super().__init__()
        self.net, self.outcome = net, outcome
        # pyvene reads a configuration from the model it wraps.
        self.config = types.SimpleNamespace(to_dict=dict)

    def forward(self, x: Tensor) -> Tensor:
        mu = self.net.encode(x)[0]
        return mu if self.outcome == "mu" else self.net.decode(mu)


def main() -> None:
    """Run and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, default=512)
    options.add_argument("--network", default="paper")
    options.add_argument("--outcome", default="mu", choices=("mu", "reconstruction"))
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--units", type=int, default=4, help="units that are run where each needs whole passes")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--budget", type=int, default=BUDGET)
    given = options.parse_args()
    training.use_threads(given.threads)
    training.keep_large_buffers()
    torch.manual_seed(0)
    net = build(RunConfig.of("dsprites", "beta_vae", network=given.network).model, (1, 64, 64)).eval()
    model, pairs = wrap(net), given.pairs
    base, source = torch.rand((2, pairs, 1, 64, 64))
    outcome = readout(model, given.outcome)
    sites = [s for s in model.site_map.sites.values() if s.side == "encoder" and s.name.endswith(("0", "1", "2"))]
    sites = [s for s in sites if "conv" in s.name]
    decode = given.outcome == "reconstruction"
    print(f"{given.network} network, {pairs} pairs, outcome {given.outcome}, {given.threads} thread(s)")

    names = [s.name for s in sites]
    # The first recorded pass of a process loads more of torch, the first patch more of scipy.
    patch(model, base[:2], source[:2], names, outcome=given.outcome)
    _memory(model, base, source, names, given.outcome)
    recording = []
    for _ in range(given.rounds):
        begun = time.perf_counter()
        for _run in traced(model, base, source, decode, given.budget):
            pass
        recording.append(time.perf_counter() - begun)
    runs = list(traced(model, base, source, decode, given.budget))
    rows: list[tuple[str, str, int, int, float, float, float]] = []
    for site in sites:
        ways = _ways(net, model, runs, base, source, site, outcome)
        every = list(range(site.n_units))
        few = every[:: max(1, site.n_units // given.units)][: given.units]
        expected = ways["hooked twin"](few[:1])
        for name, way in ways.items():
            found = way(few[:1])
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4, msg=f"{name} at {site.name}")
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, way in ways.items():
                units = every if name == "linear" else few
                begun = time.perf_counter()
                way(units)
                taken[name].append((time.perf_counter() - begun) * site.n_units / len(units))
        for name, seconds in taken.items():
            ran = site.n_units if name == "linear" else len(few)
            middle = statistics.median(seconds)
            rows.append((site.name, name, site.n_units, ran, middle, min(seconds), max(seconds)))
    twin = {row[0]: row[4] for row in rows if row[1] == "hooked twin"}
    print(f"recording base and source, once for all layers: {statistics.median(recording):.3f} s")
    print(f"{'site':16s} {'way':14s} {'units':>9s} {'seconds':>9s} {'range':>17s} {'x twin':>8s}")
    for site_name, name, n, ran, middle, low, high in rows:
        ratio = twin[site_name] / middle
        print(f"{site_name:16s} {name:14s} {ran:4d}/{n:4d} {middle:9.3f} {low:8.3f}-{high:8.3f} {ratio:8.1f}")
    fast = sum(row[4] for row in rows if row[1] == "linear") + statistics.median(recording)
    slow = sum(twin.values())
    print(f"all layers: twin {slow:.2f} s, linear with recording {fast:.2f} s: {slow / fast:.1f} x")
    del runs
    said = plan(model, base[:64], source[:64], names, outcome=given.outcome, pairs=len(base), budget=given.budget)
    begun = time.perf_counter()
    patch(model, base, source, names, outcome=given.outcome, budget=given.budget)
    took = time.perf_counter() - begun
    print(f"plan: {said}")
    print(f"patch took {took:.2f} s with its intervals: {took / said.seconds:.2f} x the plan")


def _memory(model: Model, base: Tensor, source: Tensor, names: list[str], outcome: str) -> None:
    """Largest resident memory of the process after patching with a small budget and then with larger ones."""
    print(f"peak memory before: {_peak():.0f} MiB")
    for budget in (2**25, 2**27, 2**29):
        batch = plan(model, base[:64], source[:64], names, outcome=outcome, pairs=len(base), budget=budget).batch
        patch(model, base, source, names, outcome=outcome, budget=budget, draws=100)
        print(f"peak memory with a budget of {budget / 2**20:.0f} MiB ({batch} pairs at a time): {_peak():.0f} MiB")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _ways(
    net: nn.Module, model: Model, runs: list[Any], base: Tensor, source: Tensor, site: Site, outcome: Readout
) -> dict[str, Way]:
    images = base.split(len(runs[0].base.value("latent.mu")))
    values = [run.source.value(site.name) for run in runs]

    def ours(method: Any) -> Way:
        def way(units: list[int]) -> Tensor:
            groups = unit_groups(site, units)
            parts = []
            for run, x, new in zip(runs, images, values, strict=True):
                blocks = each_unit(model, run.base, x, site, new, groups, outcome, method)
                # The reconstruction of every unit and pair is not kept by anybody who measures an effect.
                parts.append(torch.cat([_small(block) for block in blocks]))
            return torch.cat(parts, dim=1)

        return way

    whole = Whole(net, outcome.name)
    path = f"net.{site.module}"
    target = whole.get_submodule(path)

    def twin(units: list[int]) -> Tensor:
        """torch's own hooks on the plain module, one forward per unit and batch."""
        return _per_unit(units, values, images, lambda u, new, x: _torch_hooked(whole, target, u, new, x))

    ways = {"hooked twin": twin, "suffix": ours("suffix"), "linear": ours("linear")}
    try:
        import nnsight

        wrapped = nnsight.NNsight(whole)
        envoy = wrapped
        for part in path.split("."):
            envoy = getattr(envoy, part)

        def traced_by_nnsight(u: int, new: Tensor, x: Tensor) -> Tensor:
            with wrapped.trace(x):
                y = envoy.output.clone()
                y[:, u] = new[:, u]
                envoy.output = y
                out = wrapped.output.save()
            return out

        ways["nnsight"] = lambda units: _per_unit(units, values, images, traced_by_nnsight)
    except ImportError:
        print("nnsight is not installed; its rows are left out")
    try:
        import pyvene

        def by_pyvene(u: int, new: Tensor, x: Tensor) -> Tensor:
            def swap(value: Tensor, _source: object) -> Tensor:
                y = value.clone()
                y[:, u] = new[:, u]
                return y

            with_swap = pyvene.IntervenableModel({"component": f"{path}.output", "intervention": swap}, model=whole)
            return with_swap(base={"x": x})[1]

        ways["pyvene"] = lambda units: _per_unit(units, values, images, by_pyvene)
    except ImportError:
        print("pyvene is not installed; its rows are left out")
    return ways


def _per_unit(
    units: list[int], values: list[Tensor], images: tuple[Tensor, ...], one: Callable[[int, Tensor, Tensor], Tensor]
) -> Tensor:
    with torch.no_grad():
        parts = [
            torch.stack([_small(one(u, new, x)[None])[0] for u in units]) for new, x in zip(values, images, strict=True)
        ]
    return torch.cat(parts, dim=1)


def _torch_hooked(whole: nn.Module, target: nn.Module, u: int, new: Tensor, x: Tensor) -> Tensor:
    def swap(_module: nn.Module, _args: object, out: Tensor) -> Tensor:
        y = out.clone()
        y[:, u] = new[:, u]
        return y

    handle = target.register_forward_hook(swap)
    try:
        return whole(x)
    finally:
        handle.remove()


def _small(block: Tensor) -> Tensor:
    """Outcome (unit, pair, ...) as at most 64 numbers a pair: the same reduction for every way."""
    flat = block.flatten(2)
    return flat if flat.shape[2] <= 64 else flat.unflatten(2, (-1, flat.shape[2] // 64)).mean(3)


if __name__ == "__main__":
    main()

"""Is it this circuit? Hold everything outside it, then everything inside it, and see what is left of the effect.

The input is the source image. Units that are held take the value they have in the base run, so that they carry nothing
of the factor's change. What is left of the total effect with all units *outside* held is the circuit's faithfulness (1:
the circuit suffices); what is lost with all units *inside* held is its completeness (1: nothing gets round it).
After Wang et al. (2022, arXiv 2211.00593). A circuit is compared with random ones of as many units per layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from cvi_widgets.errors import SiteError
from cvi_widgets.interventions import effects
from cvi_widgets.interventions.edges import LEVEL
from cvi_widgets.interventions.engine import BUDGET, Traced, read, traced
from cvi_widgets.interventions.found_circuit import Circuit, held
from cvi_widgets.interventions.input import pair_stacks
from cvi_widgets.interventions.model import Images, Model
from cvi_widgets.interventions.outcomes import Readout, readout
from cvi_widgets.interventions.regions import region_means
from cvi_widgets.interventions.trace import Change
from cvi_widgets.metrics.statistics import bootstrap_weights, interval

if TYPE_CHECKING:
    from cvi_widgets.data.protocol import FactorData

Units = Mapping[str, Sequence[int]]


def faithfulness(
    model: Model,
    found: Circuit,
    data: FactorData | Mapping[str, tuple[Images, Images]],
    pairs: int = 256,
    *,
    random: int = 20,
    budget: int = BUDGET,
    draws: int = 1000,
    seed: int = 1,
) -> xr.Dataset:
    """Faithfulness and completeness of each factor's circuit, up to mu and up to the image.

    Parameters
    ----------
    data, pairs, seed : as in `circuit`; the seed should be another one, so that the circuit is judged on new pairs
    random : random circuits with as many units in every layer, for the null

    Returns
    -------
    Dataset
        `faithfulness` and `completeness` (factor, outcome), each with `_low`, `_high` (95 %), `_null` (mean over random
        circuits) and `_null_sd`; `units` (factor), how many units the circuit has.

    Raises
    ------
    SiteError
        When the model's pass cannot be recorded.
    """
    outcomes = {"mu": readout(model, "mu"), "image": readout(model, region_means(found.regions))}
    stacks = pair_stacks(model, data, found.factors, pairs, seed)
    rng = np.random.default_rng([seed, 11])
    parts = []
    for factor, (base, source) in stacks.items():
        units = found.units(factor)
        chosen = [units, *(_random_like(model, found, units, rng) for _ in range(random))]
        runs = list(traced(model, base, source, decode=True, budget=budget))
        if any(run.source.flaw for run in runs):
            raise SiteError(f"this model cannot be judged as a circuit: {runs[0].source.flaw}.")
        values = {name: _judged(model, found, runs, chosen, y) for name, y in outcomes.items()}
        parts.append(_of_factor(values, sum(map(len, units.values())), draws, seed))
    joined = xr.concat(parts, dim="factor", combine_attrs="override")
    coords = {"factor": list(stacks), "outcome": list(outcomes)}
    return effects.described(
        joined.assign_coords(coords),
        intervention="held units take their value from the base run while the input is the source image",
        convention="faithfulness is sum <y_outside held - y_b, TE> / sum ||TE||^2; completeness is 1 - the same with "
        "the inside held; mu is read behind the encoder's layers and latents, the image behind all",
        interval="95 % percentile bootstrap over pairs",
        null=f"{random} random circuits with as many units per layer",
        n_pairs=min(len(b) for b, _ in stacks.values()),
        seed=seed,
        draws=draws,
    )


def _judged(
    model: Model, found: Circuit, runs: Sequence[Traced], chosen: Sequence[Units], outcome: Readout
) -> NDArray[np.float64]:
    """Inner products with the total effect, (quantity, circuit, pair): outside held, inside held, total."""
    behind = found.layers
    if outcome.name == "mu":
        behind = found.layers[: found.layers.index("latent.mu") + 1]
    columns = []
    for run in runs:
        before = read(run.base, outcome)
        total = (read(run.source, outcome) - before).flatten(1)
        rows = []
        for inside in (False, True):
            held_runs = [_run_held(model, run, behind, units, outcome, inside=inside) for units in chosen]
            rows.append([((y - before).flatten(1) * total).sum(1).double().cpu().numpy() for y in held_runs])
        square = total.double().square().sum(1).cpu().numpy()
        columns.append(np.stack([*rows, [square] * len(chosen)]))
    return np.concatenate(columns, axis=2)


def _run_held(
    model: Model, run: Traced, layers: Sequence[str], units: Units, outcome: Readout, *, inside: bool
) -> Tensor:
    changes: dict[str, Change] = {}
    for site in layers:
        which = held(units, site, model.site(site).n_units, inside=inside)
        if which:
            changes[site] = _holding(run.base.value(site), which)
    with model.running():
        values = run.source.run(changes, outcome.targets)
    return outcome.read(dict(zip(outcome.targets, values, strict=True)))


def _holding(base: Tensor, units: Sequence[int]) -> Change:
    def hold(value: Tensor) -> Tensor:
        out = value.clone()
        out[:, list(units)] = base[:, list(units)]
        return out

    return hold


def _random_like(model: Model, found: Circuit, units: Units, rng: np.random.Generator) -> Units:
    return {
        site: rng.choice(model.site(site).n_units, len(units[site]), replace=False).tolist()
        for site in found.layers
        if site in units
    }


def _of_factor(values: Mapping[str, NDArray[np.float64]], n_units: int, draws: int, seed: int) -> xr.Dataset:
    columns: dict[str, list[float]] = {}
    for name, low, high, null, null_sd, value in (row for v in values.values() for row in _rows(v, draws, seed)):
        for key, number in (
            (name, value),
            (f"{name}_low", low),
            (f"{name}_high", high),
            (f"{name}_null", null),
            (f"{name}_null_sd", null_sd),
        ):
            columns.setdefault(key, []).append(number)
    said = {
        "faithfulness": "share of the total effect that is left when all units outside the circuit are held",
        "completeness": "share of the total effect that is lost when all units of the circuit are held",
    }
    variables = {key: effects.variable(("outcome",), v, said[key.split("_")[0]], "1") for key, v in columns.items()}
    variables["units"] = effects.variable((), n_units, "units of the circuit", "1")
    return xr.Dataset(variables)


def _rows(value: NDArray[np.float64], draws: int, seed: int) -> Iterator[tuple[str, float, float, float, float, float]]:
    outside, inside, square = value
    weights = bootstrap_weights(outside.shape[1], draws, seed).astype(np.float64)
    whole = square[0].sum()
    for name, kept in (("faithfulness", outside), ("completeness", square - inside)):
        if whole <= 0:
            yield name, np.nan, np.nan, np.nan, np.nan, np.nan
            continue
        shares = kept.sum(1) / whole
        low, high = interval((weights @ kept[0]) / (weights @ square[0]), LEVEL)
        null = shares[1:]
        sd = float(null.std(ddof=1)) if len(null) > 1 else np.nan
        yield name, float(low), float(high), float(null.mean()) if len(null) else np.nan, sd, float(shares[0])

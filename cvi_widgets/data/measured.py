"""Effects between factors measured on images of the same units in two worlds, beside the effects that are known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from cvi_widgets.data import effects
from cvi_widgets.data.causal_data import CausalData
from cvi_widgets.data.grid import checked_count
from cvi_widgets.data.protocol import Index
from cvi_widgets.data.scm import Floats
from cvi_widgets.errors import DataError

_LEVEL = 0.95
_BLOCK = 2048
_ESTIMANDS = (
    "total: mean of Y(high) - Y(low); direct: mean of Y(high, M(low)) - Y(low); "
    "indirect: mean of Y(low, M(high)) - Y(low); Y(x, M(x')) is the outcome of the same unit (same exogenous noise) "
    "when the cause is set to x and all factors between cause and outcome to what they would be under x' "
    "(Pearl 2001, natural effects at the base level low)"
)


def measure_effects(data: CausalData, n: int = 1000, seed: int = 0) -> xr.Dataset:
    """Total, direct and indirect effect of every factor on every factor that can be read off the images.

    For each cause, `n` units are drawn; their images under do(low), do(high) and the two mixed settings exist on the
    grid, the outcome is read off the pixels (`data.readout`), and the differences are averaged over units.

    Parameters
    ----------
    data
        A causal data set. Without a read-out, outcomes are the factor classes of the images, and `attrs` says so.
    n
        Units per cause; at least 2.
    seed
        Decides the units.

    Returns
    -------
    xr.Dataset
        (kind, cause, outcome), in classes of the outcome, NaN where cause and outcome are one factor: `known` (exact
        enumeration), `measured`, its 95 % interval `measured_low`, `measured_high`, and `simultaneous_low`,
        `simultaneous_high`, within which all effects of the table lie together with 95 % (Bonferroni). Coordinates
        `low`, `high` (cause): the classes compared. How outcomes were read is said in `attrs`.

    Notes
    -----
    Intervals are Student's t over units. Where all units agree the t interval has no width; it is then set from the
    largest share of deviating units that is compatible with seeing none (Clopper-Pearson), times the outcome's range.
    Where the graph has no path of that kind, agreement is no accident, and the interval is the value itself.
    """
    if checked_count(n) < 2:
        raise DataError("n is 1; intervals need at least 2 units.")
    causes = data.factor_names
    outcomes = data.readout.reads if data.readout else causes
    cells = len(effects.KINDS) * sum(cause != outcome for cause in causes for outcome in outcomes)
    levels = {"measured": _LEVEL, "simultaneous": 1 - (1 - _LEVEL) / cells}
    names = ["known", "measured", *(f"{name}_{side}" for name in levels for side in ("low", "high"))]
    found = {name: np.full((len(effects.KINDS), len(causes), len(outcomes)), np.nan) for name in names}
    for c, cause in enumerate(causes):
        # One stream per cause, so that an effect does not depend on which others are measured.
        worlds = _Worlds(data, cause, data.noise(n, np.random.default_rng([seed, c])))
        for o, outcome in enumerate(outcomes):
            if cause == outcome:
                continue
            for k, (kind, change) in enumerate(worlds.changes(outcome).items()):
                reach = data.grid.size(outcome) - 1 if _has_path(data, cause, outcome, kind) else 0
                found["known"][k, c, o] = data.effect(cause, outcome, kind)
                found["measured"][k, c, o] = change.mean()
                for name, level in levels.items():
                    half = _half_width(change, level, reach)
                    found[f"{name}_low"][k, c, o] = change.mean() - half
                    found[f"{name}_high"][k, c, o] = change.mean() + half
    return _described(data, found, outcomes, n, seed)


class _Worlds:
    """Readings of the same units under every setting that is asked for; images are drawn once per setting.

    Parameters
    ----------
    noise
        The units' exogenous noise, shape (n, factor).
    """

    def __init__(self, data: CausalData, cause: str, noise: Floats) -> None:
        self._data, self._cause, self._noise = data, cause, noise
        self._seen: dict[tuple[int, int, tuple[str, ...]], Mapping[str, NDArray[np.float64]]] = {}

    def changes(self, outcome: str) -> dict[effects.Kind, NDArray[np.float64]]:
        """Change of the outcome of each unit, by kind of effect."""
        low, high = effects.contrast(self._data.grid.size(self._cause))
        between = effects.mediators(self._data.model, self._cause, outcome)
        base = self._read(low, low, between)[outcome]
        return {
            "total": self._read(high, high, between)[outcome] - base,
            "direct": self._read(high, low, between)[outcome] - base,
            "indirect": self._read(low, high, between)[outcome] - base,
        }

    def _read(self, direct: int, mediated: int, between: tuple[str, ...]) -> Mapping[str, NDArray[np.float64]]:
        """All outcomes when the cause is `direct` and the factors between are what they would be under `mediated`."""
        held = between if mediated != direct else ()
        key = (direct, mediated if held else direct, held)
        if key not in self._seen:
            do: dict[str, ArrayLike] = {self._cause: direct}
            if held:
                world = self._data.factors(self._data.counterfactual(self._noise, {self._cause: mediated}))
                do |= {name: world[:, self._data.grid.column(name)] for name in held}
            self._seen[key] = _readings(self._data, self._data.counterfactual(self._noise, do))
        return self._seen[key]


def _readings(data: CausalData, index: Index) -> Mapping[str, NDArray[np.float64]]:
    """Classes of every outcome in the images `index`, read off the pixels where the data set can."""
    classes = dict(zip(data.factor_names, data.factors(index).T, strict=True))
    if data.readout is None:
        return {name: values.astype(np.float64) for name, values in classes.items()}
    out = {name: np.empty(len(index)) for name in data.readout.reads}
    for start in range(0, len(index), _BLOCK):
        part = slice(start, start + _BLOCK)
        images = data.images(index[part]).astype(np.uint8, copy=False)
        found = data.readout(images, {name: classes[name][part] for name in data.readout.given})
        for name, values in out.items():
            values[part] = found[name]
    return out


def _half_width(change: NDArray[np.float64], level: float, reach: int) -> float:
    n = len(change)
    spread = float(change.std(ddof=1))
    if spread > 0:
        return float(stats.t.ppf((1 + level) / 2, n - 1) * spread / np.sqrt(n))
    return float(reach * (1 - ((1 - level) / 2) ** (1 / n)))


def _has_path(data: CausalData, cause: str, outcome: str, kind: effects.Kind) -> bool:
    direct = bool(data.graph.has_edge(cause, outcome))
    mediated = bool(effects.mediators(data.model, cause, outcome))
    return {"total": direct or mediated, "direct": direct, "indirect": mediated}[kind]


def _described(
    data: CausalData, found: Mapping[str, NDArray[np.float64]], outcomes: tuple[str, ...], n: int, seed: int
) -> xr.Dataset:
    dims = ("kind", "cause", "outcome")
    cells = int(np.isfinite(found["known"]).sum())
    contrasts = np.array([effects.contrast(size) for size in data.factor_sizes])
    labels = {
        "known": "effect known from the causal model",
        "measured": "effect measured on images",
        "measured_low": "lower end of the 95 % interval of the measured effect",
        "measured_high": "upper end of the 95 % interval of the measured effect",
        "simultaneous_low": "lower end of the interval that holds for all effects at once with 95 %",
        "simultaneous_high": "upper end of the interval that holds for all effects at once with 95 %",
    }
    return xr.Dataset(
        {name: (dims, found[name], {"long_name": label, "units": "classes"}) for name, label in labels.items()},
        coords={
            "kind": list(effects.KINDS),
            "cause": list(data.factor_names),
            "outcome": list(outcomes),
            "low": ("cause", contrasts[:, 0], {"long_name": "low class of the cause", "units": "class"}),
            "high": ("cause", contrasts[:, 1], {"long_name": "high class of the cause", "units": "class"}),
        },
        attrs={
            "estimands": _ESTIMANDS,
            "readout": data.readout.description if data.readout else "outcomes are factor classes, not read off pixels",
            "intervals": f"Student's t over units; simultaneous by Bonferroni over {cells} effects",
            "mechanisms": "; ".join(f"{name} = {formula}" for name, formula in data.formulas.items()),
            "edges": ", ".join(f"{a} -> {b}" for a, b in data.graph.edges),
            "units_per_cause": n,
            "seed": seed,
        },
    )

"""Effects between the factors of a structural model: exact by enumeration, and closed form where it is linear.

With low and high classes of the cause X, outcome Y and mediators M (Pearl 2001, Direct and indirect effects):

* total     TE  = E[Y | do(X = high)] - E[Y | do(X = low)]
* direct    NDE = E[Y(high, M(low))] - E[Y(low)]
* indirect  NIE = E[Y(low, M(high))] - E[Y(low)]

in classes of Y. The model has no hidden common causes, so the last two follow from interventional distributions by the
mediation formula. TE need not be NDE + NIE: with interaction, TE = NDE - NIE of the step back from high to low.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from cvi_widgets.data.scm import Linear, StructuralModel
from cvi_widgets.errors import DataError
from cvi_widgets.names import unknown

Kind = Literal["total", "direct", "indirect"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_LARGEST_TABLE = 50_000_000


def contrast(size: int) -> tuple[int, int]:
    """The default low and high class of a factor with `size` classes: its first and third quarter."""
    return round((size - 1) / 4), round(3 * (size - 1) / 4)


def effect(
    model: StructuralModel,
    cause: str,
    outcome: str,
    kind: Kind = "total",
    low: int | None = None,
    high: int | None = None,
) -> float:
    """Exact effect of `cause` on `outcome`, in classes of the outcome, by enumeration over the grid.

    Parameters
    ----------
    kind
        `total`, `direct` or `indirect`, as defined at the top of this module.
    low, high
        Classes of the cause; `contrast` where not given.
    """
    low, high = checked_contrast(model, cause, outcome, kind, low, high)
    if not nx.has_path(model.graph, cause, outcome):
        return 0.0
    given = model.parents(outcome)
    mean = conditional(model, outcome) @ np.arange(model.sizes[outcome])
    others = [p for p in given if p != cause]

    def expected(direct: int, mediated: int) -> float:
        """E[Y] when Y sees `direct` of the cause and all other parents see `mediated`."""
        seen = np.take(mean, direct, axis=given.index(cause)) if cause in given else mean
        return float((joint(model, others, {cause: mediated}) * seen).sum())

    if kind == "total":
        return expected(high, high) - expected(low, low)
    if kind == "direct":
        return expected(high, low) - expected(low, low)
    return expected(low, high) - expected(low, low)


def linear_effect(
    model: StructuralModel,
    cause: str,
    outcome: str,
    kind: Kind = "total",
    low: int | None = None,
    high: int | None = None,
) -> float:
    """Effect in the linear-Gaussian model without rounding or clipping: (high - low) x sum of products over paths.

    Equal to `effect` as far as the grid's ends are out of reach (Wright 1934, The method of path coefficients).

    Raises
    ------
    DataError
        When a factor on a path from cause to outcome is not `Linear`.
    """
    low, high = checked_contrast(model, cause, outcome, kind, low, high)
    within = (nx.descendants(model.graph, cause)) & (nx.ancestors(model.graph, outcome) | {outcome})
    for name in sorted(within):
        if not isinstance(model.mechanisms[name], Linear):
            formula = model.mechanisms[name].formula
            raise DataError(f"mechanism {name!r} is {formula}; path coefficients need Linear ones.")
    total = 0.0
    direct = 0.0
    for path in nx.all_simple_paths(model.graph, cause, outcome):
        product = math.prod(_weight(model, a, b) for a, b in itertools.pairwise(path))
        total += product
        direct += product if len(path) == 2 else 0.0
    return (high - low) * {"total": total, "direct": direct, "indirect": total - direct}[kind]


def conditional(model: StructuralModel, name: str) -> NDArray[np.float64]:
    """P(name | parents), axes the parents in column order and then `name`: differences of the normal distribution."""
    given = model.parents(name)
    shape = [model.sizes[p] for p in given]
    if np.prod([*shape, model.sizes[name]]) > _LARGEST_TABLE:
        raise DataError(
            f"factor {name!r} has {len(given)} parents, whose classes are too many to enumerate; "
            f"at most {_LARGEST_TABLE:,} cells fit."
        )
    classes = dict(zip(given, np.indices(shape).astype(np.int64), strict=True))
    edges = model.mechanisms[name].thresholds(classes, model.sizes[name])
    edges = np.broadcast_to(edges, (*shape, model.sizes[name] + 1))
    low, high = edges[..., :-1], edges[..., 1:]
    # Above zero the difference is taken in the other tail, where it keeps its digits.
    return np.asarray(np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low)), dtype=np.float64)


def joint(model: StructuralModel, names: Sequence[str], do: Mapping[str, int] | None = None) -> NDArray[np.float64]:
    """P(names | do), axes in the order of `names`, by summing the factorised distribution over all other factors."""
    fixed = do or {}
    cut = nx.DiGraph(model.graph)
    cut.remove_edges_from([edge for name in fixed for edge in model.graph.in_edges(name)])
    needed = set(names).union(*(nx.ancestors(cut, name) for name in names))
    operands: list[Any] = []
    for name in (n for n in model.names if n in needed):
        column = model.names.index(name)
        if name in fixed:
            operands += [np.eye(model.sizes[name])[fixed[name]], [column]]
        else:
            above = [model.names.index(p) for p in model.parents(name)]
            operands += [conditional(model, name), [*above, column]]
    if not operands:
        return np.array(1.0)
    return np.asarray(np.einsum(*operands, [model.names.index(n) for n in names], optimize="greedy"))


def mediators(model: StructuralModel, cause: str, outcome: str) -> tuple[str, ...]:
    """Factors on the paths between cause and outcome, in column order."""
    between = nx.descendants(model.graph, cause) & nx.ancestors(model.graph, outcome)
    return tuple(n for n in model.names if n in between)


def checked_contrast(
    model: StructuralModel, cause: str, outcome: str, kind: str, low: int | None, high: int | None
) -> tuple[int, int]:
    """The classes to compare, defaults filled in; or one sentence about what is wrong."""
    for role, name in (("cause", cause), ("outcome", outcome)):
        if name not in model.sizes:
            raise DataError(unknown(role, name, model.names))
    if cause == outcome:
        raise DataError(f"cause and outcome are both {cause!r}; an effect needs two factors.")
    if kind not in KINDS:
        raise DataError(unknown("kind", kind, KINDS))
    size = model.sizes[cause]
    default = contrast(size)
    chosen = (default[0] if low is None else int(low), default[1] if high is None else int(high))
    for which, value in zip(("low", "high"), chosen, strict=True):
        if not 0 <= value < size:
            raise DataError(f"{which} is {value}; factor {cause!r} has classes 0 to {size - 1}.")
    return chosen


def _weight(model: StructuralModel, cause: str, outcome: str) -> float:
    mechanism = model.mechanisms[outcome]
    assert isinstance(mechanism, Linear)
    return mechanism.weights[cause]

"""Disentanglement metrics of a run, as rows beside its causal ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cvi_widgets.errors import CviError
from cvi_widgets.metrics.disentanglement import dci, explicitness, mig, modularity_score, sap
from cvi_widgets.metrics.rows import Row
from cvi_widgets.metrics.statistics import Null

EXAMPLES = 3000
"""Held-out images that are used at most: refits for the null cost more with more of them."""
_NAMES = {"modularity": "modularity_score"}


def disentanglement_rows(
    mu: NDArray[np.floating], classes: NDArray[np.int64], factors: list[str], draws: int, seed: int
) -> dict[str, Row]:
    """MIG, SAP, DCI, modularity and explicitness in their default conventions, or NaN and the reason.

    Parameters
    ----------
    mu : (example, latent)
    classes : (example, factor)
    """
    x, y = mu[:EXAMPLES], classes[:EXAMPLES]
    few = min(draws, 200)

    def measured(metric: Callable[..., xr.Dataset], **settings: int) -> dict[str, Row]:
        try:
            return _rows(metric(x, y, draws=few, seed=seed, factor_names=factors, **settings))
        except CviError as error:
            name = metric.__name__
            return {name: Row(np.nan, np.nan, np.nan, f"not measured: {error}", "1")}

    return {
        **measured(mig, null_draws=few),
        **measured(sap, null_draws=few),
        **measured(dci, null_draws=max(1, draws // 50)),
        **measured(modularity_score, null_draws=few),
        **measured(explicitness, null_draws=few),
    }


def _rows(found: xr.Dataset) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for name in found["metric"].values.astype(str):
        one = found.sel(metric=name)
        null = Null(*(float(one[key]) for key in ("null_mean", "null_sd", "p")))
        said = f"{one['convention'].item()}; {found.attrs['n']} held-out images"
        value, low, high = (float(one[key]) for key in ("value", "ci_low", "ci_high"))
        rows[_NAMES.get(name, name)] = Row(value, low, high, said, str(one["units"].item()), null)
    return rows

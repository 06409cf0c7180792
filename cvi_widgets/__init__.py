"""Ask causal questions of variational autoencoders, in Jupyter.

The whole public surface; names are loaded when first used, so that `import cvi_widgets` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvi_widgets import data, metrics, models, objectives, training, views
    from cvi_widgets.config import RunConfig
    from cvi_widgets.dashboards import dashboard, setup
    from cvi_widgets.data import load
    from cvi_widgets.errors import CviError
    from cvi_widgets.interventions import (
        Circuit,
        Intervention,
        circuit,
        faithfulness,
        intervene_code,
        intervene_input,
        intervene_latent,
        mediate,
        patch,
        path_patch,
        plan,
        planted,
        wrap,
    )
    from cvi_widgets.runs import Run, open_run, start_run
    from cvi_widgets.stages import intervene_stage, report_stage, train_stage
    from cvi_widgets.studies.runner import run_flat as run

_HOMES = {
    "RunConfig": "config",
    "CviError": "errors",
    "load": "data",
    "wrap": "interventions",
    "Intervention": "interventions",
    "intervene_input": "interventions",
    "intervene_latent": "interventions",
    "intervene_code": "interventions",
    "patch": "interventions",
    "mediate": "interventions",
    "path_patch": "interventions",
    "plan": "interventions",
    "planted": "interventions",
    "circuit": "interventions",
    "Circuit": "interventions",
    "faithfulness": "interventions",
    "Run": "runs",
    "open_run": "runs",
    "start_run": "runs",
    "train_stage": "stages",
    "intervene_stage": "stages",
    "report_stage": "stages",
    "run": "studies.runner:run_flat",
    "dashboard": "dashboards",
    "setup": "dashboards",
}
_ROOMS = ("data", "metrics", "models", "objectives", "training", "views")

__version__ = version("cvi_widgets")
__all__ = [
    "Circuit",
    "CviError",
    "Intervention",
    "Run",
    "RunConfig",
    "circuit",
    "dashboard",
    "data",
    "faithfulness",
    "intervene_code",
    "intervene_input",
    "intervene_latent",
    "intervene_stage",
    "load",
    "mediate",
    "metrics",
    "models",
    "objectives",
    "open_run",
    "patch",
    "path_patch",
    "plan",
    "planted",
    "report_stage",
    "run",
    "setup",
    "start_run",
    "train_stage",
    "training",
    "views",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        home, _, attribute = _HOMES[name].partition(":")
        return getattr(import_module(f"{__name__}.{home}"), attribute or name)
    from cvi_widgets.names import unknown

    raise AttributeError(unknown("name in cvi_widgets", name, __all__))


def __dir__() -> list[str]:
    return sorted(__all__)

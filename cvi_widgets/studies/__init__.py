"""Executing runs: one by its notebooks, many from one YAML."""

from __future__ import annotations

from cvi_widgets.studies.grid import StudyConfig, load_study, shipped_studies
from cvi_widgets.studies.runner import execute, notebook_sources
from cvi_widgets.studies.sweep import run_study

__all__ = ["StudyConfig", "execute", "load_study", "notebook_sources", "run_study", "shipped_studies"]

"""Dashboards: Panel viewers that join views, selections and a live model."""

from __future__ import annotations

from cvi_widgets.dashboards.extension import setup
from cvi_widgets.dashboards.serve import serve
from cvi_widgets.dashboards.viewer import dashboard

__all__ = ["dashboard", "serve", "setup"]

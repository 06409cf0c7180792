"""The report: one HTML file per run that works with the network blocked."""

from __future__ import annotations

from cvi_widgets.report.page import build

__all__ = ["build"]

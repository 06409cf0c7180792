"""Loading the notebook's JavaScript so that it works without a network.

Not for scripts and servers: those load what they need by themselves.
"""

from __future__ import annotations

import os

import holoviews as hv
import panel as pn

_done = False


def setup() -> None:
    """Load Panel and HoloViews into the notebook, all resources inside it; a second call does nothing.

    Notes
    -----
    The order matters: an inline `pn.extension` first, then an inline `hv.extension`. The documented default order takes
    BokehJS from a server on the internet and leaves blank cells without one.
    """
    global _done
    if _done:
        return
    # Kernels started from this process, and Panel's later look-ups, stay offline too.
    os.environ.setdefault("PANEL_INLINE", "true")
    pn.extension(inline=True)
    hv.extension("bokeh", inline=True, logo=False)
    _done = True

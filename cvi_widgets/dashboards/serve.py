"""Serving a viewer to a browser: on this machine only, unless another address is named."""

from __future__ import annotations

import panel as pn

from cvi_widgets.dashboards.viewer import RunLike, dashboard
from cvi_widgets.errors import ConfigError


def serve(
    run: RunLike, port: int = 0, show: bool = False, *, address: str = "localhost", threaded: bool = False
) -> pn.io.server.StoppableThread | object:
    """Serve the viewer of `run`; each browser tab gets sliders of its own.

    Parameters
    ----------
    port : TCP port, 0 for any that is free.
    show : open a browser.
    address : the address to listen at; anything but `localhost` lets others on the network in.
    threaded : return at once, with a thread that has `stop()`; otherwise return when the server is stopped.

    Raises
    ------
    ConfigError
        The port is no port, or is taken.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"port is {port}; it must lie between 0 and 65535.")
    # Loaded before the first visitor comes, so that no one waits for them.
    _ = run.model, run.results, run.data
    allowed = None if address in ("localhost", "127.0.0.1") else ["*"]
    try:
        return pn.serve(
            lambda: dashboard(run),
            port=port,
            address=address,
            show=show,
            threaded=threaded,
            title=f"cvi_widgets: {run.config.run_id}",
            websocket_origin=allowed,
            verbose=not threaded,
        )
    except OSError as error:
        raise ConfigError(f"port {port} at {address!r} cannot be listened at ({error.strerror or error}).") from error

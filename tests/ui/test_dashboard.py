"""The viewer, served to a real browser on this machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import panel as pn
import pytest

from cvi_widgets.dashboards import dashboard, serve
from cvi_widgets.errors import ConfigError

PIXELS = """
() => {
  const found = [];
  const walk = (node) => {
    for (const e of node.querySelectorAll('*')) {
      if (e.tagName === 'CANVAS' && e.width && e.offsetParent !== null) found.push(e.toDataURL());
      if (e.shadowRoot) walk(e.shadowRoot);
    }
  };
  walk(document);
  return found;
}
"""


@pytest.fixture(scope="module")
def address(run: Any) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = serve(run, port=port, threaded=True)
    try:
        _answering(port)
        yield f"http://localhost:{port}"
    finally:
        server.stop()
        server.join(10)


def _answering(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the server did not come up in 30 s")


def _settled(page: Any, other: list[str] | None = None) -> list[str]:
    """Pixels once they stay the same (and, with `other`, differ from it); the server needs a moment for each."""
    last: list[str] = []
    for _ in range(150):
        now = page.evaluate(PIXELS)
        if now and now == last and now != other:
            return now
        last = now
        page.wait_for_timeout(200)
    raise AssertionError("the pictures did not change in 30 s")


def test_moving_a_slider_changes_the_picture(local_page: Any, address: str) -> None:
    local_page.goto(address)
    local_page.wait_for_selector(".noUi-handle", timeout=60_000)
    before = _settled(local_page)
    assert len(before) >= 4
    slider = local_page.locator(".noUi-handle").nth(1)
    slider.focus()
    for _ in range(3):
        slider.press("PageUp")
    after = _settled(local_page, before)
    changed = [a != b for a, b in zip(before, after, strict=True)]
    # Edited and difference change; the original and the untouched picture do not.
    assert 1 < sum(changed) < len(changed)
    assert (local_page.console_errors, local_page.external_requests) == ([], [])


def test_stored_maps_open_in_tabs(local_page: Any, address: str) -> None:
    local_page.goto(address)
    local_page.wait_for_selector(".noUi-handle", timeout=60_000)
    before = _settled(local_page)
    local_page.get_by_text("Patching", exact=True).click()
    assert _settled(local_page, before)
    assert (local_page.console_errors, local_page.external_requests) == ([], [])


def test_a_group_that_is_missing_is_said_in_its_tab(synthetic: ModuleType, tmp_path: Any) -> None:
    run = synthetic.synthetic_run(tmp_path, without=("effects/patching", "posterior"))
    shown = dashboard(run)
    notes = [pane.object for pane in shown.select(pn.pane.HTML)]
    assert any("/effects/patching" in note for note in notes)
    assert any("The latent scrubber cannot be shown" in note for note in notes)


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_is_none_is_refused_in_one_sentence(run: Any, port: int) -> None:
    with pytest.raises(ConfigError, match=f"port is {port}"):
        serve(run, port=port)

"""The browser fixtures refuse the network and say what was asked of it."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvi_widgets import paths


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "style.css").write_text("body { color: red }")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_: object) -> None:
            """Nothing: pytest's output is for tests."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


def test_offline_page_draws_a_file_and_needs_nothing_else(offline_page: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>t</title><p id=x></p><script>x.textContent = 6 * 7</script>")
    offline_page.goto(page.as_uri())
    assert offline_page.text_content("#x") == "42"
    assert (offline_page.console_errors, offline_page.external_requests) == ([], [])


def test_offline_page_refuses_and_records_the_network(offline_page: Any, tmp_path: Path, server: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        f'<!doctype html><link rel=stylesheet href="{server}/style.css"><p>text</p>'
        f"<script>new WebSocket('{server.replace('http', 'ws')}/socket'); missing()</script>"
    )
    offline_page.goto(page.as_uri())
    offline_page.wait_for_timeout(200)
    assert f"{server}/style.css" in offline_page.external_requests
    assert any(url.startswith("ws://") for url in offline_page.external_requests)
    assert any("missing is not defined" in text for text in offline_page.console_errors)
    colour = offline_page.eval_on_selector("p", "p => getComputedStyle(p).color")
    assert colour == "rgb(0, 0, 0)"


def test_local_page_reaches_this_machine_and_nothing_else(local_page: Any, tmp_path: Path, server: str) -> None:
    (tmp_path / "page.html").write_text(
        '<!doctype html><link rel=stylesheet href="style.css"><img src="https://example.org/a.png"><p>text</p>'
    )
    local_page.goto(f"{server}/page.html")
    assert local_page.eval_on_selector("p", "p => getComputedStyle(p).color") == "rgb(255, 0, 0)"
    assert local_page.external_requests == ["https://example.org/a.png"]


def test_home_has_runs_of_its_own_and_the_sessions_data(data_home: Path, home: Path) -> None:
    assert paths.runs_dir() == home / "runs" != data_home / "runs"
    assert paths.ensure_writable(paths.data_dir()).resolve() == (data_home / "data").resolve()
    assert os.environ["OMP_NUM_THREADS"].isdigit()

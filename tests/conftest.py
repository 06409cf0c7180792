"""What all tests share: a home for data and runs, and a browser without a network.

`browser` and the pages stand on Playwright's synchronous interface, which keeps an event loop running in the test
thread; it lives per module, so that modules that run notebooks (which start loops of their own) are not disturbed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Before anything imports torch: timings and reduction orders then do not depend on how many cores a machine has.
os.environ.setdefault("OMP_NUM_THREADS", "2")

CHROMIUM_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
IN_THE_FILE = re.compile(r"^(file|data|blob|about):")
LOCALHOST = re.compile(r"^(https?|wss?)://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/|$)")


@pytest.fixture(scope="session", autouse=True)
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`CVI_HOME` of this session: rendered data sets are made once in `data_home / "data"` and shared by all tests."""
    folder = tmp_path_factory.mktemp("cvi-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CVI_HOME", str(folder))
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def home(data_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`CVI_HOME` of one test: runs of its own under `home / "runs"`, the session's data under `home / "data"`."""
    folder = tmp_path / "home"
    folder.mkdir()
    (data_home / "data").mkdir(exist_ok=True)
    (folder / "data").symlink_to(data_home / "data", target_is_directory=True)
    monkeypatch.setenv("CVI_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium: what `CHROMIUM` names, else the system's `chromium`, else the one Playwright installed."""
    from playwright.sync_api import Error, sync_playwright

    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    # Chromium refuses its own sandbox when it is started by root, as containers do.
    sandbox = ("--no-sandbox",) if sys.platform == "linux" and os.getuid() == 0 else ()
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=executable, args=[*sandbox, *CHROMIUM_FLAGS])
        except Error as error:
            pytest.fail(
                "these tests need Chromium: install the package `chromium`, or run `playwright install chromium`, "
                f"or let CHROMIUM name one ({error.message.splitlines()[0]}).",
                pytrace=False,
            )
        yield started
        started.close()


@contextmanager
def watched_page(browser: Any, allowed: re.Pattern[str], offline: bool) -> Iterator[Any]:
    """A page that records `console_errors` and `external_requests` (lists of str) and lets only `allowed` through."""
    context = browser.new_context(viewport={"width": 1280, "height": 1500}, offline=offline)
    page = context.new_page()
    page.console_errors, page.external_requests = [], []

    def gate(route: Any) -> None:
        if allowed.match(route.request.url):
            route.continue_()
        else:
            page.external_requests.append(route.request.url)
            route.abort()

    def refuse(socket: Any) -> None:
        page.external_requests.append(socket.url)
        socket.close()

    context.route("**/*", gate)
    context.route_web_socket(lambda url: not allowed.match(url), refuse)
    page.on("console", lambda message: page.console_errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.console_errors.append(str(error)))
    yield page
    context.close()


@pytest.fixture
def offline_page(browser: Any) -> Iterator[Any]:
    """A Playwright page with the network blocked, for files: `offline_page.goto(path.as_uri())`.

    `offline_page.console_errors` and `offline_page.external_requests` list what went wrong and what the page asked of
    the network; both must stay empty for a file that works from a USB stick.
    """
    with watched_page(browser, IN_THE_FILE, offline=True) as page:
        yield page


@pytest.fixture
def local_page(browser: Any) -> Iterator[Any]:
    """The same for servers on this machine: localhost answers, everything else is refused and recorded."""
    allowed = re.compile(f"{IN_THE_FILE.pattern}|{LOCALHOST.pattern}")
    with watched_page(browser, allowed, offline=False) as page:
        yield page


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The module that makes synthetic runs; loaded by its path, since test folders are no packages."""
    path = Path(__file__).parent / "report" / "synthetic.py"
    spec = importlib.util.spec_from_file_location("cvi_tests_synthetic", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One synthetic run with a known causal graph, read by the tests of views, reports and dashboards."""
    return synthetic.synthetic_run(tmp_path_factory.mktemp("run"), scm=True)

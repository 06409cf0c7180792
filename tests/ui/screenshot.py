"""Take pictures of a report by hand: `python tests/ui/screenshot.py report.html picture.png [--width 1280] [--dark]`.

Not a test: it makes the README's picture. `--height` cuts the picture below that many pixels, `--full` takes the whole
page, `--part latents` starts at that part of the page.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path


def screenshot(
    report: Path,
    picture: Path,
    *,
    width: int = 1280,
    height: int = 900,
    dark: bool = False,
    full: bool = False,
    part: str = "",
    scale: float = 1.0,
) -> Path:
    """Open `report` with the network blocked, wait until everything is drawn, write `picture` (PNG)."""
    from playwright.sync_api import sync_playwright

    executable = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    sandbox = ["--no-sandbox"] if sys.platform == "linux" and os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*sandbox, "--disable-gpu"])
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            device_scale_factor=scale,
            offline=True,
        )
        page.goto(report.absolute().as_uri())
        page.wait_for_selector("html[data-plots]", state="attached", timeout=60_000)
        if part:
            page.evaluate("(id) => document.getElementById(id).scrollIntoView({ behavior: 'instant' })", part)
        page.wait_for_timeout(800)
        page.screenshot(path=picture, full_page=full)
        browser.close()
    return picture


def main() -> None:
    """Read the command line and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--part", default="")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    screenshot(
        given.report,
        given.picture,
        width=given.width,
        height=given.height,
        dark=given.dark,
        full=given.full,
        part=given.part,
        scale=given.scale,
    )
    print(given.picture)


if __name__ == "__main__":
    main()

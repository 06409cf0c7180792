"""Print constraints for everything that `cvi_widgets[dev]` pulls into the environment that runs this."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HEADER = """\
# Tested versions of everything that cvi_widgets[dev] pulls in, for Python {python}.
# Regenerate with `make lock`, which writes down what .venv holds; to move to newer releases, first run
# `.venv/bin/python -m pip install --upgrade --upgrade-strategy eager -e '.[dev]'` and `make test`.
# torch comes first and without a local label: ==2.13.0 matches the CPU build as well as the CUDA build.
"""


def closure(root: Requirement) -> dict[str, str]:
    """Installed versions, by canonical name, of all that `root` needs on this platform, itself excluded."""
    pins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(root.name, extra) for extra in {"", *root.extras}]
    while queue:
        name, extra = queue.pop()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        try:
            pins[canonicalize_name(name)] = Version(version(name)).public
            needed = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            raise SystemExit(f"{name} is needed but not installed; run `make test` first.") from None
        for requirement in needed:
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                queue += [(requirement.name, chosen) for chosen in {"", *requirement.extras}]
    del pins[canonicalize_name(root.name)]
    return pins


def lock() -> str:
    """The text of constraints.txt."""
    pins = closure(Requirement("cvi_widgets[dev]"))
    order = ["torch", *sorted(set(pins) - {"torch"})]
    python = ".".join(platform.python_version_tuple()[:2])
    return HEADER.format(python=python) + "".join(f"{name}=={pins[name]}\n" for name in order)


if __name__ == "__main__":
    print(lock(), end="")

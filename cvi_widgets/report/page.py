"""From a run to one HTML file: gather, render, write whole."""

from __future__ import annotations

import json
import os
from functools import cache
from importlib.resources import files
from pathlib import Path

import jinja2
from bokeh.resources import Resources
from markupsafe import Markup

from cvi_widgets.errors import StoreError
from cvi_widgets.report import sentences
from cvi_widgets.report.parts import script_safe
from cvi_widgets.report.provenance import facts, settings_table
from cvi_widgets.report.sections import sections
from cvi_widgets.report.source import RunLike, Source
from cvi_widgets.report.strips import hero
from cvi_widgets.views import SCHEMES


def build(run: RunLike, path: str | os.PathLike[str]) -> Path:
    """Write the report of `run` to `path`: one HTML file that asks nothing of the network.

    Parameters
    ----------
    run : RunLike
        Anything with `config`, `results`, `data`, `directory` and `status` (and `model`, for reconstructions).
    path : path of the file to write, replaced whole.

    Raises
    ------
    StoreError
        The file cannot be written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise StoreError(f"report {str(target)!r} cannot be written: its folder does not exist.")
    text = html(run)
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(target)
    except OSError as error:
        raise StoreError(f"report {str(target)!r} cannot be written ({error.strerror or error}).") from error
    return target


def html(run: RunLike) -> str:
    """The report of `run` as text."""
    source = Source(run)
    return _template().render(
        title=sentences.title(source),
        opening=sentences.opening(source),
        hero=hero(source),
        sections=sections(source),
        facts=facts(source),
        settings=settings_table(source.config),
        config=source.config,
        run_id=source.run_id,
        made=str(source.tree.attrs.get("created_at") or source.status.get("updated") or "")[:10],
        palettes=Markup(script_safe(json.dumps(SCHEMES, separators=(",", ":")))),
        style=Markup(_static("page.css")),
        script=Markup(_static("page.js")),
        bokeh=Markup(_bokeh()),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["json_text"] = Markup
    return environment.from_string(_static("page.html.j2"))


@cache
def _bokeh() -> str:
    """BokehJS's core from the installed package, without the parts that no plot here uses."""
    scripts = Resources(mode="inline", components=["bokeh"]).js_raw
    return "\n".join(scripts).replace("</script", "<\\/script")


def _static(name: str) -> str:
    return (files("cvi_widgets.report") / "static" / name).read_text(encoding="utf-8")

"""What a page is made of: plots, pictures, cards and sections, all plain values that the template writes out."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from typing import Any

import holoviews as hv
import numpy as np
from bokeh.embed import json_item
from bokeh.models import LinearColorMapper, Model
from numpy.typing import NDArray
from PIL import Image

from cvi_widgets.views import SCHEMES


@dataclass(frozen=True)
class Plot:
    """A Bokeh figure as JSON; `alt` says in words what it shows, `caption` how to read it."""

    item: str
    alt: str
    caption: str = ""
    height: int = 300
    half: bool = False
    kind: str = "plot"


@dataclass(frozen=True)
class Picture:
    """A PNG inside the page; `half` pictures stand two in a row, `folded` ones behind a line that opens them."""

    uri: str
    alt: str
    caption: str = ""
    width: int = 0
    height: int = 0
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    folded: str = ""
    half: bool = False
    kind: str = "picture"


@dataclass(frozen=True)
class Scrubber:
    """Stored traversal frames with what the page's script needs to know of them (JSON)."""

    meta: str
    blob: str
    caption: str = ""
    kind: str = "scrubber"


@dataclass(frozen=True)
class Card:
    """A headline figure: value, 95 % interval, null, and the convention it was computed by."""

    name: str
    title: str
    value: str
    unit: str
    interval: str
    null: str
    meaning: str
    convention: str
    scale: dict[str, float] | None = None
    weak: bool = False


@dataclass(frozen=True)
class Cards:
    """Headline figures side by side."""

    cards: tuple[Card, ...]
    kind: str = "cards"


@dataclass(frozen=True)
class Table:
    """A small table; every cell is text; `folded` ones stand behind a line that opens them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: str = ""
    kind: str = "table"


Block = Plot | Picture | Scrubber | Cards | Table


@dataclass(frozen=True)
class Section:
    """A part of the page; `missing` says what the store lacks where the part should be."""

    id: str
    short: str
    title: str
    lead: str
    blocks: tuple[Block, ...] = ()
    notes: tuple[str, ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class Fact:
    """A line of the colophon."""

    name: str
    value: str
    code: bool = False
    more: tuple[str, ...] = field(default=())


def plot(element: hv.Dimensioned, alt: str, caption: str = "", half: bool = False) -> Plot:
    """Render a view; colour maps are tagged so that the page can exchange them with its scheme."""
    figure = hv.render(element, backend="bokeh")
    _tag_palettes(figure)
    text = json.dumps(json_item(figure), separators=(",", ":"))
    return Plot(script_safe(text), alt, caption, int(getattr(figure, "height", None) or 300), half)


def picture(pixels: NDArray[np.uint8], alt: str, caption: str = "", half: bool = False, **labels: Any) -> Picture:
    """Pixels (y, x, 3 or 4) as a PNG inside the page; grey pictures are stored grey."""
    image = Image.fromarray(pixels)
    if np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2]):
        image = image.convert("LA")
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    return Picture(uri, alt, caption, pixels.shape[1], pixels.shape[0], half=half, **labels)


def script_safe(text: str) -> str:
    """JSON that can stand inside `<script>`: no `<` can close or open a tag in it."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _tag_palettes(figure: Model) -> None:
    light = {tuple(palette): name for name, palette in SCHEMES["light"].items()}
    for mapper in figure.select({"type": LinearColorMapper}):
        name = light.get(tuple(mapper.palette))
        if name:
            mapper.tags = [name]

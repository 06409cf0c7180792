"""The report in a real browser with the network blocked."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cvi_widgets import report
from cvi_widgets.errors import StoreError
from cvi_widgets.report import sections
from cvi_widgets.report.source import Source

INK = """
() => [...document.querySelectorAll('.plot')].map((plot) => {
  const found = [];
  const walk = (node) => {
    for (const e of node.querySelectorAll('*')) {
      if (e.tagName === 'CANVAS' && e.width && e.height) found.push(e);
      if (e.shadowRoot) walk(e.shadowRoot);
    }
  };
  walk(plot);
  return Math.max(0, ...found.map((c) => {
    const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    let n = 0;
    for (let i = 3; i < data.length; i += 4) if (data[i]) n++;
    return n;
  }));
})
"""
PIXELS = "(id) => document.getElementById(id).toDataURL()"
PLOT_TEXT = """
() => Bokeh.documents.flatMap((d) => d.roots().flatMap((r) => [...r.references()]))
  .filter((m) => m.type === 'LinearAxis').map((m) => m.properties.major_label_text_color.get_value())
  .map((v) => (v && v.value) || v)
"""


@pytest.fixture(scope="module")
def page_file(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.build(run, tmp_path_factory.mktemp("report") / "report.html")


def _open(page: Any, path: Path) -> Any:
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-plots]", state="attached", timeout=60_000)
    return page


def test_is_one_small_file(page_file: Path) -> None:
    assert 1_000_000 < page_file.stat().st_size < 10_000_000
    assert [p.name for p in page_file.parent.iterdir()] == ["report.html"]


def test_draws_everything_offline_without_an_error(offline_page: Any, page_file: Path) -> None:
    page = _open(offline_page, page_file)
    ink = page.evaluate(INK)
    assert len(ink) == int(page.get_attribute("html", "data-plots")) >= 16
    assert min(ink) > 500
    assert (page.console_errors, page.external_requests) == ([], [])
    sections = page.eval_on_selector_all("main > section", "all => all.map((s) => s.id)")
    assert sections == ["headline", "latents", "pictures", "factors", "network", "graph", "training", "made"]
    linked = page.eval_on_selector_all("nav a", "all => all.map((a) => a.hash.slice(1))")
    assert linked == sections


def test_scrubber_slider_changes_the_picture_and_says_what_it_did(offline_page: Any, page_file: Path) -> None:
    page = _open(offline_page, page_file)
    page.click("#untouched")
    assert page.evaluate(PIXELS, "edited") == page.evaluate(PIXELS, "before")
    page.focus("#slide-z0")
    page.keyboard.press("Home")
    left = page.evaluate(PIXELS, "edited")
    assert left != page.evaluate(PIXELS, "before")
    page.keyboard.press("End")
    assert page.evaluate(PIXELS, "edited") not in (left, page.evaluate(PIXELS, "before"))
    assert "to the left" in page.text_content("#telling")
    assert page.get_attribute("#slide-z0", "aria-valuetext") == "set to 3.00"
    page.focus("#slide-z1")
    page.keyboard.press("End")
    assert "down" in page.text_content("#telling") and "z1" in page.text_content("#telling")


def test_examples_can_be_chosen_with_the_keyboard(offline_page: Any, page_file: Path) -> None:
    page = _open(offline_page, page_file)
    first = page.evaluate(PIXELS, "before")
    page.focus("#examples input:checked")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(PIXELS, "before") != first


def test_dead_latents_are_greyed_and_said(offline_page: Any, page_file: Path) -> None:
    page = _open(offline_page, page_file)
    assert page.eval_on_selector_all("#dead-sliders .slider.dead", "all => all.length") == 5
    assert "5 latents of 10 are dead (z2, z5, z7, z8 and z9)" in page.text_content("#latents .note")


def test_scheme_button_repaints_page_and_plots(offline_page: Any, page_file: Path) -> None:
    offline_page.emulate_media(color_scheme="light")
    page = _open(offline_page, page_file)
    background = "() => getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(background), set(page.evaluate(PLOT_TEXT)), page.evaluate(PIXELS, "difference")
    page.click("#scheme")
    after = page.evaluate(background), set(page.evaluate(PLOT_TEXT)), page.evaluate(PIXELS, "difference")
    assert len(before[1]) == len(after[1]) == 1
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert page.get_attribute("#scheme", "aria-pressed") == "true"


def test_a_dark_system_gets_a_dark_page_at_once(offline_page: Any, page_file: Path) -> None:
    offline_page.emulate_media(color_scheme="dark")
    page = _open(offline_page, page_file)
    assert page.get_attribute("html", "data-scheme") == "dark"
    assert set(page.evaluate(PLOT_TEXT)) == {"#b6bac3"}


@pytest.mark.parametrize("width", [1280, 820, 400])
def test_fits_the_screen_without_scrolling_sideways(offline_page: Any, page_file: Path, width: int) -> None:
    offline_page.set_viewport_size({"width": width, "height": 900})
    page = _open(offline_page, page_file)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_is_readable_by_machines_too(offline_page: Any, page_file: Path) -> None:
    page = _open(offline_page, page_file)
    assert page.get_attribute("html", "lang") == "en"
    assert page.eval_on_selector_all("h1", "all => all.length") == 1
    unnamed = "all => all.filter((e) => !(e.getAttribute('alt') || e.getAttribute('aria-label') || '').trim()).length"
    assert page.eval_on_selector_all("img, .plot, .stage canvas[id]", unnamed) == 0
    labels = "all => all.filter((e) => !document.querySelector(`label[for='${e.id}']`)).length"
    assert page.eval_on_selector_all("input[type=range]", labels) == 0


def test_text_from_settings_and_data_is_escaped(offline_page: Any, synthetic: ModuleType, tmp_path: Path) -> None:
    evil = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>$$x$$"
    run = synthetic.synthetic_run(tmp_path)
    tree = run.results.map_over_datasets(
        lambda d: d.assign_coords(factor=[f"{evil}{i}" for i in range(5)]) if "factor" in d.sizes else d
    )
    metrics = tree["metrics/run"].to_dataset()
    metrics = metrics.assign_coords(convention=("metric", [evil] * metrics.sizes["metric"]))
    tree["metrics/run"] = type(tree)(metrics)
    tree["effects/latent"]["readout_shift"].attrs["long_name"] = evil
    poisoned = synthetic.SyntheticRun(
        run.config,
        tree,
        synthetic.Sprites(provenance=evil, name=evil, licence="</script>" + evil),
        tmp_path,
        {**run.status, "seconds": {evil: 3.0}, "versions": {evil: evil}},
        run.model,
    )
    path = report.build(poisoned, tmp_path / "report.html")
    page = _open(offline_page, path)
    assert page.evaluate("window.pwned") is None
    assert (page.console_errors, page.external_requests) == ([], [])
    assert "<script>window.pwned=1</script>" in page.text_content("#made")
    assert "<script>window.pwned=1</script>" in page.text_content("#factors")


def test_what_is_missing_is_said_where_it_should_be(offline_page: Any, synthetic: ModuleType, tmp_path: Path) -> None:
    run = synthetic.synthetic_run(tmp_path, without=("effects/patching", "effects/latent", "metrics/run", "training"))
    page = _open(offline_page, report.build(run, tmp_path / "report.html"))
    assert (page.console_errors, page.external_requests) == ([], [])
    said = {p: page.text_content(f"#{p} .missing") for p in ("headline", "latents", "network", "training")}
    assert "/metrics/run" in said["headline"] and "/effects/latent" in said["latents"]
    assert "/effects/patching" in said["network"] and "/training" in said["training"]
    assert page.eval_on_selector_all("#network .plot", "all => all.length") == 4
    assert page.query_selector("#graph") is None


def test_a_causal_data_set_without_graph_effects_says_so(synthetic: ModuleType, tmp_path: Path) -> None:
    run = synthetic.synthetic_run(tmp_path, scm=True, without=("effects/graph",))
    part = sections.graph(Source(run))
    assert part is not None and "/effects/graph" in part.missing
    assert sections.graph(Source(synthetic.synthetic_run(tmp_path))) is None


def test_an_unwritable_place_is_one_sentence(run: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        report.build(run, tmp_path / "no" / "such" / "folder.html")

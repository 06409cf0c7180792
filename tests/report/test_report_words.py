"""Sentences say what the numbers say."""

from __future__ import annotations

import doctest
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from cvi_widgets.config import RunConfig
from cvi_widgets.report import cards, provenance, sentences, words
from cvi_widgets.report.source import Source


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(words).failed == 0


@given(st.floats(-1e6, 1e6))
def test_numbers_keep_their_value_to_three_digits(value: float) -> None:
    text = words.number(value).replace(",", "").replace(words.MINUS, "-")
    assert float(text) == pytest.approx(value, rel=0.006, abs=1e-6)


def test_interval_of_a_move_to_the_left_is_written_positive_and_in_order(run: Any) -> None:
    dataset = run.results["effects/latent"].to_dataset()
    slope, low, high = (
        float(dataset[n].sel(latent=0, readout="centroid_x")) for n in ("slope", "slope_low", "slope_high")
    )
    assert slope < 0
    said = sentences.mover(dataset, "centroid_x")
    far = words.with_interval(-slope, -high, -low, "px")
    assert said == f"Raising latent 0 by one moves the picture's centre {far} to the left."


def test_a_slope_that_may_be_zero_is_said_to_be_unsure() -> None:
    dims = ("latent", "readout")
    dataset = xr.Dataset(
        {"slope": (dims, [[0.1]]), "slope_low": (dims, [[-0.2]]), "slope_high": (dims, [[0.4]])},
        {"latent": [3], "readout": ["centroid_y"]},
    )
    said = sentences.mover(dataset, "centroid_y")
    assert "latent 3" in said and "down" in said and "may be nothing" in said


def test_graph_sentence_counts_intervals_that_hold_the_truth() -> None:
    dims = ("kind", "cause", "outcome")
    known = np.array([[[np.nan, 1.0], [2.0, np.nan]]])
    dataset = xr.Dataset(
        {
            "known": (dims, known),
            "measured": (dims, known),
            "measured_low": (dims, known - 0.1),
            "measured_high": (dims, known + 0.1),
        },
        {"kind": ["total"], "cause": ["a", "b"], "outcome": ["a", "b"]},
    )
    assert "2 of 2 effects" in sentences.graph(dataset)
    dataset["measured_low"][0, 0, 1] = 1.05
    assert "1 of 2 effects" in sentences.graph(dataset)


def test_every_latent_alive_needs_no_note(run: Any) -> None:
    dataset = run.results["effects/latent"].to_dataset()
    assert sentences.dead(dataset.assign(active=("latent", np.ones(10, bool)))) == ()
    one = np.ones(10, bool)
    one[4] = False
    assert sentences.dead(dataset.assign(active=("latent", one)))[0].startswith("1 latent of 10 is dead (z4)")


def test_patching_sentence_names_the_largest_unit_before_the_code(run: Any) -> None:
    dataset = run.results["effects/patching"].to_dataset()
    before = np.array([not s.startswith("latent") for s in dataset["site"].values])
    top = int(np.where(before, dataset["transfer"].values, -1).argmax())
    assert f"{dataset['site'].values[top]}[{dataset['channel'].values[top]}]" in sentences.patching(dataset)


def test_cards_show_interval_null_and_verdict(run: Any) -> None:
    made = {c.name: c for c in cards.metric_cards(run.results["metrics/run"].to_dataset())}
    modularity = made["modularity_mu"]
    assert modularity.weak and "no more than chance" in modularity.null and modularity.interval == "[0.574, 0.668]"
    position = made["position_r2"]
    assert not position.weak and position.scale and position.scale["null"] < position.scale["low"]
    assert made["active_latents"].value == "5" and made["active_latents"].interval == "[5, 5]"
    assert all(c.convention for c in made.values())


def test_undefined_metrics_get_no_card_but_stay_in_the_table(run: Any) -> None:
    metrics = run.results["metrics/run"].to_dataset().copy(deep=True)
    metrics["value"][:] = np.nan
    assert cards.metric_cards(metrics) == ()
    assert len(cards.metric_table(metrics).rows) == metrics.sizes["metric"]


def test_command_makes_the_same_configuration_again() -> None:
    config = RunConfig.of("scm-dsprites", "beta_vae", beta=2.5, seed=7, preset="smoke", scm="nonlinear", kl_warmup=100)
    settings = provenance.chosen_settings(config)
    assert RunConfig.of("scm-dsprites", "beta_vae", **settings) == config
    text = provenance.command(config)
    assert text.startswith("cvi run scm-dsprites beta_vae")
    assert all(
        part in text for part in ("--beta 2.5", "--seed 7", "--preset smoke", "--scm nonlinear", "--kl-warmup 100")
    )


def test_opening_needs_nothing_but_says_what_there_is(synthetic: ModuleType, tmp_path: Any) -> None:
    everything = ("training", "posterior", "effects/latent")
    assert sentences.opening(Source(synthetic.synthetic_run(tmp_path, without=everything))) == ""
    full = sentences.opening(Source(synthetic.synthetic_run(tmp_path)))
    assert "130,000 images" in full and "5 of its 10 latents" in full and "to the left" in full


def test_a_run_keeps_its_name_when_settings_are_added_later(run: Any) -> None:
    class Named:
        run_id = "dsprites-beta_vae-b4-s0-00000000"
        config, results, data, directory, status = run.config, run.results, run.data, run.directory, run.status

    source = Source(Named())
    assert source.run_id == Named.run_id
    assert provenance.facts(source)[0].value == Named.run_id
    assert Source(run).run_id == run.config.run_id

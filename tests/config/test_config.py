"""Settings: names, types and limits are refused with one sentence; equal settings have equal ids."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvi_widgets.config import MODELS, PRESETS, RunConfig, setting_names
from cvi_widgets.errors import ConfigError
from cvi_widgets.names import nearest, unknown


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bata": 3.0}, ["'bata'", "did you mean beta?"]),
        ({"beta": "four"}, ["'beta'", "'four'", "number"]),
        ({"beta": -1.0}, ["'beta'", "-1.0", "greater than or equal to 0"]),
        ({"beta": float("nan")}, ["'beta'", "finite"]),
        ({"seed": -1}, ["'seed'", "-1"]),
        ({"seed": 1.5}, ["'seed'", "1.5", "integer"]),
        ({"preset": "dem"}, ["'dem'", "did you mean demo?"]),
        ({"precision": "bf16"}, ["'precision'", "'float32' or 'bfloat16'"]),
        ({"low": 3.0, "high": 1.0}, ["low=3.0", "high=1.0"]),
        ({"study": "../up"}, ["'study'", "'../up'"]),
        ({"images": True}, ["'images'", "True"]),
    ],
)
def test_a_bad_setting_is_named_with_what_is_allowed(settings: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.of("dsprites", "beta_vae", **settings)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence


def test_a_setting_of_another_model_says_whose_it_is() -> None:
    with pytest.raises(ConfigError, match="'beta' belongs to beta_vae, beta_tc_vae, not to model 'vae'"):
        RunConfig.of("dsprites", "vae", beta=4.0)


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        ("beta_tc_vae", {"estimator": "mss"}, ["'estimator'", "'mss'", "'stratified' or 'weighted'"]),
        ("dip_vae", {"variant": "iii"}, ["'variant'", "'iii'", "'i' or 'ii'"]),
        ("dip_vae", {"lambda_od": -1.0}, ["'lambda_od'", "-1.0", "greater than or equal to 0"]),
        ("annealed_vae", {"capacity_growth": 2.0}, ["'capacity_growth'", "2.0", "less than or equal to 1"]),
        ("factor_vae", {"discriminator_layers": 0}, ["'discriminator_layers'", "0", "greater than or equal to 1"]),
        ("factor_vae", {"discriminator_beta1": 1.0}, ["'discriminator_beta1'", "1.0", "less than 1"]),
        ("vq_vae", {"codes": 1}, ["'codes'", "1", "greater than or equal to 2"]),
        ("vq_vae", {"codebook": "adam"}, ["'codebook'", "'adam'", "'ema' or 'loss'"]),
        ("factor_vae", {"gama": 6.4}, ["'gama'", "did you mean gamma?"]),
    ],
)
def test_each_model_checks_its_own_settings(model: str, settings: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.of("dsprites", model, **settings)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("model", "start"),
    [
        ("vae", "dsprites-vae-s0-"),
        ("beta_vae", "dsprites-beta_vae-b4-s0-"),
        ("beta_tc_vae", "dsprites-beta_tc_vae-b6-s0-"),
        ("dip_vae", "dsprites-dip_vae-l10-l10-s0-"),
        ("annealed_vae", "dsprites-annealed_vae-c25-g1000-s0-"),
        ("factor_vae", "dsprites-factor_vae-g40-s0-"),
        ("vq_vae", "dsprites-vq_vae-c512-s0-"),
    ],
)
def test_the_id_shows_the_weights_of_the_published_defaults(model: str, start: str) -> None:
    assert RunConfig.of("dsprites", model).run_id.startswith(start)


def test_settings_that_the_id_does_not_show_still_change_it() -> None:
    ids = {RunConfig.of("dsprites", "factor_vae", discriminator_width=w).run_id for w in (100, 1000)}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("dataset", "model", "guess"), [("dsprite", "vae", "dsprites"), ("dsprites", "betavae", "beta_vae")]
)
def test_unknown_data_set_and_model_get_the_nearest_name(dataset: str, model: str, guess: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {guess}"):
        RunConfig.of(dataset, model)


def test_the_stored_form_reads_back_equal_and_extra_fields_are_refused() -> None:
    config = RunConfig.of("scm-dsprites", "beta_vae", beta=2, seed=3, preset="smoke", scm="nonlinear")
    stored = json.loads(json.dumps(config.model_dump(mode="json")))
    assert RunConfig.checked(stored) == config
    stored["training"]["momentum"] = 0.9
    with pytest.raises(ConfigError, match="momentum"):
        RunConfig.checked(stored)


def test_flat_settings_make_the_same_configuration() -> None:
    config = RunConfig.of("dsprites", "beta_vae", beta=6.0, pairs=12)
    flat = config.flat()
    assert RunConfig.of(flat.pop("dataset"), flat.pop("model"), **flat) == config
    assert len(flat) == len(set(flat)) == len(setting_names("beta_vae")) - 2


@given(beta=st.floats(0, 100), seed=st.integers(0, 2**31 - 1))
def test_the_id_depends_on_what_decides_the_result_and_on_nothing_else(beta: float, seed: int) -> None:
    config = RunConfig.of("dsprites", "beta_vae", beta=beta, seed=seed)
    moved = RunConfig.of(
        "dsprites", "beta_vae", beta=beta, seed=seed, study="other", threads=1, data_path="/x", checkpoint_seconds=1
    )
    assert moved.run_id == config.run_id
    assert RunConfig.of("dsprites", "beta_vae", beta=beta + 1, seed=seed).run_id != config.run_id
    assert f"-s{seed}-" in config.run_id


def test_every_preset_is_valid_for_every_model() -> None:
    for preset in PRESETS:
        for model in MODELS:
            assert RunConfig.of("dsprites", model, preset=preset).preset == preset


def test_each_flat_name_belongs_to_one_section() -> None:
    for model in MODELS:
        names = setting_names(model)
        assert len(names) == len(set(names))


def test_nearest_and_its_sentence() -> None:
    assert nearest("Encoder.Conv1", ["encoder.conv1", "latent.mu"]) == "encoder.conv1"
    assert nearest("zzz", ["encoder.conv1"]) is None
    assert unknown("site", "mu", ["latent.mu"]) == "site 'mu' is unknown; allowed are latent.mu."

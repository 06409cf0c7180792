"""Discrete codes: what exchanging a code does to a decoder whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cvi_widgets.errors import ConfigError, DataError, SiteError
from cvi_widgets.interventions import Intervention, intervene_code, wrap
from cvi_widgets.interventions.engine import each_unit, method_for
from cvi_widgets.interventions.outcomes import readout
from cvi_widgets.interventions.trace import record

LEVELS = torch.tensor([0.0, 0.25, 0.5, 1.0])


class Painter(nn.Module):
    """Two codebooks on a 2 x 2 grid: the left half of each 1 x 2 patch shows book 0, the right half book 1.

    z_e is the image itself, so that codes and pictures are known: a code is the number of the nearest grey level.
    """

    image_shape = (1, 2, 4)
    n_codes = 4

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("levels", LEVELS.clone())

    def encode(self, x: Tensor) -> Tensor:
        return x.view(-1, 2, 2, 2).movedim(3, 1)

    def quantise(self, mu: Tensor) -> Tensor:
        return (mu[..., None] - self.levels).abs().argmin(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        return self.levels[codes]

    def decode(self, z: Tensor) -> Tensor:
        return z.movedim(1, 3).reshape(-1, 1, 2, 4)


def painted(**arguments):
    return wrap(Painter(), quantise="quantise", lookup="lookup", **arguments)


def grey(n: int, seed: int = 0) -> Tensor:
    """Images of exact grey levels: nothing is lost in the quantiser."""
    return LEVELS[torch.randint(4, (n, 1, 2, 4), generator=torch.Generator().manual_seed(seed))]


def test_the_sites_of_a_discrete_model_in_order():
    model = painted()
    table = model.sites()
    assert list(table.index) == ["latent.mu", "latent.code", "latent.z", "decoder.output"]
    assert table.loc["latent.code", "shape"] == (2, 2, 2)
    assert table.loc["latent.code", "n_units"] == 2
    assert model.discrete and model.n_codes == 4 and model.latent_shape == (2, 2, 2)
    assert "codes (2, 2, 2)" in repr(model)


def test_a_pass_goes_through_mu_code_z_and_image():
    model, x = painted(), grey(70) + 0.05
    found, cache = model.run_with_cache(x)
    assert found.logvar is None
    assert torch.equal(model.lookup(found.code), found.z)
    torch.testing.assert_close(found.image, grey(70))
    torch.testing.assert_close(model.decode_codes(found.code), found.image)
    assert not torch.equal(model.decode(found.mu), found.image)
    torch.testing.assert_close(model.decode_mu(found.mu), found.image)
    assert cache["latent.code"]["act"].dims == ("example", "channel", "y", "x")
    np.testing.assert_array_equal(cache["latent.code"]["act"], found.code)


def test_without_the_decoder_a_pass_ends_at_mu():
    model = painted()
    with model.running():
        found = model.forward(grey(2), decode=False)
    assert found.image is None and found.code is None
    assert torch.equal(found.z, found.mu)


def test_set_exchanges_one_code_for_another_where_it_is_found():
    model, x = painted(), grey(40)
    before = model.run_with_hooks(x, []).code
    found = model.run_with_hooks(x, [Intervention("latent.code", 0, "set", value=3, when=1)])
    expected = before.clone()
    expected[:, 0][before[:, 0] == 1] = 3
    assert torch.equal(found.code, expected)
    assert (before[:, 0] == 1).any() and not (found.code[:, 0] == 1).any()
    torch.testing.assert_close(found.image, model.decode_codes(expected))


def test_where_picks_cells():
    model, x = painted(), grey(10)
    where = np.array([[True, False], [False, True]])
    before = model.run_with_hooks(x, []).code
    found = model.run_with_hooks(x, [Intervention("latent.code", None, "set", value=2, where=where)]).code
    assert (found[:, :, where] == 2).all()
    assert torch.equal(found[:, :, ~where], before[:, :, ~where])


def test_swap_and_resample_of_codes():
    model, x, source = painted(), grey(30), grey(30, seed=1)
    own, other = model.run_with_hooks(x, []).code, model.run_with_hooks(source, []).code
    swapped = model.run_with_hooks(x, [Intervention("latent.code", 1, "swap", source=source)]).code
    assert torch.equal(swapped[:, 0], own[:, 0]) and torch.equal(swapped[:, 1], other[:, 1])
    shuffled = model.run_with_hooks(x, [Intervention("latent.code", 0, "resample", seed=1)]).code
    assert not torch.equal(shuffled[:, 0], own[:, 0])
    assert sorted(map(tuple, shuffled[:, 0].flatten(1).tolist())) == sorted(map(tuple, own[:, 0].flatten(1).tolist()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"do": "set", "value": 4}, "code 4 does not exist at site 'latent.code'; codes are 0 to 3"),
        ({"do": "set", "value": 1.5}, "code 1.5 does not exist"),
        ({"do": "set", "value": 1, "when": 9}, "code 9 does not exist"),
        ({"do": "set", "value": 1, "units": 2}, "unit 2 does not exist"),
        ({"do": "set", "value": 1, "where": np.ones((3, 2), bool)}, r"shape \(3, 2\); the positions .* \(2, 2\)"),
    ],
)
def test_codes_that_do_not_exist_are_refused_before_the_pass(arguments, message):
    with pytest.raises(SiteError, match=message):
        painted().run_with_hooks(grey(2), [Intervention("latent.code", **arguments)])


@pytest.mark.parametrize("do", ["zero", "mean", "noise", "add"])
def test_arithmetic_on_codes_is_refused(do):
    value = 1.0 if do in ("noise", "add") else None
    with pytest.raises(ConfigError, match=f"do='{do}' is no change of codes, which are names; allowed are set, swap"):
        Intervention("latent.code", 0, do, value=value)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((2, 2, 2, 3), np.int64), r"shape \(2, 2, 2, 3\); the model takes \(n, 2, 2, 2\)"),
        (np.zeros((2, 2, 2, 2), np.float32), "float32; they are names"),
        (np.full((1, 2, 2, 2), 4), "code 4 does not exist"),
        (np.full((1, 2, 2, 2), -1), "code -1 does not exist"),
    ],
)
def test_wrong_codes_get_a_sentence(codes, message):
    with pytest.raises(DataError, match=message):
        painted().decode_codes(codes)


def test_a_quantiser_is_given_whole_and_returns_what_it_must(conv_vae):
    module = Painter()
    with pytest.raises(ConfigError, match="give both, or neither"):
        wrap(module, quantise="quantise")
    with pytest.raises(ConfigError, match=r"float32 \(2, 2, 2, 2\); it must return torch.int64"):
        wrap(module, quantise=lambda mu: mu, lookup="lookup")
    with pytest.raises(ConfigError, match=r"lookup returned torch\.int64"):
        wrap(module, quantise="quantise", lookup=lambda codes: codes)
    model = wrap(conv_vae())
    for call in (lambda: model.n_codes, lambda: model.quantise(torch.zeros(1, 3)), lambda: model.decode_codes([[0]])):
        with pytest.raises(ConfigError, match="code is continuous"):
            call()


def test_where_the_number_of_codes_is_unknown_only_impossible_ones_are_refused():
    module, x = Painter(), grey(20)
    unnamed = wrap(
        nn.Module(),
        encode=module.encode,
        decode=module.decode,
        image_shape=(1, 2, 4),
        quantise=module.quantise,
        lookup=module.lookup,
    )
    assert unnamed.n_codes is None
    change = Intervention("latent.code", 0, "set", value=2, when=0)
    assert torch.equal(unnamed.run_with_hooks(x, [change]).image, painted().run_with_hooks(x, [change]).image)
    assert torch.equal(unnamed.decode_codes(torch.full((1, 2, 2, 2), 3)), torch.ones(1, 1, 2, 4))
    with pytest.raises(
        SiteError, match=r"code -1 does not exist at site 'latent\.code'; codes are whole numbers from 0"
    ):
        unnamed.run_with_hooks(x, [Intervention("latent.code", 0, "set", value=-1)])
    with pytest.raises(DataError, match="code -2 does not exist; codes are whole numbers"):
        unnamed.decode_codes(torch.full((1, 2, 2, 2), -2))
    assert wrap(module, quantise="quantise", lookup="lookup", n_codes=9).n_codes == 9


def test_patching_a_codebook_is_what_a_hook_does():
    model, x, source = painted(), grey(6), grey(6, seed=1)
    outcome = readout(model, "reconstruction")
    trace, into = record(model, x, decode=True), record(model, source, decode=True)
    site = model.site("latent.code")
    assert method_for(model, site, outcome) == "suffix"
    new = into.value(site.name)
    fast, slow = (
        torch.cat(list(each_unit(model, trace, x, site, new, [[0], [1]], outcome, method)))
        for method in ("suffix", "hooks")
    )
    assert torch.equal(fast, slow)
    # Book 0 paints the left pixel of each patch.
    assert torch.equal(fast[0].reshape(-1, 2, 4)[:, :, ::2], source.view(-1, 2, 4)[:, :, ::2])
    assert torch.equal(fast[0].reshape(-1, 2, 4)[:, :, 1::2], x.view(-1, 2, 4)[:, :, 1::2])


def test_exchanging_a_code_changes_the_picture_by_the_step_between_its_levels():
    # Only two levels in use: every exchange moves one pixel from 0 to 1 or back.
    x = torch.randint(2, (50, 1, 2, 4), generator=torch.Generator().manual_seed(0)).float()
    found = intervene_code(painted(), x, swaps=2, draws=50)
    assert dict(found["l2"].sizes) == {"example": 50, "codebook": 2, "cell": 4}
    np.testing.assert_allclose(found["l2"], 1, rtol=1e-6)
    for name in ("ces_code_l2", "ces_code_l2_low", "ces_code_l2_high"):
        np.testing.assert_allclose(found[name], 1, rtol=1e-6)
    np.testing.assert_allclose(found["ces_code_rms"], 1 / np.sqrt(8), rtol=1e-6)
    assert found["in_use"].values.tolist() == [2, 2]
    assert found["cell_y"].values.tolist() == [0, 0, 1, 1]
    assert all({"long_name", "units"} <= set(found[v].attrs) for v in found.data_vars)


def test_the_quantiser_snaps_small_shifts_back():
    # Levels 0 and 1 only. z_e set to v gives the nearest of 0, 0.25, 0.5, 1: a shift within a level changes no code.
    x = torch.cat([torch.zeros(20, 1, 2, 4), torch.ones(20, 1, 2, 4)])
    found = intervene_code(painted(), x, values=[-1.0, 0.1, 0.9], draws=50)
    np.testing.assert_allclose(found["snapped_at"], [[0.5, 0.5, 0.5]] * 2)
    assert found["l2_coordinate"].sel(example=0).values == pytest.approx(1 / 3)
    assert found["l2_coordinate"].sel(example=39).values == pytest.approx(2 / 3)
    np.testing.assert_allclose(found["ces_coordinate_l2"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(found["ces_coordinate_rms"], 0.5 / np.sqrt(8), rtol=1e-6)
    np.testing.assert_allclose(found["snapped"], 0.5, rtol=1e-6)
    still = intervene_code(painted(), x, values=[-1.0, -2.0, 0.0, 0.1], draws=50)
    assert still["l2_coordinate"].sel(example=0).max() == 0
    np.testing.assert_allclose(still["snapped_at"], [[0.5] * 4] * 2)
    # The left pixels are all 0 already, none of the right ones is.
    right = torch.zeros_like(x)
    right[..., 1::2] = 0.5 + x[..., 1::2] / 2
    always = intervene_code(painted(), right, values=[0.02, -4.0], draws=20)
    np.testing.assert_allclose(always["snapped"], [1, 0])
    np.testing.assert_allclose(always["ces_coordinate_l2"], [0, 0.75], rtol=1e-6)


def test_sampled_cells_are_seeded_and_a_codebook_with_one_code_has_no_effect_to_measure():
    x = grey(12)
    x.view(-1, 2, 2, 2)[..., 1] = 0.5
    first, again = (intervene_code(painted(), x, cells=2, seed=3, draws=20) for _ in range(2))
    assert first.identical(again)
    assert dict(first["l2"].sizes) == {"example": 12, "codebook": 2, "cell": 2}
    assert first["in_use"].values.tolist() == [4, 1]
    assert np.isnan(first["ces_code_l2"].values).tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"swaps": 0}, ConfigError, "setting 'swaps' is 0"),
        ({"cells": 0}, ConfigError, "setting 'cells' is 0"),
        ({"values": [np.nan]}, ConfigError, "list of numbers"),
        ({"x": torch.zeros(3, 1, 2, 4)}, DataError, "every image has the same codes"),
    ],
)
def test_what_cannot_be_exchanged(arguments, error, message):
    with pytest.raises(error, match=message):
        intervene_code(painted(), **{"x": grey(3), **arguments})


def test_a_continuous_model_is_sent_to_intervene_latent(conv_vae, images):
    with pytest.raises(ConfigError, match="use intervene_latent"):
        intervene_code(wrap(conv_vae()), images(2))

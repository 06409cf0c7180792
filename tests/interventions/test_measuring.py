from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

import cvi_widgets as cvi
from cvi_widgets.data.protocol import FactorData, Pairs
from cvi_widgets.errors import ConfigError, DataError, SiteError
from cvi_widgets.interventions import contrasts, intervene_input, intervene_latent, mediate, patch, wrap
from cvi_widgets.interventions.engine import METHODS, each_unit, method_for, read, traced, unit_groups
from cvi_widgets.interventions.mediation import Contrasts, p_of_share
from cvi_widgets.interventions.outcomes import measured_sites, readout

ENCODER = [
    "encoder.conv0.pre",
    "encoder.conv0",
    "encoder.conv1",
    "encoder.flatten",
    "encoder.fc0.pre",
    "encoder.fc0",
    "latent.mu",
]


def identity_vae(linear_vae, code=None):
    code = torch.eye(3) if code is None else torch.as_tensor(code, dtype=torch.float32)
    return wrap(linear_vae(code, torch.eye(3)[:, : len(code)]))


def values_of(model, site, base, source, outcome="mu", method="auto"):
    """Outcome (unit, pair, ...) of each unit swapped."""
    at, y = model.site(site), readout(model, outcome)
    (run,) = traced(model, base, source, decode=True)
    groups = unit_groups(at, "each")
    return torch.cat(list(each_unit(model, run.base, base, at, run.source.value(at.name), groups, y, method)))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("site", ENCODER)
def test_every_method_agrees_with_the_hooked_twin(conv_vae, images, site, norm):
    model = wrap(conv_vae(norm=norm).train())
    base, source = images(7), images(7, seed=1)
    twin = values_of(model, site, base, source, method="hooks")
    assert twin.shape == (model.site(site).n_units, 7, 3)
    assert (twin != model.encode(base).mu).any()
    for method in METHODS:
        torch.testing.assert_close(values_of(model, site, base, source, method=method), twin, rtol=1e-4, atol=1e-6)


def test_functional_steps_are_recorded_too(conv_vae, images):
    model = wrap(conv_vae(functional=True))
    y = readout(model, "mu")
    assert {method_for(model, s, y) for s in measured_sites(model, None, y)} == {"linear"}
    base, source = images(5), images(5, seed=1)
    found = values_of(model, "latent.mu", base, source)
    mu_b, mu_s = model.encode(base).mu, model.encode(source).mu
    for unit in range(3):
        wanted = mu_b.clone()
        wanted[:, unit] = mu_s[:, unit]
        torch.testing.assert_close(found[unit], wanted)


def test_swapping_with_itself_changes_nothing(conv_vae, images):
    x = images(9)
    found = patch(wrap(conv_vae()), x, x, draws=100)
    assert float(found["effect"].max()) < 1e-5
    assert found["transfer"].isnull().all()


@pytest.mark.parametrize("outcome", ["mu", "reconstruction", "latent:1", lambda ran: ran.image.flatten(1)[:, :4]])
def test_total_equals_direct_plus_reversed_indirect_exactly(conv_vae, images, outcome):
    model = wrap(conv_vae())
    base, source = images(20), images(20, seed=1)
    y = readout(model, outcome)
    sites = measured_sites(model, None, y)
    (run,) = traced(model, base, source, decode=True)
    total = read(run.source, y) - read(run.base, y)
    for site in sites:
        into_source = values_of(model, site.name, source, base, outcome, "hooks")
        direct = values_of(model, site.name, source, base, outcome) - read(run.base, y)
        reversed_indirect = read(run.source, y) - into_source
        torch.testing.assert_close(direct + reversed_indirect, total.expand_as(direct), rtol=1e-4, atol=2e-6)


def test_contrasts_are_the_definitions_read_off_hooked_passes(conv_vae, images):
    model = wrap(conv_vae())
    base, source = images(80), images(80, seed=1)
    y = readout(model, "mu")
    plan = [(s, unit_groups(s, "each")) for s in measured_sites(model, None, y)]
    fast, slow = (contrasts(model, base, source, plan, y, method) for method in ("auto", "hooks"))
    for a, b in zip(fast[:4], slow[:4], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    mu_b, mu_s = model.encode(base).mu, model.encode(source).mu
    np.testing.assert_allclose(fast.total, (mu_s - mu_b).numpy(), atol=1e-6)
    # Swapping mu's own coordinate is all of that latent's effect and none of any other's.
    np.testing.assert_allclose(fast.indirect[:, -3:][:, [0, 1, 2], [0, 1, 2]], fast.total, atol=1e-6)
    backward = contrasts(model, source, base, plan, y)
    np.testing.assert_allclose(fast.direct - backward.indirect, fast.total[:, None].repeat(18, 1), atol=1e-6)


def test_a_planted_unit_carries_exactly_its_factor(linear_vae, pixel_factors):
    assert isinstance(pixel_factors, FactorData)
    model = identity_vae(linear_vae, [[0, 2.0, 0], [1.0, 0, 0]])
    found = mediate(model, pixel_factors, pairs=70, sites=["encoder.fc0"], draws=100)
    carried = np.eye(3)
    carried[2, 2] = np.nan
    share = found["mediated"].transpose("unit", "factor").values
    np.testing.assert_allclose(share[:, :2], carried[:, :2], atol=1e-5)
    # Factor c moves no latent, so that there is no effect to be mediated.
    assert np.isnan(share[:, 2]).all()
    assert found["moving"].values.tolist() == [70, 70, 0]
    assert (found["mediated_low"] <= found["mediated"] + 1e-6).sel(factor=["a", "b"]).all()
    effect = found["effect"].sel(factor="b")
    np.testing.assert_allclose(effect.sel(kind="indirect", unit=1), effect.sel(kind="total", unit=1), rtol=1e-5)
    np.testing.assert_allclose(effect.sel(kind="direct", unit=1), 0, atol=1e-6)
    np.testing.assert_allclose(effect.sel(kind="direct", unit=0), effect.sel(kind="total", unit=0), rtol=1e-5)


def test_a_planted_unit_is_found_by_patching(linear_vae):
    model = identity_vae(linear_vae, [[1.0, 0, 0], [0, 1.0, 0]])
    rng = np.random.default_rng(0)
    base, source = rng.random((2, 300, 1, 1, 3)).astype(np.float32)
    found = patch(model, base, source, ["encoder.fc0"], index=Pairs(np.arange(300), np.arange(300) + 1), draws=200)
    effect = found["effect"].values
    gap = np.abs(source - base).reshape(300, 3).mean(0)
    sd = np.concatenate([base, source]).reshape(600, 3).std(0)
    np.testing.assert_allclose(effect[:2], np.diag(gap[:2] / sd[:2]), atol=1e-4)
    np.testing.assert_allclose(effect[2], 0, atol=1e-6)
    transfer = found["transfer"].values
    np.testing.assert_allclose(transfer[:2].sum(), 1, atol=1e-5)
    assert abs(transfer[2]) < 1e-6
    assert found["base"].dims == ("pair",)
    assert (found["transfer_low"] < found["transfer"])[:2].all()
    assert (found["transfer"] < found["transfer_high"])[:2].all()


def test_input_interventions_on_the_identity(linear_vae, pixel_factors):
    model = identity_vae(linear_vae)
    found = intervene_input(model, pixel_factors, pairs=100, seed=3, draws=200)
    assert found["factor"].values.tolist() == ["a", "b", "c"]
    base = pixel_factors.factors(found["base"].values.ravel()).reshape(3, 100, 3)
    source = pixel_factors.factors(found["source"].values.ravel()).reshape(3, 100, 3)
    signed = (source - base) / 10
    np.testing.assert_allclose(found["delta_mu_pair"], signed, atol=1e-6)
    sd = base.reshape(-1, 3).std(0) / 10
    np.testing.assert_allclose(found["delta_mu"], np.abs(signed).mean(1) / sd, atol=1e-5)
    fc0 = found["response"].where(found["site"] == "encoder.fc0", drop=True).transpose("factor", "unit")
    np.testing.assert_allclose(fc0, np.diag(np.abs(signed).mean(1).diagonal()), atol=1e-6)
    assert (found["delta_mu_low"].values.diagonal() < found["delta_mu"].values.diagonal()).all()
    assert found["unit"].size == 6
    assert found["channel"].values.tolist() == [0, 1, 2, 0, 1, 2]
    for name, variable in found.data_vars.items():
        assert variable.attrs["long_name"], name
        assert variable.attrs["units"], name


def test_a_factors_pairs_do_not_depend_on_the_other_factors(linear_vae, pixel_factors):
    model = identity_vae(linear_vae)
    every = intervene_input(model, pixel_factors, pairs=20, draws=100)
    one = intervene_input(model, pixel_factors, "b", pairs=20, draws=100)
    xr.testing.assert_equal(one["delta_mu_pair"].sel(factor="b"), every["delta_mu_pair"].sel(factor="b"))
    other = intervene_input(model, pixel_factors, "b", pairs=20, seed=1, draws=100)
    assert not other["base"].equals(one["base"])


def test_response_is_the_mean_over_positions(conv_vae, images, pixel_factors):
    model = wrap(conv_vae())

    class Fixed(type(pixel_factors)):
        image_shape = (1, 8, 8)

        def images(self, index, dtype="uint8"):
            return torch.stack([images(1, seed=int(i))[0] for i in index]).numpy()

    found = intervene_input(model, Fixed(), ["a"], pairs=66, draws=100)
    at = model.site("encoder.conv1")
    pairs = Fixed().images(found["base"].values[0]), Fixed().images(found["source"].values[0])
    change = (model.values(pairs[1], [at])[at.name] - model.values(pairs[0], [at])[at.name]).abs()
    stored = found["response_pair"].isel(factor=0).where(found["site"] == at.name, drop=True)
    np.testing.assert_allclose(stored, change.mean((2, 3)), atol=1e-6)


def test_linear_decoder_has_the_known_effect_strength(linear_vae):
    torch.manual_seed(0)
    weights = torch.randn(6, 3)
    model = wrap(linear_vae(torch.eye(3, 6), weights))
    z = torch.randn(3000, 3)
    x = torch.cat([z, torch.zeros(3000, 3)], dim=1).view(-1, 1, 1, 6)
    found = intervene_latent(model, x, draws=200)
    grid = np.linspace(-3, 3, 7)
    norm = weights.norm(dim=0).numpy()
    exact = np.abs(z.numpy()[:, :, None] - grid).mean((0, 2)) * norm
    np.testing.assert_allclose(found["ces_l2"], exact, rtol=1e-5)
    # In expectation over z ~ N(0, I) the factor is 1.88095.
    assert (found["ces_l2_low"].values < 1.88095 * norm).all()
    assert (found["ces_l2_high"].values > 1.88095 * norm).all()
    np.testing.assert_allclose(found["ces_rms"], exact / np.sqrt(6), rtol=1e-5)
    np.testing.assert_allclose(found["l2"], np.abs(z.numpy()[:, :, None] - grid).mean(2) * norm, rtol=1e-4)
    p = (weights.numpy() ** 2).T
    p = p / p.sum(1, keepdims=True)
    np.testing.assert_allclose(found["specificity"], 1 + (p * np.log(p)).sum(1) / np.log(6), rtol=1e-4)
    np.testing.assert_allclose(
        found["change"].isel(y=0),
        np.abs(z.numpy()[:, :, None] - grid).mean(0)[..., None] * np.abs(weights.numpy().T)[:, None],
        rtol=1e-4,
    )


def test_a_latent_that_moves_a_blob_has_its_slope(linear_vae):
    # Equal mass slides from pixel 0 to pixel 4 as z goes from -1 to 1: the centroid is at 2 + 2 z.
    picture = torch.zeros(5, 2)
    model = wrap(linear_vae(torch.eye(2, 5), picture))
    module = model.module
    with torch.no_grad():
        module.picture.weight[0, 0], module.picture.weight[4, 0] = -0.5, 0.5
        module.picture.bias[0] = module.picture.bias[4] = 0.5
    x = torch.zeros(10, 1, 1, 5)
    found = intervene_latent(model, x, values=[-1.0, 0.0, 1.0], frames=3, shown=2, draws=100)
    slope = found["slope"].sel(readout="centroid_x").values
    np.testing.assert_allclose(slope, [2, 0], atol=1e-5)
    np.testing.assert_allclose(found["readout_shift"].sel(latent=0, readout="centroid_x"), [-2, 0, 2], atol=1e-5)
    np.testing.assert_allclose(found["readout_shift"].sel(readout="area"), 0, atol=1e-5)
    assert found["traversal"].shape == (2, 2, 3, 1, 1, 5)
    assert found["traversal"].dtype == np.uint8
    assert found["traversal"].sel(latent=0).isel(shown=1, channel=0, y=0).values.tolist() == [
        [255, 0, 0, 0, 0],
        [128, 0, 0, 0, 128],
        [0, 0, 0, 0, 255],
    ]
    assert found["active"].values.tolist() == [False, False]
    # A latent without any effect on the picture has no specificity, rather than a perfect one.
    assert np.isnan(found["specificity"].values[1])


def test_results_repeat_with_the_seed_and_have_only_types_a_store_keeps(conv_vae, images):
    model = wrap(conv_vae())
    base, source = images(20), images(20, seed=1)
    for measure in (
        lambda: patch(model, base, source, draws=100),
        lambda: intervene_latent(model, base, draws=100),
        lambda: mediate(model, {"a": (base, source)}, draws=100),
    ):
        first = measure()
        xr.testing.assert_identical(first, measure())
        for name, variable in first.variables.items():
            assert variable.dtype.kind in "ifubU", name
        for name, variable in first.data_vars.items():
            assert variable.attrs.keys() >= {"long_name", "units"}, name
        assert all(isinstance(value, str | int | float) for value in first.attrs.values())


def test_wrong_requests_get_a_sentence(conv_vae, images, linear_vae, pixel_factors):
    model, x = wrap(conv_vae()), images(4)
    with pytest.raises(SiteError, match=r"'decoder\.fc0' does not act on mu"):
        patch(model, x, x, ["decoder.fc0"])
    with pytest.raises(DataError, match="base has 4 images and source 3"):
        patch(model, x, x[:3])
    with pytest.raises(ConfigError, match="two increasing numbers"):
        intervene_latent(model, x, values=[1.0, 0.0])
    small = identity_vae(linear_vae)
    with pytest.raises(ConfigError, match="factor 'scale' is unknown; allowed are a, b, c"):
        intervene_input(small, pixel_factors, ["scale"])
    with pytest.raises(ConfigError, match="'pairs' is 1"):
        mediate(small, pixel_factors, pairs=1)
    with pytest.raises(ConfigError, match="factor 'b' has no pairs; given are a"):
        mediate(model, {"a": (x, x)}, factors=["b"])


def test_units_that_carry_a_factor_survive_the_null_and_others_do_not():
    truth = cvi.planted("mixed", factors=5, noise_units=4)
    found = mediate(truth.model, truth.data, pairs=64, sites="encoder.fc0", draws=500)
    carries = np.array(
        [
            [truth.graph.has_edge(("factor", f), ("encoder.fc0", int(u))) for f in truth.data.factor_names]
            for u in found["channel"].values
        ]
    )
    survives = found["mediated_q"].transpose("unit", "factor").values < 0.05
    assert (survives == carries).all()
    assert (found["mediated_p"].values[~carries.any(1)] == 1).all()
    assert float(found["mediated_p"].min()) == pytest.approx(1 / 501, rel=1e-4)


def test_the_null_of_mediation_is_uniform_where_nothing_belongs_together():
    rng = np.random.default_rng(0)
    total, indirect = rng.normal(size=(30, 2)), rng.normal(size=(30, 300, 2))
    nothing = np.zeros((30, 300))
    p = p_of_share(Contrasts(total, indirect, indirect, nothing, True), draws=199, seed=1)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    part = indirect + 2 * total[:, None]
    assert (p_of_share(Contrasts(total, part, part, nothing, True), draws=199, seed=1) == 1 / 200).mean() > 0.95


def test_reconstructions_have_shares_without_a_null(conv_vae, images):
    found = mediate(
        wrap(conv_vae()), {"a": (images(9), images(9, seed=1))}, outcome="reconstruction", sites="latent.mu", draws=20
    )
    assert np.isfinite(found["mediated"]).all()
    assert np.isnan(found["mediated_p"]).all()

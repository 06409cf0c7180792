"""A plan has to name what will be run; how long it takes is a matter for the benchmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cvi_widgets as cvi
from cvi_widgets.errors import ConfigError, SiteError
from cvi_widgets.interventions import wrap
from cvi_widgets.interventions.trace import record


def test_a_plan_says_method_runs_and_bytes(conv_vae, images):
    model = wrap(conv_vae())
    found = cvi.plan(model, images(3), pairs=150)
    assert found.table["method"].tolist() == ["linear"] * 4
    assert found.table["units"].tolist() == [4, 6, 5, 3]
    # Three batches; behind the last hidden layer there is one product for all units.
    assert found.table["runs"].tolist() == [12, 18, 3, 9]
    assert (found.n_pairs, found.batch, found.passes) == (150, 64, 300)
    assert found.n_bytes == 4 * record(model, images(64), decode=False).n_bytes
    assert found.seconds > 0
    assert "150 pairs, 64 at a time" in str(found)
    assert "<table" in found._repr_html_()


def test_a_plan_counts_what_is_really_run(conv_vae, images, monkeypatch):
    model = wrap(conv_vae())
    found = cvi.plan(model, images(8), images(8, seed=1), "encoder.conv1", method="hooks")
    calls = []
    own = model.forward
    monkeypatch.setattr(model, "forward", lambda *a, **k: calls.append(1) or own(*a, **k))
    cvi.patch(model, images(8), images(8, seed=1), "encoder.conv1", method="hooks", draws=10)
    # Besides the re-runs: the two recorded passes and the probes that size the batch and shape the outcome.
    assert len(calls) - int(found.table["runs"].sum()) in range(2, 6)


def test_a_smaller_budget_makes_smaller_batches_and_no_other_numbers(conv_vae, images):
    model = wrap(conv_vae())
    one = 4 * record(model, images(1), decode=True).n_bytes
    assert cvi.plan(model, images(9), outcome="reconstruction", budget=2 * one).batch == 2
    whole, pieces = (
        cvi.patch(model, images(9), images(9, seed=1), outcome="reconstruction", budget=b, draws=10)
        for b in (2**30, 2 * one)
    )
    np.testing.assert_allclose(whole["transfer"], pieces["transfer"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("units", ["all", [0, [1, 2]]])
def test_units_may_change_together(conv_vae, images, units):
    model = wrap(conv_vae())
    base, source = images(7), images(7, seed=1)
    found = cvi.patch(model, base, source, "encoder.conv0", units, keep_pairs=True, draws=10)
    groups = [list(range(4))] if units == "all" else [[0], [1, 2]]
    assert found["members"].values.tolist() == [" ".join(map(str, g)) for g in groups]
    assert found["channel"].values.tolist() == ([-1] if units == "all" else [0, -1])
    for k, group in enumerate(groups):
        swap = cvi.Intervention("encoder.conv0", group, "swap", source=source)
        wanted = model.run_with_hooks(base, [swap]).mu - model.encode(base).mu
        change = found["change_pair"].sel(unit=k).transpose("pair", "latent")
        np.testing.assert_allclose(change, wanted.numpy(), atol=1e-5)
    if units == "all":
        # A whole layer of a plain stack is the source's run from there on.
        np.testing.assert_allclose(found["transfer"], 1, atol=1e-4)


def test_outcomes_may_be_functions_and_say_what_they_are(conv_vae, images):
    model = wrap(conv_vae())
    base, source = images(7), images(7, seed=1)

    def brightness(ran):
        return ran.image.mean((1, 2, 3))

    found = cvi.patch(model, base, source, "latent.mu", outcome=brightness, keep_pairs=True, draws=10)
    assert found["outcome"].values.tolist() == ["brightness"]
    z = model.encode(base).mu
    z[:, 2] = model.encode(source).mu[:, 2]
    wanted = model.decode(z).mean((1, 2, 3)) - model.decode(model.encode(base).mu).mean((1, 2, 3))
    np.testing.assert_allclose(found["change_pair"].sel(unit=2).values[:, 0], wanted.numpy(), atol=1e-6)
    one = cvi.patch(model, base, source, "encoder.fc0", outcome="latent:1", draws=10)
    whole = cvi.patch(model, base, source, "encoder.fc0", draws=10)
    assert one["latent"].values.tolist() == [1]
    np.testing.assert_allclose(one["effect"].sel(latent=1), whole["effect"].sel(latent=1), rtol=1e-5)


def test_every_effect_has_its_spread_over_pairs(conv_vae, images):
    model = wrap(conv_vae())
    found = cvi.patch(model, images(50), images(50, seed=1), keep_pairs=True, draws=400)
    np.testing.assert_allclose(found["transfer_sd"], found["transfer_pair"].std("pair", ddof=1), rtol=1e-4)
    wide = (found["transfer_high"] - found["transfer_low"]) / (2 * 1.96 * found["transfer_sd"] / 50**0.5)
    assert 0.7 < float(wide.mean()) < 1.3


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"outcome": "mux"}, ConfigError, "did you mean mu"),
        ({"outcome": "latent:9"}, ConfigError, "latents 0 to 2"),
        ({"outcome": lambda ran: ran.image}, ConfigError, r"must return a tensor \(n,\) or \(n, k\)"),
        ({"sites": "decoder.fc0"}, SiteError, "does not act on mu; allowed are encoder.conv0"),
        ({"sites": "latent.logvar"}, SiteError, "does not act on mu"),
    ],
)
def test_what_cannot_be_measured_gets_a_sentence(conv_vae, images, arguments, error, said):
    with pytest.raises(error, match=said):
        cvi.patch(wrap(conv_vae()), images(3), images(3), **arguments)


def test_the_grid_may_be_the_aggregate_posterior(linear_vae):
    torch.manual_seed(0)
    model = wrap(linear_vae(torch.diag(torch.tensor([2.0, 0.5, 0.0])), torch.eye(3)))
    x = torch.randn(4000, 1, 1, 3)
    found = cvi.intervene_latent(model, x, "posterior", draws=20)
    # mu is N(0, 4), N(0, 1/4) and 0, and the posterior's own variance is 1.
    sd = np.sqrt([5.0, 1.25, 1.0])
    normal = [-2.326, -1.645, -0.674, 0, 0.674, 1.645, 2.326]
    np.testing.assert_allclose(found["set_to"].values / sd[:, None], np.tile(normal, (3, 1)), atol=0.15)
    assert found.attrs["grid"] == "posterior"
    assert found["value"].attrs["units"] == "1"
    np.testing.assert_allclose(found["ces_l2"][0] / found["ces_l2"][1], 2, rtol=0.1)
    with pytest.raises(ConfigError, match="did you mean posterior"):
        cvi.intervene_latent(model, x, "posterior_")


def test_decoder_units_answer_as_their_weights_say(linear_vae):
    picture = torch.tensor([[1.0, 0, 0], [0, -2.0, 0], [0, 0, 0]])
    model = wrap(linear_vae(torch.eye(3), picture))
    x = torch.rand(50, 1, 1, 3)
    found = cvi.intervene_latent(model, x, np.array([-1.0, 1.0]), sites="picture", draws=20)
    mu = x.reshape(50, 3).numpy()
    step = np.abs(np.array([-1.0, 1.0]) - mu[..., None]).mean((0, 2))
    np.testing.assert_allclose(found["unit_change"].values, np.abs(picture.numpy().T) * step[:, None], rtol=1e-4)


def test_latents_move_the_factors_they_draw():
    truth = cvi.planted("dedicated", factors=3)
    rng = np.random.default_rng(0)
    index = truth.data.sample(400, rng)
    images = truth.data.images(index, "float32")
    reader = cvi.metrics.fit_reader(images, truth.data.factors(index), truth.data.factor_names)
    found = cvi.intervene_latent(truth.model, images[:40], reader=reader, draws=50)
    assert (found["reader_r2"] > 0.9).all()
    share = found["ces_factor"] / found["ces_factor"].sum("factor")
    drawn = {(f, j) for f in truth.data.factor_names for j in range(3) if share.sel(factor=f, latent=j) > 0.6}
    assert drawn == {
        (f, int(j)) for f in truth.data.factor_names for s, j in truth.edges_of(f).nodes if s == "latent.mu"
    }

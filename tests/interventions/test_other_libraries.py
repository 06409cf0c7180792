"""VAEs of other libraries, and the forms in which encoders and decoders answer: the module's own numbers."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from pythae.models import (
    AE,
    SVAE,
    VAE,
    VQVAE,
    AEConfig,
    BetaVAE,
    BetaVAEConfig,
    FactorVAE,
    FactorVAEConfig,
    SVAEConfig,
    VAEConfig,
    VQVAEConfig,
)
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn

from cvi_widgets.errors import ConfigError, DataError, SiteError
from cvi_widgets.interventions import Intervention, patch, wrap
from cvi_widgets.interventions.engine import trusted
from cvi_widgets.interventions.outcomes import acts_on, readout

SHAPE = (1, 8, 8)
HALVES = {
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (4, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 2,
    "norm_num_groups": 2,
    "sample_size": 8,
}


class ConvEncoder(BaseEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 4, 2, 1)

    def forward(self, x):
        return ModelOutput(embedding=self.conv(x))


class ConvDecoder(BaseDecoder):
    def __init__(self) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(3, 1, 4, 2, 1)

    def forward(self, z):
        return ModelOutput(reconstruction=torch.sigmoid(self.deconv(z)))


def pythae_vq(kind: str, ema: bool) -> VQVAE:
    torch.manual_seed(0)
    halves = (ConvEncoder(), ConvDecoder()) if kind == "spatial" else ()
    config = VQVAEConfig(input_dim=SHAPE, latent_dim=6, num_embeddings=16, use_ema=ema)
    module = VQVAE(config, *halves).eval()
    with torch.no_grad():
        # Entries as spread out as the embeddings, so that several of them are nearest to something.
        entries = module.quantizer.embeddings
        (entries if ema else entries.weight).normal_(0, 0.3)
    return module


def kl() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(**HALVES).eval()


def vq(**settings) -> VQModel:
    torch.manual_seed(0)
    module = VQModel(**{**HALVES, "num_vq_embeddings": 16, **settings}).eval()
    with torch.no_grad():
        module.quantize.embedding.weight.normal_()
    return module


@pytest.mark.parametrize(
    ("cls", "config"), [(VAE, VAEConfig), (BetaVAE, BetaVAEConfig), (FactorVAE, FactorVAEConfig), (AE, AEConfig)]
)
def test_pythae_gives_the_numbers_of_its_own_halves(cls, config, images):
    torch.manual_seed(0)
    module = cls(config(input_dim=SHAPE, latent_dim=3))
    x = images(4)
    model = wrap(module)
    module.eval()
    with torch.no_grad():
        encoded = module.encoder(x)
        picture = module.decoder(encoded.embedding)["reconstruction"]
    found = model.run_with_hooks(x, [])
    torch.testing.assert_close(found.mu, encoded.embedding)
    torch.testing.assert_close(found.image, picture)
    if cls is AE:
        assert found.logvar is None
        assert "latent.logvar" not in model.sites().index
    else:
        torch.testing.assert_close(found.logvar, encoded.log_covariance)
    assert model.site("latent.mu").module == "encoder.embedding"


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("kind", ["spatial", "flat"])
def test_the_vqvae_of_pythae_gives_the_codes_and_the_picture_of_its_forward(kind, ema, images):
    module = pythae_vq(kind, ema)
    x = images(5)
    model = wrap(module)
    with torch.no_grad():
        wanted = module({"data": x})
    found = model.run_with_hooks(x, [])
    assert model.discrete and model.n_codes == 16
    assert torch.equal(found.code.flatten(), wanted.quantized_indices.flatten())
    assert len(found.code.unique()) > 1
    torch.testing.assert_close(found.z, wanted.z)
    torch.testing.assert_close(found.image, wanted.recon_x)
    torch.testing.assert_close(model.decode_codes(found.code), wanted.recon_x)


def test_a_pythae_model_with_something_between_its_halves_is_refused_unless_they_are_given():
    module = SVAE(SVAEConfig(input_dim=SHAPE, latent_dim=3))
    with pytest.raises(ConfigError, match="SVAE puts a projection onto the sphere between its encoder and decoder"):
        wrap(module)
    model = wrap(
        module,
        encode=lambda x: nn.functional.normalize(module.encoder(x).embedding, dim=1),
        decode=lambda z: module.decoder(z).reconstruction,
    )
    torch.testing.assert_close(model.encode(torch.rand(2, *SHAPE)).mu.norm(dim=1), torch.ones(2))


def test_the_autoencoder_of_diffusers_gives_the_numbers_of_its_forward(images):
    module, x = kl(), images(3)
    model = wrap(module)
    with torch.no_grad():
        posterior = module.encode(2 * x - 1).latent_dist
        # Without sample_posterior its forward decodes the mode, which is the mean.
        picture = (module(2 * x - 1).sample + 1) / 2
    found = model.run_with_hooks(x, [])
    assert model.latent_shape == (2, 4, 4) and model.n_latents == 2 and not model.discrete
    torch.testing.assert_close(found.mu, posterior.mean)
    torch.testing.assert_close(found.logvar, posterior.logvar)
    torch.testing.assert_close(found.image, picture)
    torch.testing.assert_close(model.decode(found.mu), picture)


@pytest.mark.parametrize(
    "settings", [{}, {"norm_type": "spatial", "block_out_channels": (32, 32)}, {"lookup_from_codebook": True}]
)
def test_the_vq_model_of_diffusers_gives_the_numbers_of_its_forward(settings, images):
    module, x = vq(**settings), images(3)
    model = wrap(module)
    with torch.no_grad():
        before = module.encode(2 * x - 1).latents
        quantised, _, (_, _, indices) = module.quantize(before)
        picture = (module(2 * x - 1).sample + 1) / 2
    found = model.run_with_hooks(x, [])
    assert found.code.shape == (3, 1, 4, 4) and model.n_codes == 16
    assert torch.equal(found.code.flatten(), indices)
    assert len(found.code.unique()) > 1
    torch.testing.assert_close(found.mu, before)
    torch.testing.assert_close(found.z, quantised)
    torch.testing.assert_close(found.image, picture)


def test_a_vector_between_two_codes_is_not_quantised_again_by_the_decoder_of_diffusers(images):
    model = wrap(vq())
    entries = model.module.quantize.embedding.weight.detach()
    z = (0.6 * entries[0] + 0.4 * entries[1]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    snapped = model.lookup(model.quantise(z))
    assert not torch.allclose(model.decode(z), model.decode(snapped))
    torch.testing.assert_close(model.decode_mu(z), model.decode(snapped))


def test_a_block_of_diffusers_is_a_site_and_swapping_it_gives_the_source_downstream(images):
    model = wrap(kl())
    base, source = images(2), images(2, seed=1)
    site = model.site("encoder.down_blocks.0.resnets.0")
    assert site.shape == (4, 8, 8)
    patched = model.run_with_hooks(base, [Intervention(site.name, None, "swap", source=source)])
    assert torch.equal(patched.image, model.run_with_hooks(source, []).image)
    with pytest.raises(SiteError, match="runs 2 times"):
        model.site("encoder.down_blocks.0.resnets.0.nonlinearity")
    assert {"encoder.down_blocks.0.resnets.0.conv1", "encoder.down_blocks.0.resnets.0.conv2"} <= set(
        model.sites().index
    )


def pythae_vae(cls=VAE, config=VAEConfig) -> VAE:
    torch.manual_seed(0)
    return cls(config(input_dim=SHAPE, latent_dim=3)).eval()


MAKERS = {
    "VAE": pythae_vae,
    "BetaVAE": lambda: pythae_vae(BetaVAE, BetaVAEConfig),
    "FactorVAE": lambda: pythae_vae(FactorVAE, FactorVAEConfig),
    "VQVAE": lambda: pythae_vq("spatial", True),
    "AutoencoderKL": kl,
    "VQModel": vq,
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_recorded_pass_gives_what_hooks_give_at_every_site(name):
    model = wrap(MAKERS[name]())
    tried = 0
    for outcome in (readout(model, "mu"), readout(model, "reconstruction")):
        sites = [s for s in model.site_map.sites.values() if acts_on(s, outcome)]
        assert [s.name for s in sites if not trusted(model, s, outcome.targets)] == []
        tried += len(sites)
    assert tried > len(model.sites()) - 2


@pytest.mark.parametrize(
    ("name", "path", "posterior"),
    [
        ("VAE", "encoder.layers.0.0", lambda m, x: m.encoder(x).embedding),
        ("VQVAE", "encoder.conv", lambda m, x: m.encoder(x).embedding),
        ("AutoencoderKL", "encoder.conv_in", lambda m, x: m.encode(2 * x - 1).latent_dist.mean),
        ("VQModel", "encoder.mid_block.resnets.0.conv1", lambda m, x: m.encode(2 * x - 1).latents),
    ],
)
def test_patching_is_what_plain_hooks_of_torch_give(name, path, posterior, images):
    module = MAKERS[name]()
    base, source, unit = images(3), images(3, seed=1), 2
    target, kept = module.get_submodule(path), []
    with torch.no_grad():
        before = posterior(module, base)
        handle = target.register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
        posterior(module, source)
        handle.remove()

        def swap(_module, _args, out):
            new = out.clone()
            new[:, unit] = kept[0][:, unit]
            return new

        handle = target.register_forward_hook(swap)
        change = posterior(module, base) - before
        handle.remove()
    if change.ndim > 2:
        change = change.flatten(2).square().mean(2).sqrt()
    assert float(change.abs().max()) > 1e-4
    found = patch(wrap(module), base, source, sites=path, units=[unit], keep_pairs=True, draws=10)
    torch.testing.assert_close(torch.from_numpy(found["change_pair"].values[:, 0]), change, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_sites_of_other_libraries_are_cached_by_name_and_nothing_stays_behind(name, images):
    module = MAKERS[name]().train()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    model = wrap(module)
    out, cache = model.run_with_cache(images(3))
    table = model.sites()
    assert list(cache.children) == list(table.index)
    assert [cache[s]["act"].shape for s in table.index] == [(3, *shape) for shape in table["shape"]]
    assert torch.equal(torch.from_numpy(cache["decoder.output"]["act"].values), out.image)
    with pytest.raises(ZeroDivisionError):
        model.run_with_hooks(images(3), [("decoder.output", lambda value, site: 1 / 0)])
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()) == 0
    assert all(m.training for m in module.modules())
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    with pytest.raises(DataError, match=r"the model takes \(n, 1, 8, 8\)"):
        model.encode(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("make", [kl, vq, lambda: pythae_vq("spatial", False)])
def test_patching_reaches_mu_in_other_libraries(make, images):
    model = wrap(make())
    found = patch(model, images(4), images(4, seed=1), sites="latent.mu", units="all", draws=20)
    torch.testing.assert_close(torch.tensor(found["transfer"].item()), torch.tensor(1.0), rtol=1e-4, atol=1e-4)


Halves = namedtuple("Halves", ["mean", "logvar", "extra"])


@dataclass
class Answer:
    mu: torch.Tensor
    logvar: torch.Tensor


@pytest.mark.parametrize(
    "answer",
    [
        lambda mu, logvar: (mu, logvar),
        lambda mu, logvar: [mu, logvar, "more"],
        lambda mu, logvar: Halves(mu, logvar, None),
        lambda mu, logvar: Answer(mu, logvar),
        lambda mu, logvar: {"mean": mu, "logvar": logvar},
        lambda mu, logvar: {"embedding": mu, "log_covariance": logvar},
        lambda mu, logvar: SimpleNamespace(latent_dist=SimpleNamespace(mean=mu, logvar=logvar)),
    ],
)
def test_what_an_encoder_may_return(answer, conv_vae, images):
    module = conv_vae().eval()
    model = wrap(module, encode=lambda x: answer(*module.encode(x)))
    with torch.no_grad():
        mu, logvar = module.encode(images(3))
    found = model.encode(images(3))
    torch.testing.assert_close(found.mu, mu)
    torch.testing.assert_close(found.logvar, logvar)
    moved = model.run_with_hooks(images(3), [Intervention("latent.mu", 0, "add", value=1.0)])
    torch.testing.assert_close(moved.mu[:, 0], mu[:, 0] + 1)


@pytest.mark.parametrize(
    "answer",
    [
        lambda image: SimpleNamespace(sample=image),
        lambda image: {"reconstruction": image},
        lambda image: (image, "loss"),
    ],
)
def test_what_a_decoder_may_return(answer, conv_vae, images):
    module = conv_vae().eval()
    model = wrap(module, decode=lambda z: answer(module.decode(z)))
    torch.testing.assert_close(
        model.run_with_hooks(images(3), []).image, wrap(module).run_with_hooks(images(3), []).image
    )


def test_encoder_and_decoder_stand_for_encode_and_decode(images):
    class Halved(nn.Module):
        image_shape = SHAPE

        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
            self.decoder = nn.Sequential(nn.Linear(3, 64), nn.Unflatten(1, SHAPE))

    torch.manual_seed(0)
    module = Halved()
    found = wrap(module).run_with_hooks(images(2), [])
    assert found.logvar is None
    torch.testing.assert_close(found.mu, module.encoder(images(2)).detach())


def test_wrapping_imports_none_of_the_libraries():
    code = (
        "import sys, torch, cvi_widgets as cvi\n"
        "m = cvi.planted('dedicated').module\n"
        "cvi.wrap(m)\n"
        "assert not {'pythae', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

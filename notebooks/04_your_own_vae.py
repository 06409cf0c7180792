# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. Your own VAE
#
# `cvi.wrap` takes a torch module that has never heard of this package. First a plain class, one call at a time; then
# models of pythae and diffusers, with the same calls. All networks are small and trained for seconds, so their numbers
# teach the calls and nothing about the models. Put your own network where the first one stands.

# %% tags=["parameters"]
steps = 450
pairs = 48
seed = 0

# %%
from collections import OrderedDict

import holoviews as hv
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

import cvi_widgets as cvi

cvi.setup()

# %% [markdown]
# ## Images, and pairs that differ in one thing
# A bright square on black. Effects are measured between a *base* image and a *source* image; where both differ in one
# factor only, the effect is that factor's. No data set class is needed: two stacks of images per factor will do.

# %%
SIZES = {"column": 11, "row": 11, "brightness": 4}
generator = torch.Generator().manual_seed(seed)


def factors(n):
    """Random classes of the three factors, shape (n, 3)."""
    return torch.stack([torch.randint(size, (n,), generator=generator) for size in SIZES.values()], dim=1)


def draw(classes):
    """Images (n, 1, 16, 16), float32 in [0, 1]: a square of 5 pixels at (column, row)."""
    column, row, brightness = (classes[:, k, None, None] for k in range(3))
    y, x = torch.arange(16)[:, None], torch.arange(16)[None]
    inside = (x >= column) & (x < column + 5) & (y >= row) & (y < row + 5)
    return (inside * (1 + brightness) / 4)[:, None].float()


by_factor = {}
for k, (name, size) in enumerate(SIZES.items()):
    classes = factors(pairs)
    changed = classes.clone()
    changed[:, k] = (classes[:, k] + torch.randint(1, size, (pairs,), generator=generator)) % size
    by_factor[name] = draw(classes), draw(changed)

base, source = by_factor["column"]
cvi.views.image_grid(base[:12].numpy(), source[:12].numpy()).opts(title="Base above, source below: the column differs")

# %% [markdown]
# ## A class of your own
# All that is asked of it: `encode` returns the posterior mean and log variance, `decode` returns images in [0, 1].
# Names may differ (`wrap(module, encode="to_code", decode=lambda z: ...)`), weights stay as they are, and the mode and
# gradients of the module are put back after every call.


# %%
class MyVAE(nn.Module):
    """Two convolutions down, two up, four latents."""

    image_shape = (1, 16, 16)

    def __init__(self):
        super().__init__()
        down = OrderedDict(conv0=nn.Conv2d(1, 12, 4, 2, 1), act0=nn.ReLU(), conv1=nn.Conv2d(12, 16, 4, 2, 1))
        self.encoder = nn.Sequential(down | OrderedDict(act1=nn.ReLU(), flatten=nn.Flatten()))
        self.to_mu, self.to_logvar = nn.Linear(256, 4), nn.Linear(256, 4)
        up = OrderedDict(fc0=nn.Linear(4, 256), act0=nn.ReLU(), shape=nn.Unflatten(1, (16, 4, 4)))
        up |= OrderedDict(deconv0=nn.ConvTranspose2d(16, 12, 4, 2, 1), act1=nn.ReLU())
        self.decoder = nn.Sequential(up | OrderedDict(deconv1=nn.ConvTranspose2d(12, 1, 4, 2, 1), act2=nn.Sigmoid()))

    def encode(self, x):
        h = self.encoder(x)
        return self.to_mu(h), self.to_logvar(h)

    def decode(self, z):
        return self.decoder(z)


def fit(module, loss, steps=steps, batch=64):
    """A few steps of Adam on fresh squares; the module comes back as it would from your training."""
    optimiser = torch.optim.Adam(module.parameters(), 5e-3)
    module.train()
    for _ in range(steps):
        optimiser.zero_grad()
        loss(module, draw(factors(batch))).backward()
        optimiser.step()
    return module.eval()


def elbo(module, x):
    """Squared error of all pixels, weighted, plus the Kullback-Leibler divergence of all latents."""
    mu, logvar = module.encode(x)
    z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum()
    return (20 * functional.mse_loss(module.decode(z), x, reduction="sum") + kl) / len(x)


torch.manual_seed(seed)
model = cvi.wrap(fit(MyVAE(), elbo))
model

# %% [markdown]
# ### Where one can reach in
# A *site* is the value after a layer and its non-linearity; `.pre` is the value before it. `n_units` counts channels.
# The path of a module (`encoder.act0`) is accepted wherever a site is.

# %%
model.sites()

# %% [markdown]
# ### Values at sites
# One pass, everything kept: an xarray tree with one child per site, and what the pass returned.

# %%
out, cache = model.run_with_cache(base, ["encoder.conv1", "latent.mu"])
print(f"image {tuple(out.image.shape)}, mu {tuple(out.mu.shape)}")
cache

# %% [markdown]
# ### One change, as a value
# An intervention is frozen: it can be compared, stored as JSON, and says what it does. Here three of the channels take
# their value from the source run, in the left half of the map only; the reconstruction shows what that changes.

# %%
left = torch.zeros(4, 4, dtype=torch.bool)
left[:, :2] = True
swap = cvi.Intervention("encoder.conv1", units=[0, 1, 2], do="swap", source=source, where=left)
print(swap.explain())
before, after = model.run_with_hooks(base, []), model.run_with_hooks(base, [swap])
title = "Reconstructions: untouched above, after the swap below"
cvi.views.image_grid(before.image[:12].numpy(), after.image[:12].numpy()).opts(title=title)

# %% [markdown]
# ### What will it cost?
# Before a long measurement: which method each site takes (`linear` and `suffix` give what a full pass with a hook
# would, sooner), how many runs, and how long on this machine.

# %%
plan = cvi.plan(model, base, source)
print(plan)
plan.table

# %% [markdown]
# ### Patching: every unit, one by one
# `transfer` is the share of the way from the base's code to the source's that one swapped unit goes: 0 nothing, 1 all.
# Intervals are 95 %, over pairs. A latent that carries the column alone stands out in the last row.

# %%
patched = cvi.patch(model, base, source)
cvi.views.patching_map(patched)

# %% [markdown]
# ### Mediation: through this unit, or around it
# For every factor, `mediated` is the part of its total effect on the code that goes through one unit.

# %%
mediated = cvi.mediate(model, by_factor)
cvi.views.mediation_map(mediated, "encoder.conv1")

# %% [markdown]
# ### Latents: do(z = v)
# One latent is set to each of seven values, the others are held. Bars: how much the picture changes, in the L2 norm
# over pixels, averaged over values and examples. Below them: one example, one row per latent.

# %%
latents = cvi.intervene_latent(model, base)
(cvi.views.ces_bars(latents) + cvi.views.traversal_grid(latents)).cols(1)

# %% [markdown]
# ## pythae
# VAEs of [pythae](https://pythae.readthedocs.io) are recognised: `cvi.wrap(module)` is all. Encoder and decoder below
# are a user's own, as pythae wants them. A `VQVAE` has a discrete code; it gets the sites `latent.mu` (what enters the
# quantiser), `latent.code` (which entry of the codebook each cell took) and `latent.z` (what the decoder gets).

# %%
wrapped = {"MyVAE": model}
try:
    from pythae.models import VAE, VQVAE, VAEConfig, VQVAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
except ImportError:
    print("pythae is not installed, so its part is left out; `pip install pythae` brings it.")
else:

    class Down(BaseEncoder):
        """The convolutions of MyVAE, then either a flat code with its log variance or a map of vectors."""

        def __init__(self, latents, flat):
            super().__init__()
            self.body = MyVAE().encoder[:4]
            self.latent_dim = latents
            self.head = nn.Conv2d(16, 2 * latents, 4) if flat else nn.Conv2d(16, latents, 1)
            self.flat = flat

        def forward(self, x):
            h = self.head(self.body(x))
            if not self.flat:
                return ModelOutput(embedding=h)
            mu, logvar = h.flatten(1).chunk(2, dim=1)
            return ModelOutput(embedding=mu, log_covariance=logvar)

    class Up(BaseDecoder):
        """The way back, from a flat code or a map."""

        def __init__(self, latents, flat):
            super().__init__()
            self.foot = nn.ConvTranspose2d(latents, 16, 4) if flat else nn.Conv2d(latents, 16, 1)
            self.body = nn.Sequential(nn.ReLU(), *MyVAE().decoder[3:])

        def forward(self, z):
            z = z[:, :, None, None] if z.ndim == 2 else z
            return ModelOutput(reconstruction=self.body(self.foot(z)))

    torch.manual_seed(seed)
    continuous = VAE(
        VAEConfig(input_dim=(1, 16, 16), latent_dim=4, reconstruction_loss="bce"), Down(4, True), Up(4, True)
    )
    discrete = VQVAE(VQVAEConfig(input_dim=(1, 16, 16), latent_dim=4, num_embeddings=16), Down(4, False), Up(4, False))
    for own in (continuous, discrete):
        wrapped[f"pythae {type(own).__name__}"] = cvi.wrap(fit(own, lambda m, x: m({"data": x}).loss))
print(*wrapped.items(), sep="\n")

# %% [markdown]
# ## diffusers
# The autoencoders of [diffusers](https://huggingface.co/docs/diffusers) come the same way; nothing is downloaded here,
# the networks are made from a small configuration (with trained weights, `AutoencoderKL.from_pretrained(...)` is what
# you wrap). They work on images in [-1, 1], as their pipelines do; the wrapper takes and gives [0, 1]. Their codes are
# maps: a latent is a channel of `latent.mu`.

# %%
try:
    from diffusers import AutoencoderKL, VQModel
except ImportError:
    print("diffusers is not installed, so its part is left out; `pip install diffusers` brings it.")
else:
    small = {
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "sample_size": 16,
        "latent_channels": 3,
    }

    def kl_loss(module, x):
        posterior = module.encode(2 * x - 1).latent_dist
        image = module.decode(posterior.sample()).sample
        return functional.mse_loss(image, 2 * x - 1) + 1e-4 * posterior.kl().mean()

    def vq_loss(module, x):
        image, commitment = module(2 * x - 1, return_dict=False)
        return functional.mse_loss(image, 2 * x - 1) + commitment.mean()

    torch.manual_seed(seed)
    wrapped["diffusers AutoencoderKL"] = cvi.wrap(fit(AutoencoderKL(**small), kl_loss, steps // 3, batch=16))
    wrapped["diffusers VQModel"] = cvi.wrap(fit(VQModel(**small, num_vq_embeddings=16), vq_loss, steps // 3, batch=16))
print(*wrapped.items(), sep="\n")

# %% [markdown]
# ## The same calls on all of them
# The sites of each. Those of residual blocks have the paths of the library's modules.

# %%
pd.concat({name: m.sites() for name, m in wrapped.items()}, names=["library and class"])

# %% [markdown]
# Values at `latent.z`, what each decoder gets, and how well the picture comes back.

# %%
rows = {}
for name, m in wrapped.items():
    out, cache = m.run_with_cache(base, "latent.z")
    act = cache["latent.z"]["act"]
    error = float((out.image - base).square().mean().sqrt())
    rows[name] = {"dims": act.dims, "shape": act.shape, "root mean square error per pixel": round(error, 3)}
pd.DataFrame(rows).T

# %% [markdown]
# One intervention each. In a discrete model codes are names, so they are exchanged rather than shifted: here the most
# common code becomes the second most common one, wherever it occurs (`when`), in the left half of the map (`where`).

# %%
pictures = []
for name, m in wrapped.items():
    if m.discrete:
        common = m.run_with_hooks(base, []).code.unique(return_counts=True)
        first, second = [*common[0][common[1].argsort(descending=True)].tolist(), 0][:2]
        half = torch.zeros(m.site("latent.code").shape[1:], dtype=torch.bool)
        half[:, : half.shape[1] // 2] = True
        change = cvi.Intervention("latent.code", do="set", value=second, when=first, where=half)
    else:
        change = cvi.Intervention("latent.mu", units=0, do="add", value=2.0)
    print(f"{name}: {change.explain()}")
    before, after = m.run_with_hooks(base[:12], []), m.run_with_hooks(base[:12], [change])
    pictures.append(cvi.views.image_grid(before.image.numpy(), after.image.numpy()).opts(title=name))
hv.Layout(pictures).opts(shared_axes=False).cols(1)

# %% [markdown]
# Patching and mediation, now measured in the reconstruction: the share of the way from the base's picture to the
# source's that one unit goes. Plans first, then the five units of each model that carry most, of its last three layers
# before the code. The maps show what part of each factor's total effect goes through the units of the last one.

# %%
strongest = {}
for name, m in wrapped.items():
    late = [s for s in m.sites().query("side == 'encoder'").index if not s.endswith(".pre")][-3:]
    print(f"{name}: {cvi.plan(m, base, source, sites=late, outcome='reconstruction')}")
    effect = cvi.patch(m, base, source, sites=late, outcome="reconstruction")
    table = effect[["transfer", "transfer_low", "transfer_high"]].to_dataframe()
    strongest[name] = table.nlargest(5, "transfer").set_index(["site", "channel"]).round(3)
pd.concat(strongest, names=["library and class"])

# %%
carried = {}
for name, m in wrapped.items():
    last = next(s for s in reversed(m.sites().query("side == 'encoder'").index) if not s.endswith(".pre"))
    effect = cvi.mediate(m, by_factor, sites=last, outcome="reconstruction")
    carried[name] = cvi.views.mediation_map(effect, last).opts(title=f"{name}: {last}")
hv.Layout(list(carried.values())).opts(shared_axes=False).cols(1)

# %% [markdown]
# Latents. A continuous code is set to values as above; `ces_l2` is that of the strongest latent. Of a discrete model
# one code at one cell is exchanged for another that is in use: `ces_code_l2`. Beside it, `ces_coordinate_l2` is the
# effect of setting one coordinate there before the quantiser, and `snapped` the share of such shifts that changed no
# code: they snap back, and would pass for "no effect".

# %%
codes, summary = {}, {}
for name, m in wrapped.items():
    if m.discrete:
        codes[name] = cvi.intervene_code(m, base, cells=16, latents=4)
        summary[name] = codes[name][["ces_code_l2", "ces_coordinate_l2", "snapped"]].mean()
    else:
        summary[name] = cvi.intervene_latent(m, base, frames=3)[["ces_l2"]].max()
pd.DataFrame({name: row.to_pandas() for name, row in summary.items()}).T.map("{:.3f}".format).replace("nan", "")

# %% [markdown]
# Where a code matters: the effect of exchanging the code of one cell, averaged over examples. White cells were not
# among the sampled ones.

# %%
maps = []
for name, effect in codes.items():
    cells = effect["l2"].mean(["example", "codebook"]).to_dataframe().reset_index()
    cell_map = hv.HeatMap(cells, ["cell_x", "cell_y"], "l2")
    maps.append(cell_map.opts(title=name, colorbar=True, invert_yaxis=True, frame_width=220, frame_height=220))
hv.Layout(maps).opts(shared_axes=False) if maps else "No discrete model is here; install pythae or diffusers."

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
# # 2. Intervene
#
# Four ways of asking a trained network what causes what: change a factor of the *input*, set a *latent*, *patch* the
# activation of one unit with that of another image, and split an effect into the part that is *mediated* by a unit and
# the part that is not.

# %% tags=["parameters"]
dataset = "dsprites"
model = "beta_vae"
settings = {"beta": 4.0, "seed": 0, "preset": "smoke"}
folder = None
interactive = True

# %%
import cvi_widgets as cvi

cvi.setup()
run = cvi.start_run(cvi.RunConfig.of(dataset, model, **settings), folder)
run = cvi.train_stage(run, progress=interactive)

# %%
run.model.sites()

# %%
run = cvi.intervene_stage(run, progress=interactive)

# %% [markdown]
# ## Input: change one factor, hold the rest
# How far each latent moves, in standard deviations of that latent.

# %%
cvi.views.factor_by_latent(run.results["effects/input"].to_dataset())

# %% [markdown]
# ## Latent: do(z = v)
# How much the image changes, with 95 % intervals over examples. A dead latent changes nothing.

# %%
cvi.views.ces_bars(run.results["effects/latent"].to_dataset())

# %% [markdown]
# ## Patching: one unit from another image
# The share of the way to the source's code that one unit carries.

# %%
cvi.views.patching_map(run.results["effects/patching"].to_dataset())

# %% [markdown]
# ## Mediation: through this unit, or around it

# %%
mediation = run.results["effects/mediation"].to_dataset()
cvi.views.mediation_map(mediation, cvi.views.sites_of(mediation)[-1])

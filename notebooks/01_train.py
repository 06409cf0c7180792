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
# # 1. Train
#
# One configuration of one variational autoencoder, trained on images whose generative factors we know. Change the
# parameters below and run the cells from the top; `cvi run` does the same with the same three notebooks.

# %% tags=["parameters"]
dataset = "dsprites"
model = "beta_vae"
settings = {"beta": 4.0, "seed": 0, "preset": "smoke"}
folder = None
interactive = True

# %%
import cvi_widgets as cvi

cvi.setup()
config = cvi.RunConfig.of(dataset, model, **settings)
run = cvi.start_run(config, folder)
run

# %% [markdown]
# ## The data
# Each image is one point of a grid of factors. The pixels, and whose they are:

# %%
import pandas as pd

print(run.data.provenance)
pd.DataFrame({"factor": run.data.factor_names, "values": run.data.factor_sizes})

# %% [markdown]
# ## Training
# The loss is the reconstruction error, summed over pixels, plus the weighted KL divergence, summed over latents; both
# in nats, averaged over the batch. Interrupt whenever you like: the next run of this cell goes on from the last
# checkpoint and ends with the same numbers.

# %%
run = cvi.train_stage(run, progress=interactive)

# %%
cvi.views.training_curves(run.results["training"].to_dataset())

# %% [markdown]
# ## What it learned to draw
# Held-out images above, their reconstructions below.

# %%
held_out = run.data.images(run.split.test[:8], dtype="float32")
cvi.views.image_grid(held_out, run.model.decode(run.model.encode(held_out).mu).numpy())

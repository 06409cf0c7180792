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
# # 3. Report
#
# The run's figures, each with its interval and, where chance could produce it, with its null; and one HTML file to hand
# on.

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
run = cvi.intervene_stage(run, progress=interactive)

# %%
run.results["metrics/run"].to_dataset().to_dataframe().drop(columns="convention").round(3)

# %%
run = cvi.report_stage(run, progress=interactive)
if interactive:
    run = run.publish()
print(run.report)

"""Latent interventions: do(z_i = v) over a grid of values, and what happens to the picture and the decoder's units.

Source: arXiv 2505.03530, equations 3-4: delta x_i(v) = D(z with z_i = v) - D(z), each latent swept from -3 to 3. A
fixed grid leaves the range of latents whose posterior is narrow, so the grid may instead be quantiles of each latent's
own aggregate posterior (idea: arXiv 2603.21236).

A latent that is a map (a channel of a spatial code) is set to the value at all its positions. A discrete code is set
before its quantiser, which snaps most changes back: `intervene_code` measures what exchanging codes does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from cvi_widgets.interventions import effects
from cvi_widgets.interventions.model import Images, Model
from cvi_widgets.interventions.sweeps import Floats, decoder_sites, grid_of, sweep_latent, traversals
from cvi_widgets.metrics import causal
from cvi_widgets.metrics.factor_reader import FactorReader
from cvi_widgets.metrics.position import READOUTS, slope
from cvi_widgets.metrics.statistics import Interval, bootstrap_weights, interval


def intervene_latent(
    model: Model,
    x: Images,
    values: ArrayLike | Literal["posterior"] | None = None,
    *,
    sites: str | Sequence[str] | None = None,
    reader: FactorReader | None = None,
    shown: int = 8,
    frames: int = 13,
    seed: int = 0,
    draws: int = 1000,
) -> xr.Dataset:
    """Set one latent to each of `values`, hold the others at the mu of the images `x`, decode.

    Parameters
    ----------
    x : images (example, channel, y, x)
    values : increasing values v, in units of z, the same for all latents; None for seven from -3 to 3
        `posterior`: the quantiles `QUANTILES` of each latent's aggregate posterior over `x`.
    sites : decoder sites whose units are measured; None for all after their non-linearities
    reader : reads factors off the decoded images, see `metrics.fit_reader`
    shown, frames : how many examples and how many values (evenly spaced over the same range) the stored traversals have

    Returns
    -------
    Dataset
        `l2` (example, latent), the L2 norm over pixels and channels averaged over values, and its means `ces_l2` and
        `ces_rms` (latent); `change` (latent, value, y, x); `readout_shift` (latent, value, readout), mean shift of the
        image's centroid and area; `slope_example` (example, latent, readout) and `slope`, read-out shift per unit of z;
        `energy` (latent, y, x), mean squared change; `specificity` (latent); `unit_change` (latent, unit) and
        `unit_change_example` (example, latent, unit), mean absolute change of the decoder's units; `traversal`
        (shown, latent, frame, channel, y, x), uint8; `active` (latent); `set_to` (latent, value). With a reader
        `ces_factor` (latent, factor) and `factor_example`, mean change of each factor as read, in sd of the factor over
        real images, and `reader_r2` (factor), how well it reads. Means have `_low` and `_high`.

    Raises
    ------
    ConfigError
        When there are fewer than two values, or they do not increase.
    """
    encoded = model.encode(x)
    mu = encoded.mu
    grid = grid_of(model, encoded, values, seed)
    at = decoder_sites(model, sites)
    base = model.decode_mu(mu)
    n, (channels, height, width) = len(mu), model.image_shape
    weights = bootstrap_weights(n, draws, seed)
    sweeps, specificity, slopes = [], [], []
    for latent in range(model.n_latents):
        sweep = sweep_latent(model, mu, base, latent, grid.table[latent], at, reader)
        specificity.append(_specificity(sweep.energy, weights))
        slopes.append(slope(grid.table[latent], np.moveaxis(sweep.shift, 1, -1)))
        # Kept as a mean from here on, so that memory does not grow with the number of latents.
        sweeps.append(sweep._replace(energy=sweep.energy.mean(0, keepdims=True)))

    l2 = np.stack([s.l2.mean(1) for s in sweeps], axis=1)
    shift = np.stack([s.shift for s in sweeps], axis=1)
    per_example = np.stack(slopes, axis=1).astype(np.float32)
    ces = effects.mean_over_first(l2, draws, seed)
    root = np.sqrt(channels * height * width)
    rms = Interval(ces.value / root, ces.low / root, ces.high / root)
    code = mu.cpu().flatten(2).movedim(2, 1).flatten(0, 1).numpy() if mu.ndim > 2 else mu.cpu().numpy()
    low, high = grid.table[:, 0], grid.table[:, -1]
    frame_values = np.linspace(low, high, frames, axis=-1)
    units = np.stack([s.units for s in sweeps], axis=1)
    per_latent = ("latent",)
    variables = {
        "l2": effects.variable(
            ("example", "latent"), l2, "L2 norm over pixels of the change of the image, mean over values", "intensity"
        ),
        **effects.with_interval("ces_l2", per_latent, ces, "causal effect strength, L2 norm over pixels", "intensity"),
        **effects.with_interval("ces_rms", per_latent, rms, "causal effect strength per pixel (RMS)", "intensity"),
        "change": effects.variable(
            ("latent", "value", "y", "x"),
            np.stack([s.change for s in sweeps]),
            "mean absolute change of the pixel",
            "intensity",
        ),
        "energy": effects.variable(
            ("latent", "y", "x"),
            np.stack([s.energy[0].reshape(height, width) for s in sweeps]),
            "mean squared change of the pixel, summed over channels",
            "intensity squared",
        ),
        **effects.with_interval(
            "specificity",
            per_latent,
            Interval(*(np.array(v) for v in zip(*specificity, strict=True))),
            "specificity in the pixel domain, 1 - H / ln n",
            "1",
        ),
        **effects.with_interval(
            "readout_shift",
            ("latent", "value", "readout"),
            effects.mean_over_first(shift, draws, seed),
            "mean shift of the image read-out",
            "px",
        ),
        "slope_example": effects.variable(
            ("example", "latent", "readout"),
            per_example,
            "read-out shift per unit of z, least squares over values",
            "px",
        ),
        **effects.with_interval(
            "slope",
            ("latent", "readout"),
            effects.mean_over_first(per_example, draws, seed),
            "read-out shift per unit of z, least squares over values",
            "px",
        ),
        **effects.with_interval(
            "unit_change",
            ("latent", "unit"),
            effects.mean_over_first(units, draws, seed),
            "mean absolute change of the decoder's unit, over positions and values",
            "activation",
        ),
        "unit_change_example": effects.variable(
            # Half precision: a dense decoder layer of thousands of units is most of a run's store.
            ("example", "latent", "unit"),
            units.astype(np.float16),
            "mean absolute change of the decoder's unit",
            "activation",
        ),
        "traversal": effects.variable(
            ("shown", "latent", "frame", "channel", "y", "x"),
            traversals(model, mu[:shown], frame_values),
            "decoded image with the latent set to the frame's value",
            "0 to 255",
        ),
        "set_to": effects.variable(("latent", "value"), grid.table, "value the latent is set to", "z"),
        "active": effects.variable(per_latent, causal.active_latents(code), "variance of mu above 0.01", "1"),
        "variance": effects.variable(per_latent, code.var(0), "variance of mu over the examples", "mu squared"),
    }
    if reader is not None:
        factors = np.stack([s.factors for s in sweeps], axis=1)
        read = effects.mean_over_first(factors, draws, seed)
        said_of = "change of the factor as read off the image, mean over values"
        variables["factor_example"] = effects.variable(
            ("example", "latent", "factor"), factors, said_of, "sd of the factor"
        )
        variables |= effects.with_interval("ces_factor", ("latent", "factor"), read, said_of, "sd of the factor")
        said_of = "share of the factor's variance that the reader reads on held-out real images"
        variables["reader_r2"] = effects.variable(("factor",), reader.r2, said_of, "1")
    said = {"long_name": "value the latent is set to", "units": "z"}
    if grid.kind == "posterior":
        said = {"long_name": "quantile of the latent's aggregate posterior that it is set to", "units": "1"}
    fixed = grid.kind == "fixed"
    coords = {
        **effects.latent_coords(model.n_latents),
        **effects.unit_coords(at),
        "value": ("value", grid.label, said),
        "readout": ("readout", np.array(READOUTS, dtype=str)),
        "frame_value": (
            "frame" if fixed else ("latent", "frame"),
            frame_values[0] if fixed else frame_values,
            {"long_name": "value the latent is set to", "units": "z"},
        ),
    }
    if reader is not None:
        coords["factor"] = ("factor", np.array(reader.factors, dtype=str))
    return effects.described(
        xr.Dataset(variables, coords),
        intervention="one latent is set to the value, all other latents are held at mu of the example",
        convention="ces_l2 is E ||D(z) - D(z~)||_2 over all pixels and channels, averaged over values; "
        "ces_rms divides by the root of their number; centroids are intensity-weighted",
        grid=grid.kind,
        interval="95 % percentile bootstrap over examples",
        n_examples=n,
        n_pixels=channels * height * width,
        seed=seed,
        draws=draws,
    )


def _specificity(energy: Floats, weights: NDArray[np.float32]) -> tuple[float, float, float]:
    drawn = causal.specificity(weights @ energy)
    low, high = interval(drawn, effects.LEVEL)
    return float(causal.specificity(energy.mean(0))), float(low), float(high)

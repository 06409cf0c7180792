"""The loop, its schedules and its checkpoints.

>>> from cvi_widgets import training
>>> with training.tqdm_progress() as show:  # doctest: +SKIP
...     result = training.train(model, config, data, data.split(10_000, config.seed), folder, show)
"""

from __future__ import annotations

from cvi_widgets.training.evaluation import Evaluation, evaluate
from cvi_widgets.training.hardware import keep_large_buffers, resolve_device, use_threads
from cvi_widgets.training.loop import TrainingResult, train
from cvi_widgets.training.progress import Listener, Progress, TqdmProgress, tqdm_progress
from cvi_widgets.training.weights import load_weights, save_weights

__all__ = [
    "Evaluation",
    "Listener",
    "Progress",
    "TqdmProgress",
    "TrainingResult",
    "evaluate",
    "keep_large_buffers",
    "load_weights",
    "resolve_device",
    "save_weights",
    "tqdm_progress",
    "train",
    "use_threads",
]

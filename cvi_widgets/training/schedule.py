"""How the learning rate, the KL weight and the capacity change with the number of images seen."""

from __future__ import annotations

from cvi_widgets.config import TrainingConfig


def learning_rate(config: TrainingConfig, seen: int) -> float:
    """Rises linearly from zero over `lr_warmup` images, falls linearly to zero over the last `lr_decay` of the budget.

    The first batch after a warm-up of w images trains at `learning_rate`; the batch at `seen = 0` already moves.
    """
    rise = min(1.0, (seen + config.batch_size) / config.lr_warmup) if config.lr_warmup else 1.0
    left = 1 - seen / config.images
    fall = min(1.0, max(0.0, left / config.lr_decay)) if config.lr_decay else 1.0
    return config.learning_rate * rise * fall


def kl_weight(config: TrainingConfig, seen: int, beta: float) -> float:
    """Rises linearly from zero to `beta` over the first `kl_warmup` images (Bowman et al. 2016)."""
    return beta * min(1.0, seen / config.kl_warmup) if config.kl_warmup else beta


def capacity(config: TrainingConfig, seen: int, nats: float, share: float) -> float:
    """Rises linearly from zero to `nats` over the first `share` of the image budget (Burgess et al. 2018)."""
    growth = share * config.images
    return nats * min(1.0, seen / growth) if growth else nats

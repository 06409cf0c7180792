"""What a configuration minimises: which objective, with which weights, at which point of the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from cvi_widgets.config import (
    AnnealedVAEConfig,
    BetaTCVAEConfig,
    BetaVAEConfig,
    DIPVAEConfig,
    FactorVAEConfig,
    RunConfig,
    VQVAEConfig,
)
from cvi_widgets.models import Output, VQOutput
from cvi_widgets.objectives import Terms, annealed_vae, beta_tc_vae, beta_vae, dip_vae, factor_vae, vq_vae
from cvi_widgets.training import schedule

Judge = Callable[[Tensor], Tensor]
"""Codes (n, latent) -> discriminator logits (n, 2)."""


class Objective(NamedTuple):
    """Loss terms of a batch, and the KL's weight, after `seen` images; `extras` are the names of the terms' extras."""

    terms: Callable[[Any, Tensor, int], Terms]
    kl_weight: Callable[[int], float]
    extras: tuple[str, ...] = ()


def objective(config: RunConfig, images: int, judge: Judge | None = None) -> Objective:
    """The objective of `config` for `images` training images; FactorVAE's needs a `judge` of codes.

    The warm-up multiplies the KL and every penalty on the codes alike. The annealed VAE has none: its capacity is one.
    """
    model, settings = config.model, config.training
    kind = model.reconstruction

    def rising(seen: int) -> float:
        return schedule.kl_weight(settings, seen, 1.0)

    if isinstance(model, BetaTCVAEConfig):
        tc = model

        def beta_tc_terms(out: Output, x: Tensor, seen: int) -> Terms:
            return beta_tc_vae(
                out.logits,
                *out.posterior,
                out.z,
                x,
                beta=tc.beta,
                images=images,
                estimator=tc.estimator,
                weight=rising(seen),
                reconstruction=kind,
            )

        return Objective(beta_tc_terms, rising, ("mutual_information", "total_correlation", "dimension_kl"))

    if isinstance(model, DIPVAEConfig):
        dip = model

        def dip_terms(out: Output, x: Tensor, seen: int) -> Terms:
            return dip_vae(
                out.logits,
                *out.posterior,
                x,
                lambda_od=dip.lambda_od,
                lambda_d=dip.lambda_d,
                variant=dip.variant,
                weight=rising(seen),
                reconstruction=kind,
            )

        return Objective(dip_terms, rising, ("squared_covariances", "squared_variance_errors"))

    if isinstance(model, AnnealedVAEConfig):
        annealed = model

        def annealed_terms(out: Output, x: Tensor, seen: int) -> Terms:
            now = schedule.capacity(settings, seen, annealed.capacity, annealed.capacity_growth)
            return annealed_vae(out.logits, *out.posterior, x, gamma=annealed.gamma, capacity=now, reconstruction=kind)

        return Objective(annealed_terms, lambda seen: annealed.gamma, ("capacity",))

    if isinstance(model, FactorVAEConfig):
        if judge is None:
            raise TypeError("FactorVAE's objective needs a judge.")
        factor, judged_by = model, judge

        def factor_terms(out: Output, x: Tensor, seen: int) -> Terms:
            judged = judged_by(out.z)
            weight = rising(seen)
            return factor_vae(
                out.logits, *out.posterior, judged, x, gamma=factor.gamma, weight=weight, reconstruction=kind
            )

        return Objective(factor_terms, rising, ("total_correlation", "discriminator_loss"))

    if isinstance(model, VQVAEConfig):
        vq = model

        def vq_terms(out: VQOutput, x: Tensor, seen: int) -> Terms:
            return vq_vae(
                *out,
                x,
                n_codes=vq.codes,
                commitment=vq.commitment,
                trained=vq.codebook == "loss",
                reconstruction=kind,
            )

        return Objective(vq_terms, lambda seen: 0.0, ("commitment_distance", "perplexity"))

    beta = model.beta if isinstance(model, BetaVAEConfig) else 1.0

    def beta_terms(out: Output, x: Tensor, seen: int) -> Terms:
        weight = schedule.kl_weight(settings, seen, beta)
        return beta_vae(out.logits, *out.posterior, x, beta=weight, reconstruction=kind)

    return Objective(beta_terms, lambda seen: schedule.kl_weight(settings, seen, beta))

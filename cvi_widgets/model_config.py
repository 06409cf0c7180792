"""Settings of each model; `cvi_widgets.config` makes them part of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Settings that belong together: strict about types, frozen, and without room for unknown names."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(Section):
    """What every model has; `in_run_id` names the weights that a run's id shows."""

    in_run_id: ClassVar[tuple[str, ...]] = ()

    network: Literal["paper", "dlib", "slim"] = "paper"
    latents: int = Field(10, ge=1, le=512)
    reconstruction: Literal["bernoulli", "gaussian"] = "bernoulli"


class VAEConfig(ModelSection):
    """The variational autoencoder: reconstruction + KL (Kingma & Welling 2014)."""

    model: Literal["vae"] = "vae"


class BetaVAEConfig(ModelSection):
    """reconstruction + beta * KL (Higgins et al. 2017); the published study uses beta = 4."""

    in_run_id = ("beta",)

    model: Literal["beta_vae"] = "beta_vae"
    beta: float = Field(4.0, ge=0)


class BetaTCVAEConfig(ModelSection):
    """reconstruction + KL + (beta - 1) * total correlation (Chen et al. 2018)."""

    in_run_id = ("beta",)

    model: Literal["beta_tc_vae"] = "beta_tc_vae"
    beta: float = Field(6.0, ge=0)
    estimator: Literal["stratified", "weighted"] = Field(
        "stratified", description="how a batch stands for all images; the weighted one is biased, as its authors say"
    )


class DIPVAEConfig(ModelSection):
    """reconstruction + KL + penalty on the covariance of the codes (Kumar et al. 2018)."""

    in_run_id = ("lambda_od", "lambda_d")

    model: Literal["dip_vae"] = "dip_vae"
    variant: Literal["i", "ii"] = Field("ii", description="covariance of the means (i) or of the sampled codes (ii)")
    lambda_od: float = Field(10.0, ge=0, description="weight of the squared covariances")
    lambda_d: float = Field(10.0, ge=0, description="weight of the squared differences of the variances from 1")


class AnnealedVAEConfig(ModelSection):
    """reconstruction + gamma * |KL - C|, C growing from 0 to `capacity` (Burgess et al. 2018)."""

    in_run_id = ("capacity", "gamma")

    model: Literal["annealed_vae"] = "annealed_vae"
    capacity: float = Field(25.0, ge=0, description="nats that the code may carry in the end")
    gamma: float = Field(1000.0, ge=0, description="weight of the distance between KL and capacity")
    capacity_growth: float = Field(
        1 / 3, ge=0, le=1, description="first share of the image budget over which the capacity grows"
    )


class FactorVAEConfig(ModelSection):
    """reconstruction + KL + gamma * total correlation, by a discriminator (Kim & Mnih 2018)."""

    in_run_id = ("gamma",)

    model: Literal["factor_vae"] = "factor_vae"
    gamma: float = Field(40.0, ge=0)
    discriminator_layers: int = Field(6, ge=1, le=32)
    discriminator_width: int = Field(1000, ge=1, le=8192)
    discriminator_learning_rate: float = Field(1e-4, gt=0)
    discriminator_beta1: float = Field(0.5, ge=0, lt=1)
    discriminator_beta2: float = Field(0.9, ge=0, lt=1)


class VQVAEConfig(ModelSection):
    """reconstruction + commitment, with a discrete code (van den Oord et al. 2017)."""

    in_run_id = ("codes",)

    model: Literal["vq_vae"] = "vq_vae"
    latents: int = Field(64, ge=1, le=512, description="numbers per entry of the codebook")
    codes: int = Field(512, ge=2, le=65_536, description="entries of the codebook")
    commitment: float = Field(0.25, ge=0, description="weight of drawing the encoder to its codes")
    codebook: Literal["ema", "loss"] = Field("ema", description="codes follow by moving averages or by a loss")
    ema_decay: float = Field(0.99, ge=0, lt=1)
    restart_below: float = Field(
        0.01, ge=0, description="vectors per batch, averaged, under which a code starts anew; 0 for never"
    )


ModelConfig = Annotated[
    VAEConfig | BetaVAEConfig | BetaTCVAEConfig | DIPVAEConfig | AnnealedVAEConfig | FactorVAEConfig | VQVAEConfig,
    Field(discriminator="model"),
]
MODELS: Mapping[str, type[ModelSection]] = {
    "vae": VAEConfig,
    "beta_vae": BetaVAEConfig,
    "beta_tc_vae": BetaTCVAEConfig,
    "dip_vae": DIPVAEConfig,
    "annealed_vae": AnnealedVAEConfig,
    "factor_vae": FactorVAEConfig,
    "vq_vae": VQVAEConfig,
}

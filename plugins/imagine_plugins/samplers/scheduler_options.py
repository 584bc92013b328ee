"""Builds diffusers' schedulers from what a model's configuration says of the model."""

from __future__ import annotations

import inspect
import json
from functools import lru_cache
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from imagine_core.noise import NO_SIGNAL, VariancePreserving

if TYPE_CHECKING:
    from collections.abc import Mapping

# A folder's configuration is that of the scheduler it was saved with. What it says of the model
# reaches the scheduler of the sampler that was asked for; how to solve is that sampler's own.
TRAINED = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)
SPACING = ("timestep_spacing", "steps_offset", "use_karras_sigmas")
DISTILLED = ("original_inference_steps", "timestep_scaling")  # of LCM and TCD, by their training
OF_THE_MODEL = frozenset((*TRAINED, *SPACING, *DISTILLED))

# What latent diffusion models share; diffusers' own defaults are those of pixel models
# (clip_sample would cut a latent at 1).
LATENT = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "lower_order_final": True,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}

# Their steps raise where a model predicts x0; they are sent the epsilon that it amounts to.
WITHOUT_SAMPLE = frozenset(
    ("EulerAncestralDiscrete", "KDPM2AncestralDiscrete", "KDPM2Discrete", "PNDM")
)


def prototype(name: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """A scheduler to copy: building one takes up to 0.3 s, copying it well under 1 ms.

    Args:
        name: Name of diffusers' class, without its "Scheduler".
        config: The model's scheduler configuration, of whatever class.
        options: Arguments of the constructor that are the sampler's own.
    """
    said = {key: config[key] for key in sorted(OF_THE_MODEL) if config.get(key) is not None}
    return _built(name, json.dumps([options, said], default=methodcaller("tolist")))


@lru_cache(maxsize=64)
def _built(name: str, keys: str) -> Any:
    import diffusers

    options, config = json.loads(keys)
    kind = getattr(diffusers, f"{name}Scheduler")
    known = inspect.signature(kind.__init__).parameters
    if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in known:
        config["trained_betas"] = _betas(VariancePreserving(config))
    if config.get("prediction_type") == "sample" and name in WITHOUT_SAMPLE:
        config["prediction_type"] = "epsilon"
    merged = {**LATENT, **config, **options}
    scheduler = kind(**{key: value for key, value in merged.items() if key in known})
    if scheduler.config.prediction_type == "epsilon" and scheduler.alphas_cumprod[-1] == 0:
        scheduler.alphas_cumprod[-1] = NO_SIGNAL  # x0 is divided by its root
    return scheduler


def _betas(model: VariancePreserving) -> list[float]:
    """The betas of a model, for schedulers that cannot rescale them to zero terminal SNR."""
    alphas = model.alphas_cumprod.tolist()
    return [1 - high / low for low, high in zip([1.0, *alphas], alphas, strict=False)]

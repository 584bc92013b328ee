"""Builds the modules of an architecture, without weights."""

from __future__ import annotations

from typing import Any

from imagine_plugins.loaders.architectures import Architecture


def modules(plan: Architecture) -> list[Any]:
    """Each component of a family, without weights."""
    import transformers
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with init_empty_weights():
        return [
            UNet2DConditionModel.from_config(dict(plan.unet)),
            AutoencoderKL.from_config(dict(plan.vae)),
            *(
                getattr(transformers, f"CLIPTextModel{'WithProjection' * part.projection}")(
                    transformers.CLIPTextConfig(**part.config)
                )
                for part in plan.texts
            ),
        ]

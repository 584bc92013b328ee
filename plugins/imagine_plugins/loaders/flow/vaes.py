"""The VAEs of flow models: their configurations, and for which families each is.

Sources: vae/config.json of black-forest-labs/FLUX.1-dev, of
stabilityai/stable-diffusion-3.5-medium, of black-forest-labs/FLUX.2-klein-4B and of
Qwen/Qwen-Image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagine_plugins.loaders.architectures import SD1, Config


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowVae:
    """A VAE of flow models.

    Attributes:
        title: What messages call it.
        config: Its configuration, as diffusers has it.
        fits: The families of the models whose latents it knows.
        latent_channels: Channels of a latent cell, of 8 x 8 pixels.
    """

    title: str
    config: Config
    fits: tuple[str, ...]
    latent_channels: int


def _kl(scale: float, shift: float) -> Config:
    """An AutoencoderKL of 16 channels; `latent = (encoded - shift) * scale` is of unit scale."""
    return {
        **SD1.vae,
        "latent_channels": 16,
        "sample_size": 1024,
        "scaling_factor": scale,
        "shift_factor": shift,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "force_upcast": True,
    }


VAES: Mapping[str, FlowVae] = {
    "flux": FlowVae(
        title="the VAE of FLUX.1, Z-Image and Chroma",
        config=_kl(0.3611, 0.1159),
        fits=("flux", "z-image", "chroma"),
        latent_channels=16,
    ),
    "sd3": FlowVae(
        title="the VAE of Stable Diffusion 3",
        config=_kl(1.5305, 0.0609),
        fits=("sd3",),
        latent_channels=16,
    ),
    # Latents are 2 x 2 cells in a row of 128 channels, each of unit scale by the batch norm's
    # running statistics: (x - mean) / sqrt(var + eps).
    "flux2": FlowVae(
        title="the VAE of FLUX.2",
        config={
            "_class_name": "AutoencoderKLFlux2",
            "in_channels": 3,
            "out_channels": 3,
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "block_out_channels": [128, 256, 512, 512],
            "layers_per_block": 2,
            "latent_channels": 32,
            "use_quant_conv": True,
            "use_post_quant_conv": True,
            "batch_norm_eps": 1e-4,
            "patch_size": (2, 2),
        },
        fits=("flux2",),
        latent_channels=32,
    ),
    # A video autoencoder, used for one frame: latents of unit scale are (x - mean) / std.
    "qwen-image": FlowVae(
        title="the VAE of Qwen-Image",
        config={
            "_class_name": "AutoencoderKLQwenImage",
            "base_dim": 96,
            "z_dim": 16,
            "dim_mult": [1, 2, 4, 4],
            "num_res_blocks": 2,
            "attn_scales": [],
            "temperal_downsample": [False, True, True],
            "latents_mean": [
                *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
                *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
            ],
            "latents_std": [
                *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
                *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
            ],
        },
        fits=("qwen-image",),
        latent_channels=16,
    ),
}

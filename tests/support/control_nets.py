"""Makes ControlNets and T2I-Adapters of random weights for tiny models."""

from __future__ import annotations

from typing import Any

import torch

STRIDES = {4: (8, 8, 16), 8: (8, 8, 16, 16), 16: (8, 8, 8, 16, 16)}
"""Widths of the layers that read the hint, by the pixels of a latent cell."""


def random_net(unet: Any, seed: int, *, downsampling: int = 4) -> Any:
    """A ControlNet of a UNet whose zero convolutions are not zero: else nothing would be shown."""
    from diffusers import ControlNetModel

    widths = STRIDES[downsampling]
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in net.named_parameters():
        if name.startswith(("controlnet_down", "controlnet_mid", "controlnet_cond")):
            weight.data = torch.randn(weight.shape, generator=generator) * 0.1
    return net.eval().requires_grad_(requires_grad=False)


def random_adapter(unet: Any, **options: Any) -> Any:
    """A T2I-Adapter for a UNet whose cells are 4 pixels wide."""
    from diffusers import T2IAdapter

    torch.manual_seed(options.pop("seed", 0))
    usual = {"channels": list(unet.config.block_out_channels), "num_res_blocks": 1}
    usual |= {"in_channels": 3, "downscale_factor": 4, "adapter_type": "full_adapter"}
    if unet.config.down_block_types[0] == "DownBlock2D":
        usual |= {"downscale_factor": 8, "adapter_type": "full_adapter_xl"}
    return T2IAdapter(**(usual | options)).eval().requires_grad_(requires_grad=False)

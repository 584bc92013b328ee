"""Where each parameter of a model lies in a checkpoint of the original (LDM) layout.

The original layout numbers its blocks through (`input_blocks.7.1`); diffusers names level and
position (`down_blocks.2.attentions.0`). Both follow from the configuration, so that a checkpoint
can be checked tensor by tensor against its header, and loaded without another converter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from imagine_plugins.loaders.architectures import Config

UNET = "model.diffusion_model."
VAE = "first_stage_model."

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of a checkpoint and the parameters that it fills.

    Attributes:
        key: Its name in the file.
        shape: Its shape; trailing ones do not count, a 1x1 convolution being a matrix.
        targets: The parameters, by diffusers' name; several share the tensor's rows evenly.
        transposed: Whether the file has rows and columns the other way round.
    """

    key: str
    shape: Shape
    targets: tuple[str, ...]
    transposed: bool = False


def unet_slots(config: Config) -> Iterator[Slot]:
    """The tensors of a UNet2DConditionModel, without a prefix."""
    channels = list(config["block_out_channels"])
    levels = len(channels)
    layers = _per_level(config.get("layers_per_block", 2), levels)
    depths = _per_level(config.get("transformer_layers_per_block", 1), levels)
    attention = ["CrossAttn" in kind for kind in config["down_block_types"]]
    context = config["cross_attention_dim"]
    first, time = channels[0], 4 * channels[0]

    yield from _pair("time_embed.0", "time_embedding.linear_1", time, first)
    yield from _pair("time_embed.2", "time_embedding.linear_2", time, time)
    if config.get("addition_embed_type") == "text_time":
        added = config["projection_class_embeddings_input_dim"]
        yield from _pair("label_emb.0.0", "add_embedding.linear_1", time, added)
        yield from _pair("label_emb.0.2", "add_embedding.linear_2", time, time)
    yield from _pair("input_blocks.0.0", "conv_in", first, config["in_channels"], 3, 3)

    skips, number, width = [first], 1, first
    for level, out in enumerate(channels):
        for layer in range(layers[level]):
            old, new = f"input_blocks.{number}", f"down_blocks.{level}"
            yield from _resnet(f"{old}.0", f"{new}.resnets.{layer}", width, out, time)
            if attention[level]:
                names = f"{old}.1", f"{new}.attentions.{layer}"
                yield from _transformer(*names, out, depths[level], context)
            width, number = out, number + 1
            skips.append(width)
        if level < levels - 1:
            names = f"input_blocks.{number}.0.op", f"down_blocks.{level}.downsamplers.0.conv"
            yield from _pair(*names, width, width, 3, 3)
            number += 1
            skips.append(width)

    yield from _resnet("middle_block.0", "mid_block.resnets.0", width, width, time)
    yield from _transformer("middle_block.1", "mid_block.attentions.0", width, depths[-1], context)
    yield from _resnet("middle_block.2", "mid_block.resnets.1", width, width, time)

    number = 0
    for position, level in enumerate(reversed(range(levels))):
        out = channels[level]
        for layer in range(layers[level] + 1):
            old, new = f"output_blocks.{number}", f"up_blocks.{position}"
            entering = width + skips.pop()
            yield from _resnet(f"{old}.0", f"{new}.resnets.{layer}", entering, out, time)
            if attention[level]:
                names = f"{old}.1", f"{new}.attentions.{layer}"
                yield from _transformer(*names, out, depths[level], context)
            width = out
            if layer == layers[level] and level > 0:
                part = 2 if attention[level] else 1
                names = f"{old}.{part}.conv", f"{new}.upsamplers.0.conv"
                yield from _pair(*names, out, out, 3, 3)
            number += 1
    yield from _pair("out.0", "conv_norm_out", first)
    yield from _pair("out.2", "conv_out", config["out_channels"], first, 3, 3)


def vae_slots(config: Config) -> Iterator[Slot]:
    """The tensors of an AutoencoderKL, without a prefix."""
    channels = list(config["block_out_channels"])
    latent, layers = config["latent_channels"], config.get("layers_per_block", 1)
    last = len(channels) - 1

    yield from _pair("encoder.conv_in", "encoder.conv_in", channels[0], config["in_channels"], 3, 3)
    width = channels[0]
    for level, out in enumerate(channels):
        old, new = f"encoder.down.{level}", f"encoder.down_blocks.{level}"
        for layer in range(layers):
            yield from _vae_resnet(f"{old}.block.{layer}", f"{new}.resnets.{layer}", width, out)
            width = out
        if level < last:
            names = f"{old}.downsample.conv", f"{new}.downsamplers.0.conv"
            yield from _pair(*names, width, width, 3, 3)
    yield from _vae_middle("encoder", width)
    yield from _vae_end("encoder", width, 2 * latent)

    yield from _pair("decoder.conv_in", "decoder.conv_in", width, latent, 3, 3)
    yield from _vae_middle("decoder", width)
    for level in reversed(range(last + 1)):
        old, new = f"decoder.up.{level}", f"decoder.up_blocks.{last - level}"
        for layer in range(layers + 1):
            names = f"{old}.block.{layer}", f"{new}.resnets.{layer}"
            yield from _vae_resnet(*names, width, channels[level])
            width = channels[level]
        if level > 0:
            names = f"{old}.upsample.conv", f"{new}.upsamplers.0.conv"
            yield from _pair(*names, width, width, 3, 3)
    yield from _vae_end("decoder", width, config["out_channels"])
    if config.get("use_quant_conv", True):
        yield from _pair("quant_conv", "quant_conv", 2 * latent, 2 * latent)
    if config.get("use_post_quant_conv", True):
        yield from _pair("post_quant_conv", "post_quant_conv", latent, latent)


def tiny_slots(config: Config) -> Iterator[Slot]:
    """The tensors of an AutoencoderTiny, without a prefix; layers count upsampling, too."""
    number, latent = 0, config["latent_channels"]
    widths = config["encoder_block_out_channels"]
    for level, width in enumerate(widths):
        name = f"encoder.layers.{number}"
        entering = width if level else config["in_channels"]
        yield from _tiny_convolution(name, width, entering, biased=level == 0)
        yield from _tiny_blocks("encoder", number + 1, config["num_encoder_blocks"][level], width)
        number += 1 + config["num_encoder_blocks"][level]
    yield from _tiny_convolution(f"encoder.layers.{number}", latent, widths[-1])

    widths, number = config["decoder_block_out_channels"], 2
    yield from _tiny_convolution("decoder.layers.0", widths[0], latent)
    for level, width in enumerate(widths):
        is_last = level == len(widths) - 1
        yield from _tiny_blocks("decoder", number, config["num_decoder_blocks"][level], width)
        number += config["num_decoder_blocks"][level] + (0 if is_last else 1)
        out = config["out_channels"] if is_last else width
        yield from _tiny_convolution(f"decoder.layers.{number}", out, width, biased=is_last)
        number += 1


def clip_slots(config: Config, *, projection: bool = False) -> Iterator[Slot]:
    """The tensors of a CLIPTextModel under Hugging Face's names, without a prefix."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    embeddings = "text_model.embeddings"
    for key, rows in (
        (f"{embeddings}.token_embedding.weight", config["vocab_size"]),
        (f"{embeddings}.position_embedding.weight", config["max_position_embeddings"]),
    ):
        yield Slot(key, (rows, width), (_flat(key),))
    for number in range(config["num_hidden_layers"]):
        layer = f"text_model.encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _same(f"{layer}.self_attn.{part}", width, width)
        yield from _same(f"{layer}.layer_norm1", width)
        yield from _same(f"{layer}.layer_norm2", width)
        yield from _same(f"{layer}.mlp.fc1", inner, width)
        yield from _same(f"{layer}.mlp.fc2", width, inner)
    yield from _same("text_model.final_layer_norm", width)
    if projection:
        key = "text_projection.weight"
        yield Slot(key, (config["projection_dim"], width), (key,))


def openclip_slots(config: Config, *, projection: bool = False) -> Iterator[Slot]:
    """The tensors of a CLIPTextModel under OpenCLIP's names, without a prefix."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    for key, rows, target in (
        ("token_embedding.weight", config["vocab_size"], "token_embedding.weight"),
        ("positional_embedding", config["max_position_embeddings"], "position_embedding.weight"),
    ):
        yield Slot(key, (rows, width), (f"embeddings.{target}",))
    for number in range(config["num_hidden_layers"]):
        old, new = f"transformer.resblocks.{number}", f"encoder.layers.{number}"
        for kind, shape in (("weight", (3 * width, width)), ("bias", (3 * width,))):
            parts = tuple(f"{new}.self_attn.{part}_proj.{kind}" for part in "qkv")
            yield Slot(f"{old}.attn.in_proj_{kind}", shape, parts)
        yield from _pair(f"{old}.attn.out_proj", f"{new}.self_attn.out_proj", width, width)
        yield from _pair(f"{old}.ln_1", f"{new}.layer_norm1", width)
        yield from _pair(f"{old}.ln_2", f"{new}.layer_norm2", width)
        yield from _pair(f"{old}.mlp.c_fc", f"{new}.mlp.fc1", inner, width)
        yield from _pair(f"{old}.mlp.c_proj", f"{new}.mlp.fc2", width, inner)
    yield from _pair("ln_final", "final_layer_norm", width)
    if projection:
        shape = (width, config["projection_dim"])
        yield Slot("text_projection", shape, ("text_projection.weight",), transposed=True)


def own_names(slots: Iterable[Slot]) -> list[Slot]:
    """The same parameters as diffusers stores them: one tensor each, under the parameter's name."""
    return [
        Slot(target, (slot.shape[0] // len(slot.targets), *slot.shape[1:]), (target,))
        for slot in slots
        for target in slot.targets
    ]


def _per_level(value: int | Sequence[int], levels: int) -> list[int]:
    return [value] * levels if isinstance(value, int) else list(value)


def _pair(old: str, new: str, *shape: int) -> Iterator[Slot]:
    """Weight and bias of one module; the bias has as many values as the weight has rows."""
    yield Slot(f"{old}.weight", shape, (f"{new}.weight",))
    yield Slot(f"{old}.bias", shape[:1], (f"{new}.bias",))


def _same(key: str, *shape: int) -> Iterator[Slot]:
    return _pair(key, _flat(key), *shape)


def _flat(key: str) -> str:
    return key.removeprefix("text_model.")


def _resnet(old: str, new: str, width: int, out: int, time: int) -> Iterator[Slot]:
    yield from _pair(f"{old}.in_layers.0", f"{new}.norm1", width)
    yield from _pair(f"{old}.in_layers.2", f"{new}.conv1", out, width, 3, 3)
    yield from _pair(f"{old}.emb_layers.1", f"{new}.time_emb_proj", out, time)
    yield from _pair(f"{old}.out_layers.0", f"{new}.norm2", out)
    yield from _pair(f"{old}.out_layers.3", f"{new}.conv2", out, out, 3, 3)
    if width != out:
        yield from _pair(f"{old}.skip_connection", f"{new}.conv_shortcut", out, width)


def _transformer(old: str, new: str, width: int, depth: int, context: int) -> Iterator[Slot]:
    yield from _pair(f"{old}.norm", f"{new}.norm", width)
    yield from _pair(f"{old}.proj_in", f"{new}.proj_in", width, width)
    for number in range(depth):
        block = f"transformer_blocks.{number}"
        for attention, read in (("attn1", width), ("attn2", context)):
            for part, columns in (("to_q", width), ("to_k", read), ("to_v", read)):
                name = f"{block}.{attention}.{part}.weight"
                yield Slot(f"{old}.{name}", (width, columns), (f"{new}.{name}",))
            name = f"{block}.{attention}.to_out.0"
            yield from _pair(f"{old}.{name}", f"{new}.{name}", width, width)
        for name, *shape in (
            ("ff.net.0.proj", 8 * width, width),
            ("ff.net.2", width, 4 * width),
            ("norm1", width),
            ("norm2", width),
            ("norm3", width),
        ):
            yield from _pair(f"{old}.{block}.{name}", f"{new}.{block}.{name}", *shape)
    yield from _pair(f"{old}.proj_out", f"{new}.proj_out", width, width)


def _vae_resnet(old: str, new: str, width: int, out: int) -> Iterator[Slot]:
    yield from _pair(f"{old}.norm1", f"{new}.norm1", width)
    yield from _pair(f"{old}.conv1", f"{new}.conv1", out, width, 3, 3)
    yield from _pair(f"{old}.norm2", f"{new}.norm2", out)
    yield from _pair(f"{old}.conv2", f"{new}.conv2", out, out, 3, 3)
    if width != out:
        yield from _pair(f"{old}.nin_shortcut", f"{new}.conv_shortcut", out, width)


def _vae_middle(half: str, width: int) -> Iterator[Slot]:
    old, new = f"{half}.mid", f"{half}.mid_block"
    yield from _vae_resnet(f"{old}.block_1", f"{new}.resnets.0", width, width)
    for part, name in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
        yield from _pair(f"{old}.attn_1.{part}", f"{new}.attentions.0.{name}", width, width)
    yield from _pair(f"{old}.attn_1.norm", f"{new}.attentions.0.group_norm", width)
    yield from _vae_resnet(f"{old}.block_2", f"{new}.resnets.1", width, width)


def _vae_end(half: str, width: int, out: int) -> Iterator[Slot]:
    yield from _pair(f"{half}.norm_out", f"{half}.conv_norm_out", width)
    yield from _pair(f"{half}.conv_out", f"{half}.conv_out", out, width, 3, 3)


def _tiny_convolution(name: str, out: int, width: int, *, biased: bool = True) -> Iterator[Slot]:
    pair = _same(name, out, width, 3, 3)
    yield from pair if biased else [next(pair)]


def _tiny_blocks(half: str, first: int, count: int, width: int) -> Iterator[Slot]:
    for number in range(first, first + count):
        for part in (0, 2, 4):
            yield from _same(f"{half}.layers.{number}.conv.{part}", width, width, 3, 3)

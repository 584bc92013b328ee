"""The tensors of checkpoints in the original (LDM) layout, by key and shape.

The layouts are written out module by module, as the original code nests them, and share nothing
with the loaders, so that one mistake cannot hide another.
"""

from __future__ import annotations

from layouts import Clip, Layout

Shapes = dict[str, tuple[int, ...]]

U = "model.diffusion_model."
V = "first_stage_model."


def shapes(layout: Layout) -> Shapes:
    """Every tensor of a full checkpoint of the layout, in the order of the original modules."""
    found = _under(U, _unet(layout))
    found |= _under(V, _vae(layout))
    for text in layout.texts:
        found |= _under(text.prefix, _openclip(text) if text.openclip else _clip(text))
    return found


def _under(prefix: str, part: Shapes) -> Shapes:
    return {prefix + key: shape for key, shape in part.items()}


def _affine(key: str, *shape: int) -> Shapes:
    return {f"{key}.weight": shape, f"{key}.bias": shape[:1]}


def _res_block(key: str, inner: int, outer: int, emb: int) -> Shapes:
    block = {
        **_affine("in_layers.0", inner),
        **_affine("in_layers.2", outer, inner, 3, 3),
        **_affine("emb_layers.1", outer, emb),
        **_affine("out_layers.0", outer),
        **_affine("out_layers.3", outer, outer, 3, 3),
    }
    if inner != outer:
        block |= _affine("skip_connection", outer, inner, 1, 1)
    return _under(f"{key}.", block)


def _spatial_transformer(key: str, width: int, depth: int, layout: Layout) -> Shapes:
    kernel = () if layout.linear else (1, 1)
    block = {**_affine("norm", width), **_affine("proj_in", width, width, *kernel)}
    for number in range(depth):
        for attention, reads in (("attn1", width), ("attn2", layout.context)):
            at = f"transformer_blocks.{number}.{attention}"
            block[f"{at}.to_q.weight"] = (width, width)
            block[f"{at}.to_k.weight"] = (width, reads)
            block[f"{at}.to_v.weight"] = (width, reads)
            block |= _affine(f"{at}.to_out.0", width, width)
        at = f"transformer_blocks.{number}"
        block |= _affine(f"{at}.ff.net.0.proj", 2 * 4 * width, width)
        block |= _affine(f"{at}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            block |= _affine(f"{at}.{norm}", width)
    block |= _affine("proj_out", width, width, *kernel)
    return _under(f"{key}.", block)


def _unet(layout: Layout) -> Shapes:
    base, emb = layout.channels[0], 4 * layout.channels[0]
    net = {**_affine("time_embed.0", emb, base), **_affine("time_embed.2", emb, emb)}
    if layout.labels:
        net |= _affine("label_emb.0.0", emb, layout.labels) | _affine("label_emb.0.2", emb, emb)
    net |= _affine("input_blocks.0.0", base, layout.inputs, 3, 3)
    stack, at, block = [base], base, 1
    levels = list(zip(layout.channels, layout.depths, strict=True))
    for level, (width, depth) in enumerate(levels):
        for _ in range(layout.resnets):
            net |= _res_block(f"input_blocks.{block}.0", at, width, emb)
            if depth:
                net |= _spatial_transformer(f"input_blocks.{block}.1", width, depth, layout)
            at, block = width, block + 1
            stack.append(at)
        if level + 1 < len(levels):
            net |= _affine(f"input_blocks.{block}.0.op", at, at, 3, 3)
            block += 1
            stack.append(at)
    net |= _res_block("middle_block.0", at, at, emb)
    net |= _spatial_transformer("middle_block.1", at, layout.depths[-1] or 1, layout)
    net |= _res_block("middle_block.2", at, at, emb)
    block = 0
    for level, (width, depth) in reversed(list(enumerate(levels))):
        for number in range(layout.resnets + 1):
            net |= _res_block(f"output_blocks.{block}.0", at + stack.pop(), width, emb)
            at, part = width, 1
            if depth:
                net |= _spatial_transformer(f"output_blocks.{block}.1", width, depth, layout)
                part = 2
            if level and number == layout.resnets:
                net |= _affine(f"output_blocks.{block}.{part}.conv", at, at, 3, 3)
            block += 1
    return net | _affine("out.0", base) | _affine("out.2", 4, base, 3, 3)


def _vae_block(key: str, inner: int, outer: int) -> Shapes:
    block = {
        **_affine("norm1", inner),
        **_affine("conv1", outer, inner, 3, 3),
        **_affine("norm2", outer),
        **_affine("conv2", outer, outer, 3, 3),
    }
    if inner != outer:
        block |= _affine("nin_shortcut", outer, inner, 1, 1)
    return _under(f"{key}.", block)


def _vae_mid(width: int) -> Shapes:
    block = {**_vae_block("mid.block_1", width, width), **_affine("mid.attn_1.norm", width)}
    for part in ("q", "k", "v", "proj_out"):
        block |= _affine(f"mid.attn_1.{part}", width, width, 1, 1)
    return block | _vae_block("mid.block_2", width, width)


def _vae(layout: Layout) -> Shapes:
    widths, blocks = layout.vae, layout.vae_resnets
    top = widths[-1]
    encoder = _affine("conv_in", widths[0], 3, 3, 3)
    at = widths[0]
    for level, width in enumerate(widths):
        for number in range(blocks):
            encoder |= _vae_block(f"down.{level}.block.{number}", at, width)
            at = width
        if level + 1 < len(widths):
            encoder |= _affine(f"down.{level}.downsample.conv", at, at, 3, 3)
    encoder |= _vae_mid(top) | _affine("norm_out", top) | _affine("conv_out", 8, top, 3, 3)
    decoder = _affine("conv_in", top, 4, 3, 3) | _vae_mid(top)
    for level in reversed(range(len(widths))):
        for number in range(blocks + 1):
            decoder |= _vae_block(f"up.{level}.block.{number}", at, widths[level])
            at = widths[level]
        if level:
            decoder |= _affine(f"up.{level}.upsample.conv", at, at, 3, 3)
    decoder |= _affine("norm_out", at) | _affine("conv_out", 3, at, 3, 3)
    return {
        **_under("encoder.", encoder),
        **_under("decoder.", decoder),
        **_affine("quant_conv", 8, 8, 1, 1),
        **_affine("post_quant_conv", 4, 4, 1, 1),
    }


def _clip(text: Clip) -> Shapes:
    width = text.width
    model: Shapes = {
        "embeddings.position_ids": (1, 77),
        "embeddings.token_embedding.weight": (text.vocabulary, width),
        "embeddings.position_embedding.weight": (77, width),
    }
    for number in range(text.layers):
        at = f"encoder.layers.{number}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            model |= _affine(f"{at}.self_attn.{part}", width, width)
        model |= _affine(f"{at}.layer_norm1", width) | _affine(f"{at}.layer_norm2", width)
        model |= _affine(f"{at}.mlp.fc1", 4 * width, width)
        model |= _affine(f"{at}.mlp.fc2", width, 4 * width)
    return _under("text_model.", model | _affine("final_layer_norm", width))


def _openclip(text: Clip) -> Shapes:
    width = text.width
    model: Shapes = {
        "positional_embedding": (77, width),
        "text_projection": (width, text.projection or width),
        "logit_scale": (),
        "token_embedding.weight": (text.vocabulary, width),
    }
    for number in range(text.file_layers or text.layers):
        at = f"transformer.resblocks.{number}"
        model[f"{at}.attn.in_proj_weight"] = (3 * width, width)
        model[f"{at}.attn.in_proj_bias"] = (3 * width,)
        model |= _affine(f"{at}.attn.out_proj", width, width)
        model |= _affine(f"{at}.ln_1", width) | _affine(f"{at}.ln_2", width)
        model |= _affine(f"{at}.mlp.c_fc", 4 * width, width)
        model |= _affine(f"{at}.mlp.c_proj", width, 4 * width)
    return model | _affine("ln_final", width)

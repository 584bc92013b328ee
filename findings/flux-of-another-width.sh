#!/bin/sh
# A FLUX.1 transformer whose width is not 3072 does not load in diffusers from the authors' layout.
#
# The class takes any width (num_attention_heads x attention_head_dim). The conversion of single
# files splits `single_blocks.N.linear1`, which holds queries, keys, values and the first layer of an
# MLP, at rows of a width of 3072, whatever the file's is; Chroma's does as well. The rows of another
# width add up to another sum, and the conversion ends with an error of torch.
#
# Exits with 0 while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0
venv/bin/pip install --quiet diffusers==0.42.1 transformers==5.23.0 accelerate safetensors
cat > try.py <<'PYTHON'
import diffusers
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers


def authors(heads):
    """One double and one single block as black-forest-labs/flux names them, on no device."""
    w, found = heads * 128, {}

    def add(name, rows, columns):
        found[f"{name}.weight"] = torch.empty(rows, columns, device="meta")
        found[f"{name}.bias"] = torch.empty(rows, device="meta")

    add("img_in", w, 64)
    add("txt_in", w, 4096)
    for name, columns in (("time_in", 256), ("vector_in", 768)):
        add(f"{name}.in_layer", w, columns)
        add(f"{name}.out_layer", w, w)
    for stream in ("img", "txt"):
        block = f"double_blocks.0.{stream}"
        add(f"{block}_mod.lin", 6 * w, w)
        add(f"{block}_attn.qkv", 3 * w, w)
        add(f"{block}_attn.proj", w, w)
        add(f"{block}_mlp.0", 4 * w, w)
        add(f"{block}_mlp.2", w, 4 * w)
        for norm in ("query_norm", "key_norm"):
            found[f"{block}_attn.norm.{norm}.scale"] = torch.empty(128, device="meta")
    add("single_blocks.0.linear1", 7 * w, w)
    add("single_blocks.0.linear2", w, 5 * w)
    add("single_blocks.0.modulation.lin", 3 * w, w)
    for norm in ("query_norm", "key_norm"):
        found[f"single_blocks.0.norm.{norm}.scale"] = torch.empty(128, device="meta")
    add("final_layer.linear", 64, w)
    add("final_layer.adaLN_modulation.1", 2 * w, w)
    return found


print("diffusers", diffusers.__version__)
seen = {}
for heads in (24, 16):
    with torch.device("meta"):
        model = FluxTransformer2DModel(num_layers=1, num_single_layers=1, num_attention_heads=heads)
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    try:
        made = convert_flux_transformer_checkpoint_to_diffusers(authors(heads))
    except RuntimeError as error:
        seen[heads] = f"RuntimeError: {str(error)[:60]}"
    else:
        fits = {name: value.shape for name, value in made.items()} == wanted
        seen[heads] = "converted" if fits else "converted to other shapes"
    print(f"width {128 * heads}: {seen[heads]}")
expected = seen[24] == "converted" and seen[16].startswith("RuntimeError: split_with_sizes")
raise SystemExit(0 if expected else 1)
PYTHON
venv/bin/python try.py
# Seen:
#   diffusers 0.42.1
#   width 3072: converted
#   width 2048: RuntimeError: split_with_sizes expects split_sizes to sum exactly to 14336

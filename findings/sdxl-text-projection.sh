#!/bin/sh
# SDXL checkpoints that diffusers' own converter wrote do not load in diffusers.
#
# scripts/convert_diffusers_to_original_sdxl.py copies the projection of the second text encoder as
# Hugging Face has it: `conditioner.embedders.1.model.text_projection.weight`, [out, in]. The
# original code has `...text_projection`, [in, out]. The two are square and of one size, so that
# only the name tells whether a matrix has to be transposed. ComfyUI reads both. diffusers reads the
# second alone: from the first, the weight stays on the meta device, without an error, until
# something uses it.
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
import transformers
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

config = CLIPTextConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    projection_dim=32, vocab_size=100, max_position_embeddings=8, bos_token_id=98, eos_token_id=99,
)
torch.manual_seed(0)
made = CLIPTextModelWithProjection(config).state_dict()
config.save_pretrained("text_encoder_2")
root, layer = "conditioner.embedders.1.model.", "text_model.encoder.layers.0."
block = f"{root}transformer.resblocks.0."
file = {
    f"{root}positional_embedding": made["text_model.embeddings.position_embedding.weight"],
    f"{root}token_embedding.weight": made["text_model.embeddings.token_embedding.weight"],
}
for kind in ("weight", "bias"):
    file[f"{root}ln_final.{kind}"] = made[f"text_model.final_layer_norm.{kind}"]
    three = [made[f"{layer}self_attn.{part}_proj.{kind}"] for part in "qkv"]
    file[f"{block}attn.in_proj_{kind}"] = torch.cat(three)
    for old, new in (
        ("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"),
        ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
    ):
        file[f"{block}{old}.{kind}"] = made[f"{layer}{new}.{kind}"]
projection = made["text_projection.weight"]
seen = {}
for name, value in (
    ("text_projection", projection.T.contiguous()),  # the original code's
    ("text_projection.weight", projection),  # the converter's
):
    model = create_diffusers_clip_model_from_ldm(
        CLIPTextModelWithProjection, {**file, root + name: value},
        subfolder="text_encoder_2", config=".", local_files_only=True,
    )
    weight = model.text_projection.weight
    loaded = weight.device.type == "cpu" and torch.equal(weight, projection)
    seen[name] = "loaded" if loaded else f"not loaded, on the device {weight.device}"
print("diffusers", diffusers.__version__, "transformers", transformers.__version__)
for name, what in seen.items():
    print(f"{name}: {what}")
expected = ["loaded", "not loaded, on the device meta"]
raise SystemExit(0 if list(seen.values()) == expected else 1)
PYTHON
venv/bin/python try.py
# Seen:
#   diffusers 0.42.1 transformers 5.23.0
#   text_projection: loaded
#   text_projection.weight: not loaded, on the device meta

#!/bin/sh
# DoRA's magnitudes of a convolution have one shape for outputs in PEFT and for inputs in LyCORIS.
#
# PEFT keeps the length of each output's kernel as `lora_magnitude_vector`, (1, out, 1, 1): the
# norm over the other axes, transposed. LyCORIS keeps `dora_scale`, (out, 1, 1, 1) by outputs and
# (1, in, 1, 1) by inputs (wd_on_out=False). Most convolutions of Stable Diffusion have as many
# inputs as outputs, so that the shape cannot tell which axis a file means: only the name of the
# tensor can. A linear layer's are (out,) in PEFT.
#
# Exits with 0 while that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0
venv/bin/pip install --quiet peft==0.21.2 transformers==5.23.0 lycoris-lora==4.1.3
cat > try.py <<'PYTHON'
from importlib.metadata import version

import torch
from lycoris.modules.locon import LoConModule
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import nn

torch.manual_seed(0)
layer = nn.Conv2d(8, 8, 3, padding=1)
by_outputs = layer.weight.detach().flatten(1).norm(dim=1)
by_inputs = layer.weight.detach().transpose(0, 1).flatten(1).norm(dim=1)
seen = {}
for on_out in (True, False):
    module = LoConModule("x", layer, lora_dim=2, weight_decompose=True, wd_on_out=on_out)
    seen[f"LyCORIS, wd_on_out={on_out}: dora_scale"] = module.dora_scale.detach()
config = LoraConfig(r=2, target_modules=["0"], use_dora=True)
state = get_peft_model_state_dict(get_peft_model(nn.Sequential(layer), config))
(name,) = (name for name in state if "magnitude" in name)
seen[f"PEFT: {name}"] = state[name]
for package in ("torch", "peft", "lycoris-lora"):
    print(package, version(package))
meant = []
for title, value in seen.items():
    flat = value.flatten()
    meant.append("outputs" if torch.allclose(flat, by_outputs) else
                 "inputs" if torch.allclose(flat, by_inputs) else "neither")
    print(f"{title} {tuple(value.shape)} has the lengths of {meant[-1]}")
shapes = [tuple(value.shape) for value in seen.values()]
assert meant == ["outputs", "inputs", "outputs"]
assert shapes == [(8, 1, 1, 1), (1, 8, 1, 1), (1, 8, 1, 1)]
PYTHON
venv/bin/python try.py

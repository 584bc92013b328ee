"""The loader against the rules of all, and what it makes of a file."""

import json
import zipfile

import imagine_lora_npz
import numpy as np
import torch

from imagine_core.parts import Layers
from imagine_core.testing import check_lora

LAYERS = Layers(family="sd1", shapes={"unet.a.to_q": (32, 48), "unet.b.conv": (16, 8, 3, 3)})
GENERATOR = np.random.default_rng(1)


def write(path, **more):
    """A LoRA of rank 4 for both layers."""
    arrays = {"about": np.array(json.dumps({"family": "sd1", "triggers": ["boat"]}))}
    for layer, (out, *rest) in LAYERS.shapes.items():
        arrays[f"{layer}.down"] = GENERATOR.normal(size=(4, *rest)).astype(np.float16)
        arrays[f"{layer}.up"] = GENERATOR.normal(size=(out, 4)).astype(np.float32)
    np.savez(path, **{**arrays, **more})
    return path


def test_it_does_what_loaders_of_loras_do(tmp_path):
    """The suite that every format passes."""
    check_lora(imagine_lora_npz, write(tmp_path / "boat.npz"), LAYERS)


def test_its_alpha_scales_it_and_its_words_are_known(tmp_path):
    """By alpha over rank."""
    path = write(tmp_path / "boat.npz", **{"unet.a.to_q.alpha": np.float32(2)})
    loader = imagine_lora_npz.NpzLoader()
    info = loader.recognise(path)
    assert (info.fits, info.details["triggers"], info.details["ranks"]) == (("sd1",), ["boat"], [4])
    changes = loader.load(info, device=None, full_precision=False).fit(LAYERS).changes
    arrays = np.load(path)
    wanted = arrays["unet.a.to_q.up"] @ arrays["unet.a.to_q.down"].astype("f4") / 2
    found = changes["unet.a.to_q"].updates[0].dense(torch.float32).numpy()
    assert np.allclose(found, wanted, atol=1e-5)


def test_pickles_and_compressed_arrays_are_refused_unread(tmp_path):
    """By their headers; other `.npz` files are none of its business."""
    recognise = imagine_lora_npz.NpzLoader().recognise
    objects = np.array([print], dtype=object)
    assert "object" in recognise(write(tmp_path / "a.npz", objects=objects)).problem
    with zipfile.ZipFile(write(tmp_path / "b.npz"), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c.npy", archive.read("unet.b.conv.up.npy"))
    assert "compressed" in recognise(tmp_path / "b.npz").problem
    np.savez(tmp_path / "data.npz", x=np.zeros(3))
    assert recognise(tmp_path / "data.npz") is None

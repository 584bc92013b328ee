"""Tests of imagine_plugins.loaders.adapters.lora_file."""

from __future__ import annotations

import gc
import hashlib
import weakref
from pathlib import Path

import pytest
import torch

from adapter_files import lora, named, save
from checkpoints import TINY_SD1, configs, write_hollow
from imagine_core.errors import UnusableModel
from imagine_core.parts import FittedLora
from imagine_core.testing import FakeDevice
from imagine_plugins.loaders import configs as read
from imagine_plugins.loaders.adapters.forms import Product
from imagine_plugins.loaders.adapters.lora_file import LoraFile
from imagine_plugins.loaders.adapters.modules import layers_of
from imagine_plugins.loaders.architectures import SD1, SDXL
from imagine_plugins.loaders.lora import LoraLoader

LAYER = "mid_block.attentions.0.proj_in"
PLAN = read.architecture(configs(TINY_SD1).get)


def opened(path: Path) -> LoraFile:
    loader = LoraLoader()
    info = loader.recognise(path)
    assert info is not None
    return loader.load(info, device=FakeDevice(), full_precision=False)


def written(path: Path, metadata: dict[str, str] | None = None) -> Path:
    made = lora((32, 32), rank=2, alpha=1.0, seed=0, dtype=torch.float32)
    return save(path, named(made, f"lora_unet_{LAYER.replace('.', '_')}"), metadata)


def tensor(fitted: FittedLora) -> torch.Tensor:
    (change,) = fitted.changes.values()
    (update,) = change.updates
    assert isinstance(update, Product)
    return update.factors.b


def test_its_hash_is_that_of_its_tensors_whatever_its_header_says(tmp_path: Path) -> None:
    one = written(tmp_path / "one.safetensors")
    other = written(tmp_path / "other.safetensors", {"ss_output_name": "renamed"})
    content = one.read_bytes()
    tensors = content[8 + int.from_bytes(content[:8], "little") :]
    wanted = hashlib.sha256(tensors).hexdigest()[:12]
    assert opened(one).hash == wanted
    assert opened(other).hash == wanted


@pytest.mark.parametrize("stated", ["ab" * 32, "AB" * 32, "ab" * 31, "0x12", ""])
def test_a_hash_that_the_file_states_is_taken_at_once(tmp_path: Path, stated: str) -> None:
    opened_lora = opened(written(tmp_path / "a.safetensors", {"sshs_model_hash": stated}))
    if stated.lower() == "ab" * 32:
        assert opened_lora.hash == "abababababab"
    else:
        assert opened_lora.hash not in {None, stated[:12]}


def test_it_is_fitted_once_to_each_model(tmp_path: Path) -> None:
    style = opened(written(tmp_path / "a.safetensors"))
    layers, others = layers_of(PLAN), layers_of(PLAN)
    fitted = style.fit(layers)
    assert list(fitted.changes) == [f"unet.{LAYER}"]
    assert style.fit(layers) is fitted
    assert style.fit(others) is not fitted


def test_what_was_fitted_ends_with_its_model_and_with_the_lora(tmp_path: Path) -> None:
    style = opened(written(tmp_path / "a.safetensors"))
    layers, others = layers_of(PLAN), layers_of(PLAN)
    ended = [weakref.ref(tensor(style.fit(each))) for each in (layers, others)]
    del layers
    gc.collect()
    assert [each() is None for each in ended] == [True, False]
    style.close()
    gc.collect()
    assert ended[1]() is None


def test_a_model_that_it_does_not_fit_is_an_error_with_its_name(tmp_path: Path) -> None:
    tensors = {"lora_unet_mid_block_attentions_0_proj_in.diff": (1280, 1280)}
    style = opened(write_hollow(tmp_path / "style.safetensors", tensors))
    assert style.fit(layers_of(SD1)).warnings == ()
    assert style.fit(layers_of(SDXL)).warnings == ()
    with pytest.raises(
        UnusableModel, match=r"^LoRA 'style' cannot be used: style.safetensors is for SD1, and this"
    ) as error:
        style.fit(layers_of(PLAN))
    assert (error.value.name, error.value.kind) == ("style", "LoRA")

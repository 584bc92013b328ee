"""Networks that enlarge pictures are told by their tensors, in every layout."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import SD1, shapes, write_checkpoint, write_hollow
from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.header import read_header
from imagine_plugins.loaders.upscaler import UpscalerLoader
from imagine_plugins.loaders.upscaler_layouts import upscaler_in
from upscalers import compact, rrdb, save


def recognise(path: Path) -> ModelInfo:
    info = UpscalerLoader().recognise(path)
    assert info is not None
    return info


FILES: dict[str, tuple[Any, int, str]] = {
    "first": (rrdb("first"), 4, "esrgan"),
    "first, x1": (rrdb("first", doublings=0), 1, "esrgan"),
    "first, x2": (rrdb("first", doublings=1), 2, "esrgan"),
    "first, x8": (rrdb("first", doublings=3), 8, "esrgan"),
    "second": (rrdb("second"), 4, "esrgan"),
    "basicsr": (rrdb("basicsr"), 4, "esrgan"),
    "basicsr, x2 of squares": (rrdb(channels=12), 2, "esrgan"),
    "basicsr, x1 of squares": (rrdb(channels=48), 1, "esrgan"),
    "compact, x1": (compact(factor=1), 1, "compact"),
    "compact, x2": (compact(factor=2), 2, "compact"),
    "compact, x3": (compact(factor=3), 3, "compact"),
    "compact, x4": (compact(), 4, "compact"),
}
WRAPPED = ("", "params", "params_ema", "state_dict", "model", "generator")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_each_layout_is_known_with_its_factor(tmp_path: Path, name: str, suffix: str) -> None:
    tensors, factor, family = FILES[name]
    path = save(tmp_path / f"4x-Ultra{suffix}", tensors)
    info = recognise(path)
    assert (info.kind, info.family, info.problem) == ("upscaler", family, None)
    assert (info.name, info.dtype) == ("4x-Ultra", "float32")
    assert info.details["factor"] == factor
    assert info.parameters == sum(value.numel() for value in tensors.values())
    assert (info.fits, info.takes, info.loader) == ((), (), "upscaler")


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        *(("3x_Loyal", 3), ("Loyal-3X", 3), ("RRDB.x3", 3), ("003_RRDB_PSNR_x3_DF2K", 3)),
        *(("2x_Loyal", 2), ("Loyal", 2), ("13x_Loyal", 2), ("3xtra", 2), ("box3", 2)),
    ],
)
@pytest.mark.parametrize("layout", ["first", "basicsr"])
def test_a_network_of_3x_has_the_tensors_of_one_of_2x_and_is_told_by_its_name(
    tmp_path: Path, layout: str, name: str, factor: int
) -> None:
    path = save(tmp_path / f"{name}.pth", rrdb(layout, doublings=1))
    assert recognise(path).details["factor"] == factor
    for other in (rrdb(layout), rrdb(layout, doublings=0), rrdb(channels=12)):
        told = recognise(save(path, other)).details["factor"]
        assert told == recognise(save(tmp_path / "Loyal.pth", other)).details["factor"]


@pytest.mark.parametrize("name", ["first", "second", "basicsr", "compact, x4"])
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_what_trainers_put_around_a_network_is_seen_through(
    tmp_path: Path, name: str, wrapper: str
) -> None:
    tensors, factor, _ = FILES[name]
    path = save(tmp_path / "x.pth", {wrapper: tensors, "epoch": 3} if wrapper else tensors)
    assert recognise(path).details["factor"] == factor


def test_smoothed_weights_come_before_the_others(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", {"params": compact(factor=2), "params_ema": compact(factor=4)})
    assert recognise(path).details["factor"] == 4


OTHERS: dict[str, dict[str, tuple[int, ...]]] = {
    "SwinIR": {"layers.0.residual_group.blocks.0.attn.relative_position_bias_table": (225, 6)},
    "HAT": {"params_ema.layers.0.residual_group.blocks.0.conv_block.cab.0.weight": (60, 180, 3, 3)},
    "DAT": {"layers.0.blocks.0.ffn.sg.conv.weight": (360, 1, 3, 3), "conv_first.weight": (180, 3)},
    "SPAN": {"params.block_1.c1_r.sk.weight": (48, 48, 1, 1)},
    "ESRGAN\\+": {
        name: tuple(value.shape)
        for name, value in {
            **rrdb("first"),
            "model.1.sub.0.RDB1.conv1x1.weight": torch.zeros(4, 8, 1, 1),
        }.items()
    },
}


@pytest.mark.parametrize("title", OTHERS)
def test_a_network_that_is_not_supported_is_named(tmp_path: Path, title: str) -> None:
    info = recognise(write_hollow(tmp_path / "x.safetensors", OTHERS[title]))
    assert info.kind == "upscaler"
    with pytest.raises(AssertionError, match=f"of the kind {title}, which is not supported"):
        assert info.problem is None, info.problem


def cut(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in tensors.items() if key != name}


BAD: dict[str, Any] = {
    "'body.1.rdb2.conv3.bias' missing": cut(rrdb(), "body.1.rdb2.conv3.bias"),
    "pictures of 1 channels": rrdb(channels=1, colours=1),
    "makes such of 1": rrdb(colours=1),
    "300 features, and at most 256": rrdb(features=300, growth=1, blocks=1),
    "0.5 times": rrdb(channels=12, doublings=0),
    "holds I64: quantised": {**rrdb(), "conv_last.bias": torch.zeros(3, dtype=torch.int64)},
    "has the shape": {**rrdb(), "conv_body.weight": torch.zeros(8, 8, 1, 3)},
}


@pytest.mark.parametrize("said", BAD)
def test_an_upscaler_that_cannot_serve_says_why(tmp_path: Path, said: str) -> None:
    info = recognise(save(tmp_path / "x.pth", BAD[said]))
    assert info.kind == "upscaler"
    assert said in (info.problem or "")


def test_a_pickle_of_anything_else_is_no_upscaler(tmp_path: Path) -> None:
    info = recognise(save(tmp_path / "x.pth", {"who.knows": torch.ones(2)}))
    assert info.name == "x.pth"  # lest it hide the usable one of its stem
    assert "no upscaler in a layout known here" in (info.problem or "")
    assert "'who.knows'" in (info.problem or "")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<!doctype html>", bytes(5000)])
def test_a_broken_pickle_is_an_upscaler_with_a_problem(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    info = recognise(path)
    assert (info.kind, info.size, info.family) == ("upscaler", len(content), "broken")
    assert info.problem


def test_files_of_other_kinds_are_left_to_other_loaders(tmp_path: Path) -> None:
    loader = UpscalerLoader()
    assert loader.recognise(write_hollow(tmp_path / "sd1.safetensors", shapes(SD1))) is None
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    assert loader.recognise(tmp_path / "broken.safetensors") is None
    assert loader.recognise(save(tmp_path / ".hidden.pth", compact())) is None
    assert loader.recognise(save(tmp_path / "x.ckpt", compact())) is None
    (tmp_path / "folder.pth").mkdir()
    assert loader.recognise(tmp_path / "folder.pth") is None


def test_a_checkpoint_costs_the_recogniser_no_millisecond(tmp_path: Path) -> None:
    header = read_header(write_hollow(tmp_path / "sd1.safetensors", shapes(SD1)))
    began = time.perf_counter()
    for _ in range(10):
        assert upscaler_in(tmp_path, header) is None
    assert time.perf_counter() - began < 0.01 * 10


def test_names_of_checkpoints_are_not_taken_for_upscalers(tmp_path: Path) -> None:
    from checkpoints import TINY_SD1

    path = write_checkpoint(tmp_path / "tiny.safetensors", TINY_SD1)
    assert UpscalerLoader().recognise(path) is None

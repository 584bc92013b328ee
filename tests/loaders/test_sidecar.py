"""The prediction type: from its sidecar, its markers, its metadata, or its weights."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from checkpoints import SD1, SD2, SDXL, TINY_SD1, inpainting, shapes, write_folder, write_hollow
from imagine_plugins.loaders.checkpoint import CheckpointLoader
from imagine_plugins.loaders.folder import FolderLoader, examine
from imagine_plugins.loaders.header import read_header
from imagine_plugins.loaders.parameterization import TELLING
from imagine_plugins.loaders.recognition import recognise_checkpoint


def noise(path: Path) -> tuple[str, bool, str | None]:
    """What the checkpoint predicts, whether its last step is pure noise, and its spacing."""
    config = recognise_checkpoint(path).architecture.scheduler
    zero = bool(config.get("rescale_betas_zero_snr"))
    return config["prediction_type"], zero, config.get("timestep_spacing")


def write(path: Path, layout: Any, *markers: str, **metadata: str) -> Path:
    tensors = {**shapes(layout), **dict.fromkeys(markers, (0,))}
    return write_hollow(path / "m.safetensors", tensors, metadata=metadata)


def beside(path: Path, **content: object) -> None:
    (path / "m.json").write_text(json.dumps(content), "utf-8")


def test_sd1_and_sdxl_predict_epsilon_unless_something_says_otherwise(tmp_path: Path) -> None:
    assert noise(write(tmp_path, SD1)) == ("epsilon", False, None)
    assert noise(write(tmp_path, SDXL)) == ("epsilon", False, "leading")


@pytest.mark.parametrize("layout", [SD1, SDXL], ids=lambda layout: layout.name)
def test_markers_say_v_prediction_and_zero_terminal_snr(tmp_path: Path, layout: Any) -> None:
    assert noise(write(tmp_path, layout, "v_pred"))[:2] == ("v_prediction", False)
    assert noise(write(tmp_path, layout, "v_pred", "ztsnr")) == ("v_prediction", True, "trailing")


@pytest.mark.parametrize(
    ("metadata", "prediction", "size"),
    [
        ({}, "epsilon", 512),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon", 512),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction", 768),
        ({"modelspec.prediction_type": "v"}, "v_prediction", 768),
        ({"modelspec.prediction_type": "epsilon"}, "epsilon", 512),
    ],
)
def test_metadata_tells_the_kinds_of_sd2_apart(
    tmp_path: Path, metadata: dict[str, str], prediction: str, size: int
) -> None:
    path = write(tmp_path, SD2, **metadata)
    assert noise(path)[0] == prediction
    assert recognise_checkpoint(path).architecture.size == (size, size)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
@pytest.mark.parametrize(("spread", "prediction"), [(0.05, "epsilon"), (0.15, "v_prediction")])
def test_without_a_word_the_spread_of_one_tensor_tells_sd2_apart(
    tmp_path: Path, dtype: str, spread: float, prediction: str
) -> None:
    import torch

    path = write_hollow(tmp_path / "m.safetensors", shapes(SD2), dtype=dtype)
    place = read_header(path).tensors[TELLING]
    kind = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}[dtype]
    values = (torch.randn(place.shape, generator=torch.Generator().manual_seed(1)) * spread).to(
        kind
    )
    with path.open("r+b") as file:
        file.seek(place.start)
        file.write(values.view(torch.uint8).numpy().tobytes())
    assert noise(path)[0] == prediction


def test_sd2_inpainting_predicts_epsilon(tmp_path: Path) -> None:
    assert noise(write(tmp_path, inpainting(SD2)))[0] == "epsilon"


def test_a_sidecar_overrides_what_the_file_says(tmp_path: Path) -> None:
    path = write(tmp_path, SDXL, "v_pred", "ztsnr")
    beside(
        tmp_path, prediction_type="epsilon", zero_terminal_snr=False, recommended_size="832x1216"
    )
    assert noise(path)[:2] == ("epsilon", False)
    assert recognise_checkpoint(path).architecture.size == (832, 1216)
    beside(tmp_path, prediction_type="v", recommended_size=[640, 640])
    assert noise(path) == ("v_prediction", True, "trailing")
    assert recognise_checkpoint(path).architecture.size == (640, 640)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"prediction_type": "flow"}', "prediction_type must be"),
        ('{"prediction_type": 1}', "prediction_type must be"),
        ('{"zero_terminal_snr": "yes"}', "must be true or false"),
        ('{"recommended_size": "big"}', "recommended_size must be"),
        ('{"recommended_size": [1, 2, 3]}', "recommended_size must be"),
        ('{"recommended_size": [513, 512]}', "multiples of 8"),
        ('{"prediction_type": ', "m.json beside it is no JSON from line 1 on"),
        ("[" * 100_000, "m.json beside it is no JSON; mend"),
        (f'{{"recommended_size": {"9" * 5000}}}', "m.json beside it is no JSON; mend"),
    ],
)
def test_a_sidecar_that_is_wrong_is_told_rather_than_ignored(
    tmp_path: Path, content: str, words: str
) -> None:
    path = write(tmp_path, SD1)
    (tmp_path / "m.json").write_text(content, "utf-8")
    info = CheckpointLoader().recognise(path)
    assert info is not None
    assert words in (info.problem or "")
    assert info.family == "sd1"


def test_a_sidecar_that_cannot_be_read_is_told_without_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, SD1)
    beside(tmp_path, prediction_type="v")

    def refuse(file: Path, *_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr(Path, "read_text", refuse)
    info = CheckpointLoader().recognise(path)
    assert info is not None
    assert info.problem == "m.json beside it cannot be read: Permission denied"


def test_a_sidecar_may_begin_with_a_mark_as_windows_editors_write_it(tmp_path: Path) -> None:
    path = write(tmp_path, SD1)
    (tmp_path / "m.json").write_text('{"prediction_type": "v"}', "utf-8-sig")
    assert noise(path)[0] == "v_prediction"


def test_a_folder_takes_the_sidecar_of_its_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", TINY_SD1)
    beside(
        tmp_path, prediction_type="v_prediction", zero_terminal_snr=True, recommended_size="64x128"
    )
    config = examine(folder).architecture.scheduler
    assert config["prediction_type"] == "v_prediction"
    assert config["rescale_betas_zero_snr"] is True
    info = FolderLoader().recognise(folder)
    assert info is not None
    assert info.recommended_size == (64, 128)

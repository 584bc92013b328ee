"""diffusers' own pipelines over the files of the loaders' tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from checkpoints import Layout, configs
from imagine_core.interfaces import Device
from imagine_core.testing import FakeDevice
from imagine_plugins.loaders.checkpoint import CheckpointLoader
from imagine_plugins.loaders.folder import FolderLoader
from imagine_plugins.loaders.vocabulary import clip_vocabulary

CPU = FakeDevice()


class Half(FakeDevice):
    """The CPU in a half precision."""

    name = "half"

    def __init__(self, dtype: Any) -> None:
        super().__init__()
        self._dtype = dtype

    def dtype(self) -> Any:
        """The dtype it was made with."""
        return self._dtype


def load(path: Path, *, device: Device = CPU, full_precision: bool = False) -> Any:
    """The model at `path`, by its loader."""
    loader = FolderLoader() if path.is_dir() else CheckpointLoader()
    info = loader.recognise(path)
    assert info is not None
    assert info.problem is None, info.problem
    return loader.load(info, device=device, full_precision=full_precision)


def clip_tokenizer(pad: str = "<|endoftext|>") -> Any:
    """The tokenizer of the hub's pipelines."""
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_vocabulary()
    made = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    made.pad_token = pad
    return made


def single_file_pipeline(path: Path, layout: Layout, folder: Path) -> Any:
    """A checkpoint through diffusers' own converter, in float32."""
    import diffusers
    import torch

    for name, content in configs(layout).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), "utf-8")
    pads = ["!" if text.openclip else "<|endoftext|>" for text in layout.texts]
    tokenizers = {
        f"tokenizer{'_2' * number}": clip_tokenizer(pad) for number, pad in enumerate(pads)
    }
    kind = getattr(diffusers, configs(layout)["model_index.json"]["_class_name"])
    pipeline = kind.from_single_file(
        path,
        config=str(folder),
        local_files_only=True,
        torch_dtype=torch.float32,
        scheduler=diffusers.DDIMScheduler(**configs(layout)["scheduler/scheduler_config.json"]),
        **tokenizers,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(width: int, height: int) -> Image.Image:
    """A picture with some content."""
    size = width * height * 3
    return Image.frombytes("RGB", (width, height), bytes((n * n // 97) % 256 for n in range(size)))

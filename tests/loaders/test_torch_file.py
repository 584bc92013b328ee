"""Files of torch.save are read without running anything that they name."""

from __future__ import annotations

import io
import os
import pickle
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagine_plugins.loaders.components import Stored
from imagine_plugins.loaders.pickled import PickleError, read_pickle
from imagine_plugins.loaders.torch_file import TorchFileError, read_torch_file
from imagine_plugins.loaders.weights import _opened
from upscalers import rrdb

OLD = {"_use_new_zipfile_serialization": False}


def values(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file as the loaders read them."""
    header = read_torch_file(path)
    with _opened() as read:
        return {name: read(Stored(path, each), None) for name, each in header.tensors.items()}


def save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_are_those_that_torch_reads(
    tmp_path: Path, options: Any, dtype: torch.dtype
) -> None:
    whole = torch.randn(4, 6, 3, 3).to(dtype)
    content = {
        "params": OrderedDict(a=whole, shared=whole[2:], one=whole[0, 0, 0, 0]),
        "iteration": 7,
        "state": [{"lr": 0.5, "names": ("x", None, True)}],
        "tuned": torch.nn.Parameter(torch.ones(3, dtype=dtype)),
    }
    path = save(tmp_path / "x.pth", content, **options)
    theirs = torch.load(path, weights_only=True)
    ours = values(path)
    assert set(ours) == {"params.a", "params.shared", "params.one", "tuned"}
    for name in ("a", "shared", "one"):
        assert torch.equal(ours[f"params.{name}"], theirs["params"][name]), name
    assert torch.equal(ours["tuned"], theirs["tuned"])


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "before torch 1.6"])
def test_a_network_of_a_thousand_tensors_is_read_in_milliseconds(
    tmp_path: Path, options: Any
) -> None:
    path = save(tmp_path / "x.pth", {"params_ema": rrdb(blocks=23)}, **options)
    read_torch_file(path)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        header = read_torch_file(path)
        times.append(time.perf_counter() - began)
    assert len(header.tensors) == 702
    assert min(times) < 0.1


class Runs:
    """A pickle of it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_a_pickle_would_run_does_not_run(tmp_path: Path, options: Any, protocol: int) -> None:
    trace = tmp_path / "trace"
    content = {"bad": Runs(f"touch {trace}"), "good": torch.ones(2)}
    path = save(tmp_path / "x.pth", content, pickle_protocol=protocol, **options)
    assert list(values(path)) == ["good"]
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # it would have


def bare(path: Path, content: Any) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def zipped(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def rewritten(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> Path:
    """The file of one tensor, its entries changed."""
    save(path, {"a": torch.arange(6.0).view(2, 3)})
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return zipped(path, change(files), compression)


def ending(files: dict[str, bytes], end: str, data: bytes | None) -> dict[str, bytes]:
    name = next(name for name in files if name.endswith(end))
    rest = {key: value for key, value in files.items() if key != name}
    return rest if data is None else {**rest, name: data}


BAD: dict[str, Any] = {
    "is not a regular file": lambda path: path.mkdir() or path,
    "no file of weights": lambda path: path.touch() or path,
    "not one of torch": lambda path: bare(path, {"a": 1}),
    "without weights of torch": lambda path: zipped(path, {"word/document.xml": b"<a/>"}),
    "not stored in a row": lambda path: save(path, {"a": torch.ones(2, 3).T}),
    "unknown type Complex": lambda path: save(path, {"a": torch.ones(2, dtype=torch.complex64)}),
    "big-endian": lambda path: rewritten(path, lambda f: ending(f, "/byteorder", b"big")),
    "are missing": lambda path: rewritten(path, lambda f: ending(f, "/data/0", None)),
    "the download is incomplete": lambda path: rewritten(
        path, lambda f: ending(f, "/data/0", b"x")
    ),
    "are compressed": lambda path: rewritten(path, lambda f: f, zipfile.ZIP_DEFLATED),
    "far too large": lambda path: rewritten(
        path, lambda f: ending(f, "data.pkl", bytes(5 * 2**20))
    ),
    "uses the instruction": lambda path: rewritten(
        path, lambda f: ending(f, "data.pkl", b"\x80\x02i")
    ),
}


@pytest.mark.parametrize("said", BAD)
def test_a_file_that_is_none_is_refused_in_a_sentence(tmp_path: Path, said: str) -> None:
    path = BAD[said](tmp_path / "x.pth")
    with pytest.raises(TorchFileError, match=said):
        read_torch_file(path)


def test_a_dictionary_in_itself_ends(tmp_path: Path) -> None:
    endless: dict[str, Any] = {"a": torch.ones(1)}
    endless |= {f"again{number}": endless for number in range(60)}
    path = save(tmp_path / "x.pth", endless)
    with pytest.raises(TorchFileError, match="far more tensors"):
        read_torch_file(path)


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "before torch 1.6"])
def test_long_names_of_many_tensors_take_no_memory(tmp_path: Path, options: Any) -> None:
    one = torch.ones(1)
    inner = {str(number): one for number in range(1000)}
    long: dict[str, Any] = {}
    for length in range(3):
        long = {f"{'x' * 400_000}{length}": long or inner}
    path = save(tmp_path / "x.pth", long, **options)
    tracemalloc.start()
    with pytest.raises(TorchFileError, match="far longer names"):
        read_torch_file(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100 * 2**20  # a thousand names of a megabyte would take ten times that


def test_an_old_file_whose_storages_have_no_texts_for_keys_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, [{}, "0"]):
            pickle.dump(part, file, protocol=2)
    with pytest.raises(TorchFileError, match="the file is damaged"):
        read_torch_file(path)


def saved(**options: Any) -> bytes:
    file = io.BytesIO()
    torch.save({"params": {"a": torch.arange(6.0), "b": torch.ones(2, 2)}}, file, **options)
    return file.getvalue()


WHOLE = (saved(), saved(**OLD))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    whole=st.sampled_from(WHOLE),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    length=st.floats(0, 1),
)
def test_damage_never_crashes(
    tmp_path: Path, whole: bytes, places: list[tuple[float, int]], length: float
) -> None:
    data = bytearray(whole)
    for where, value in places:
        data[int(where * (len(data) - 1))] = value
    path = tmp_path / "x.pth"
    path.write_bytes(data if length > 0.5 else data[: int(2 * length * len(data))])
    said = "it is damaged, and says so"
    try:
        header = read_torch_file(path)
    except TorchFileError as error:
        said = str(error)
    else:
        assert all(each.end <= path.stat().st_size for each in header.tensors.values())
    assert 20 < len(said) < 300


@settings(max_examples=400)
@given(code=st.binary(max_size=60))
def test_any_pickle_ends_in_a_value_or_an_error(code: bytes) -> None:
    with suppress(PickleError):
        _, end = read_pickle(b"\x80\x02" + code + b".")
        assert 3 <= end <= len(code) + 3

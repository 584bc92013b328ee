"""Pulling models from a hub and from URLs: files chosen, refused, kept and named."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from checkpoints import TINY_SD1, header_bytes, write_folder
from hub_server import COMMIT, FileServer, Served, files_under
from imagine_core.errors import ImagineError, ServerFailed, SettingsError, UnusableModel
from imagine_core.interfaces import ModelInfo, ModelLoader
from imagine_core.models.catalogue import Catalogue
from imagine_core.plugins import build_plugins
from imagine_plugins.pulling.download import Downloader
from imagine_plugins.pulling.hub import Plan, plan
from imagine_plugins.pulling.pull import Puller, checked_name
from imagine_plugins.pulling.retries import Retries
from imagine_plugins.pulling.web import Web


class Watch:
    """Counts."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.size = 0

    def expect(self, total: int | None) -> None:
        self.total = total

    def advance(self, size: int) -> None:
        self.size += size

    def say(self, text: str) -> None:
        pass


class Pulled(NamedTuple):
    """What came of a pull."""

    info: ModelInfo
    watch: Watch


@cache
def loaders() -> list[ModelLoader]:
    return list(build_plugins().loaders)


def catalogue(folder: Path) -> Catalogue:
    return Catalogue(folder, loaders=loaders())


def planned(server: FileServer, source: str, **options: str) -> Plan:
    return plan(source, Web(endpoint=server.url), endpoint=server.url, **options)


def pull(
    server: FileServer, folder: Path, source: str, *, name: str | None = None, **options: str
) -> Pulled:
    watch = Watch()
    downloader = Downloader(Web(endpoint=server.url), watch, pause=lambda _: None)
    judge = catalogue(folder).recognise
    puller = Puller(folder, downloader=downloader, judge=judge, watcher=watch)
    return Pulled(puller.pull(planned(server, source, **options), name=name), watch)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a diffusers folder, as a hub has them."""
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    write_folder(folder, TINY_SD1, dtype="F16")
    return files_under(folder)


def with_variants(files: Mapping[str, bytes], variant: str) -> dict[str, bytes]:
    """The same with weights in another variant and as pickles beside them."""
    more = {
        name.replace(".safetensors", f"{variant}.safetensors"): data
        for name, data in files.items()
        if name.endswith(".safetensors")
    }
    pickles = {name.replace(".safetensors", ".bin"): b"\x80\x02" for name in more}
    return {**files, **more, **pickles}


# -------------------------------------------------------------------------------- single files


def test_the_only_file_of_a_repository_becomes_a_model(
    server: FileServer, folder: Path, checkpoint: bytes
) -> None:
    server.add_repo("me/tiny", {"tiny-v1.safetensors": checkpoint, "README.md": b"# tiny"})
    info, watch = pull(server, folder, "me/tiny")
    assert (info.name, info.problem) == ("tiny-v1", None)
    assert info.path == folder / "tiny-v1.safetensors"
    assert files_under(folder) == {"tiny-v1.safetensors": checkpoint}
    assert (watch.size, watch.total) == (len(checkpoint), len(checkpoint))
    assert catalogue(folder).get("tiny-v1") == info


@pytest.mark.parametrize(
    "source",
    [
        "me/tiny/sub/b.safetensors",
        "hf.co/me/tiny/sub/b.safetensors",
        "{url}/me/tiny/blob/main/sub/b.safetensors",
        "{url}/me/tiny/resolve/main/sub/b.safetensors?download=true",
        "https://huggingface.co/me/tiny/blob/main/sub/b.safetensors",
    ],
)
def test_a_file_of_a_repository_can_be_named_in_many_ways(
    server: FileServer, folder: Path, checkpoint: bytes, source: str
) -> None:
    server.add_repo("me/tiny", {"a.safetensors": b"a", "sub/b.safetensors": checkpoint})
    info, _ = pull(server, folder, source.format(url=server.url), name="mine")
    assert info.path == folder / "mine.safetensors"


def test_a_url_of_any_server_becomes_a_model(
    server: FileServer, elsewhere: FileServer, folder: Path, checkpoint: bytes
) -> None:
    elsewhere.files["/a model.safetensors"] = Served(checkpoint)
    info, watch = pull(server, folder, f"{elsewhere.url}/a%20model.safetensors?key=1")
    assert info.path == folder / "a model.safetensors"
    assert watch.total == len(checkpoint)
    assert server.asked == []


def test_a_pull_that_fails_leaves_no_folder_that_was_not_there(
    server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    for folder in ("there", "new/models"):
        with pytest.raises(ServerFailed):
            pull(server, tmp_path / folder, f"{server.url}/missing.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert list((tmp_path / "there").iterdir()) == []


def test_several_files_are_named_for_a_choice(
    server: FileServer, folder: Path, checkpoint: bytes
) -> None:
    server.add_repo("me/two", {"a.safetensors": checkpoint, "b.safetensors": checkpoint})
    with pytest.raises(UnusableModel, match=r"name one of its files: a\.safetensors, b\.safe"):
        pull(server, folder, "me/two")


def test_a_file_that_is_not_there_is_answered_with_what_is(
    server: FileServer, folder: Path, checkpoint: bytes
) -> None:
    server.add_repo("me/tiny", {"a.safetensors": checkpoint})
    with pytest.raises(ServerFailed, match=r"no file 'b\.safetensors'; name one .* a\.safe"):
        pull(server, folder, "me/tiny/b.safetensors")


def test_a_revision_can_be_asked_for(server: FileServer, folder: Path, checkpoint: bytes) -> None:
    server.add_repo("me/tiny", {"a.safetensors": checkpoint})
    api = "/api/models/me/tiny/revision"
    server.files[f"{api}/v2"] = server.files.pop(f"{api}/main")
    assert pull(server, folder, "me/tiny", revision="v2").info.name == "a"
    with pytest.raises(ServerFailed, match="nothing at"):
        pull(server, folder, "me/tiny")


# ------------------------------------------------------------------------------------ folders


def test_a_pipeline_becomes_a_folder(
    server: FileServer, folder: Path, pipeline: dict[str, bytes]
) -> None:
    extra = {"README.md": b"#", "logo.png": b"png", "safety_checker/model.safetensors": b"x"}
    server.add_repo("me/pipeline", {**pipeline, **extra})
    info, watch = pull(server, folder, "me/pipeline")
    assert (info.name, info.problem, info.path) == ("pipeline", None, folder / "pipeline")
    assert files_under(folder / "pipeline") == pipeline
    assert watch.size == watch.total == sum(map(len, pipeline.values()))
    assert [path.name for path in folder.iterdir()] == ["pipeline"]


def test_half_precision_is_taken_where_there_is_a_choice(
    server: FileServer, folder: Path, pipeline: dict[str, bytes]
) -> None:
    server.add_repo("me/pipeline", with_variants(pipeline, ".fp16"))
    pull(server, folder, "me/pipeline")
    weights = {name for name in files_under(folder / "pipeline") if name.endswith(".safetensors")}
    assert weights
    assert all(".fp16." in name for name in weights)


@pytest.mark.parametrize(
    ("shard", "index"),
    [
        ("{stem}-0000{n}-of-00002.safetensors", "{stem}.safetensors.index.json"),
        ("{stem}.fp16-0000{n}-of-00002.safetensors", "{stem}.safetensors.index.fp16.json"),
        ("{stem}-0000{n}-of-00002.fp16.safetensors", "{stem}.safetensors.fp16.index.json"),
        ("{stem}-0000{n}-of-00002.fp16.safetensors", "{stem}.safetensors.index.fp16.json"),
    ],
)
def test_shards_are_taken_in_every_spelling_with_their_index(
    server: FileServer, folder: Path, pipeline: dict[str, bytes], shard: str, index: str
) -> None:
    stem = "unet/diffusion_pytorch_model"
    files = {**pipeline}
    halves = halved(files.pop(f"{stem}.safetensors"))
    files |= {shard.format(stem=stem, n=n): half for n, half in enumerate(halves, 1)}
    files[index.format(stem=stem)] = b'{"weight_map": {}}'
    stray = {
        f"{stem}.safetensors.index.bf16.json": b"{}",
        f"{stem}.non_ema.safetensors.index.json": b"{}",
        f"{stem}.bin.index.json": b"{}",
        f"{stem}.non_ema.safetensors": b"x",
    }
    server.add_repo("me/sharded", {**files, **stray})
    assert pull(server, folder, "me/sharded").info.problem is None
    assert files_under(folder / "sharded") == files


def halved(data: bytes) -> list[bytes]:
    """The tensors of a safetensors file, put into two files."""
    from safetensors.torch import load, save

    tensors = list(load(data).items())
    return [save(dict(tensors[::2])), save(dict(tensors[1::2]))]


def test_a_pipeline_whose_weights_are_pickles_gives_way_to_a_single_file(
    server: FileServer, folder: Path, pipeline: dict[str, bytes], checkpoint: bytes
) -> None:
    pickled = {name.replace(".safetensors", ".bin"): data for name, data in pipeline.items()}
    server.add_repo("me/old", {**pickled, "v1-5.safetensors": checkpoint})
    assert pull(server, folder, "me/old").info.path == folder / "v1-5.safetensors"
    server.add_repo("me/older", pickled)
    with pytest.raises(UnusableModel, match="pickles, and loading one runs whatever code"):
        pull(server, folder, "me/older")


def test_a_folder_that_was_interrupted_keeps_its_finished_files(
    server: FileServer, folder: Path, pipeline: dict[str, bytes]
) -> None:
    server.add_repo("me/pipeline", pipeline)
    unet = next(name for name in pipeline if name.startswith("unet/diff"))
    server.stored(pipeline[unet]).drops = [10**9, 300_000] + [0] * 10
    with pytest.raises(ServerFailed, match="goes on from there"):
        pull(server, folder, "me/pipeline")
    assert catalogue(folder).models() == []
    server.stored(pipeline[unet]).drops.clear()
    server.asked.clear()
    info, watch = pull(server, folder, "me/pipeline")
    assert info.problem is None
    assert files_under(folder) == {f"pipeline/{name}": data for name, data in pipeline.items()}
    assert watch.size == watch.total
    assert any(asked.headers.get("Range") for asked in server.asked)


def test_another_commit_is_no_continuation(
    server: FileServer, folder: Path, checkpoint: bytes
) -> None:
    other = checkpoint[:-1] + bytes([checkpoint[-1] ^ 1])
    server.add_repo("me/tiny", {"a.safetensors": other}, commit="1" * 40)
    server.stored(other).drops = [10**9, 100_000] + [0] * 10
    with pytest.raises(ServerFailed):
        pull(server, folder, "me/tiny")
    server.add_repo("me/tiny", {"a.safetensors": checkpoint}, commit="2" * 40)
    server.asked.clear()
    pull(server, folder, "me/tiny")
    assert files_under(folder) == {"a.safetensors": checkpoint}
    assert not any("Range" in asked.headers for asked in server.asked)


def test_paths_that_lead_out_of_the_folder_are_not_taken(
    server: FileServer, folder: Path, pipeline: dict[str, bytes]
) -> None:
    evil = {"unet/../../../evil.json": b"{}", "/etc/evil.json": b"{}", "unet/.hidden.json": b"{}"}
    server.add_repo("me/evil", {**pipeline, **evil})
    index = json.loads(pipeline["model_index.json"])
    index["unet/../../.."] = ["diffusers", "UNet2DConditionModel"]
    index["/etc"] = ["diffusers", "UNet2DConditionModel"]
    chosen = planned(server, "me/evil").files
    assert {remote.name for remote in chosen} == set(pipeline)
    pull(server, folder, "me/evil")
    assert files_under(folder.parent) == {
        f"models/evil/{name}": data for name, data in pipeline.items()
    }


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<!doctype html><title>Log in</title>" + b" " * 10**6, "web page"),
        (b"PK\x03\x04" + b"\0" * 10**6, "pickle under another name"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\0" * 10**6, "only zeros"),
        (b"{}", "JSON text"),
    ],
)
def test_what_is_no_model_is_refused_before_it_is_fetched(
    server: FileServer, folder: Path, data: bytes, says: str
) -> None:
    server.files["/a.safetensors"] = Served(data)
    with pytest.raises(UnusableModel, match=says):
        pull(server, folder, f"{server.url}/a.safetensors")
    assert len(server.asked) == 1
    assert files_under(folder) == {}


LORA_KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def lora(key: str = LORA_KEY) -> bytes:
    tensors = {f"{key}.lora_down.weight": (4, 768), f"{key}.lora_up.weight": (320, 4)}
    head, size = header_bytes(tensors)
    return head + bytes(size)


def test_a_lora_is_put_among_the_loras(server: FileServer, folder: Path) -> None:
    server.files["/style.safetensors"] = Served(lora())
    info = pull(server, folder, f"{server.url}/style.safetensors").info
    assert (info.kind, info.path) == ("lora", folder / "loras" / "style.safetensors")
    assert files_under(folder) == {"loras/style.safetensors": lora()}
    assert catalogue(folder).find("style").problem is None


def test_a_lora_is_called_as_its_repository_where_its_file_has_no_name_of_its_own(
    server: FileServer, folder: Path
) -> None:
    server.add_repo("me/style", {"pytorch_lora_weights.safetensors": lora()})
    assert pull(server, folder, "me/style").info.name == "style"


@pytest.mark.parametrize("file", ["learned_embeds", "embeddings"])
def test_an_embedding_is_put_among_the_embeddings_and_called_as_its_repository(
    server: FileServer, folder: Path, file: str
) -> None:
    head, size = header_bytes({"<cat-toy>": (768,)})
    server.add_repo("me/cat-toy", {f"{file}.safetensors": head + bytes(size)})
    info = pull(server, folder, "me/cat-toy").info
    assert (info.kind, info.name) == ("embedding", "cat-toy")
    assert files_under(folder) == {"embeddings/cat-toy.safetensors": head + bytes(size)}


def test_a_folder_of_loras_may_be_a_link_to_another_disk(
    server: FileServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(source: str, target: str) -> None:
        if is_far(source) != is_far(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    def is_far(path: str) -> bool:
        return tmp_path / "far" in Path(path).resolve().parents

    real = os.rename
    folder.mkdir()
    (tmp_path / "far").mkdir()
    (folder / "loras").symlink_to(tmp_path / "far")
    server.files["/style.safetensors"] = Served(lora())
    monkeypatch.setattr(os, "rename", rename)
    pull(server, folder, f"{server.url}/style.safetensors")
    assert files_under(tmp_path / "far") == {"style.safetensors": lora()}


def test_a_lora_for_another_family_is_refused_by_its_header_alone(
    server: FileServer, folder: Path
) -> None:
    served = lora("lora_unet_double_blocks_0_img_attn_qkv")
    server.files["/lora.safetensors"] = Served(served)
    with pytest.raises(UnusableModel, match=r"it is lora: .*LoRA for Flux, which is not supported"):
        pull(server, folder, f"{server.url}/lora.safetensors")
    assert len(server.asked) == 1
    assert not folder.exists()


def test_a_name_is_given_once_among_models_and_loras(
    server: FileServer, folder: Path, checkpoint: bytes
) -> None:
    server.files["/one.safetensors"] = Served(lora())
    server.add_repo("me/one", {"one.safetensors": checkpoint})
    pull(server, folder, f"{server.url}/one.safetensors")
    with pytest.raises(SettingsError, match="there is a lora 'one' already"):
        pull(server, folder, "me/one")


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "pytorch_model.bin", "model.gguf"])
def test_other_formats_are_refused_by_name(server: FileServer, folder: Path, name: str) -> None:
    with pytest.raises(UnusableModel, match="safetensors"):
        pull(server, folder, f"{server.url}/{name}")
    assert server.asked == []


def test_a_model_that_is_there_already_is_not_replaced(
    server: FileServer, folder: Path, checkpoint: bytes
) -> None:
    folder.mkdir()
    (folder / "tiny.safetensors").write_bytes(b"mine")
    server.add_repo("me/tiny", {"tiny.safetensors": checkpoint})
    with pytest.raises(SettingsError, match="there is a model 'tiny' already"):
        pull(server, folder, "me/tiny")
    assert pull(server, folder, "me/tiny", name="other").info.name == "other"


def test_a_disk_without_room_is_noticed_before_the_download(
    server: FileServer, folder: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_repo("me/tiny", {"tiny.safetensors": checkpoint})
    usage = type(shutil.disk_usage(folder.parent))(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="there is no room"):
        pull(server, folder, "me/tiny")
    assert files_under(folder) == {}
    assert not any("Range" in asked.headers for asked in server.asked)


@pytest.mark.parametrize("length", [10**16, 2**62])
def test_a_length_beyond_all_disks_is_no_room_either(
    server: FileServer, folder: Path, checkpoint: bytes, length: int
) -> None:
    server.files["/tiny.safetensors"] = Served(checkpoint, length=length)
    with pytest.raises(OSError, match="there is no room") as caught:
        pull(server, folder, f"{server.url}/tiny.safetensors")
    assert caught.value.filename == str(folder)
    assert files_under(folder) == {}


def test_a_size_that_no_file_can_have_is_not_believed(
    server: FileServer, folder: Path, checkpoint: bytes
) -> None:
    server.add_repo("me/tiny", {"tiny.safetensors": checkpoint})
    listing = server.files["/api/models/me/tiny/revision/main"]
    told = json.loads(listing.data)
    told["siblings"][0]["size"] = 10**4000
    listing.data = json.dumps(told).encode()
    info, _ = pull(server, folder, "me/tiny")
    assert info.size == len(checkpoint)


def test_a_model_that_two_pull_is_pulled_by_one(
    server: FileServer, folder: Path, checkpoint: bytes
) -> None:
    server.add_repo("me/tiny", {"tiny.safetensors": checkpoint})
    watch = Watch()
    downloader = Downloader(Web(endpoint=server.url), watch)
    puller = Puller(folder, downloader=downloader, judge=lambda _: None, watcher=watch)
    plan = planned(server, "me/tiny")
    folder.mkdir()
    with (
        puller._download_folder(plan),
        pytest.raises(ImagineError, match="another 'imagine pull' is fetching the same"),
    ):
        pull(server, folder, "me/tiny")


def test_a_hub_that_lies_about_a_hash_leaves_nothing(
    server: FileServer, folder: Path, checkpoint: bytes
) -> None:
    server.add_repo("me/tiny", {"tiny.safetensors": checkpoint})
    server.stored(checkpoint).data = checkpoint[:-4] + b"evil"
    with pytest.raises(ServerFailed, match="came damaged"):
        pull(server, folder, "me/tiny")
    assert files_under(folder) == {}


def test_a_hub_that_wants_a_login_says_how(server: FileServer, folder: Path) -> None:
    server.files["/api/models/me/gated/revision/main"] = Served(statuses=[401])
    with pytest.raises(ServerFailed, match="set HF_TOKEN"):
        pull(server, folder, "me/gated")


@pytest.mark.parametrize(
    "path", ["/api/models/{}/revision/main", "/{}/resolve/{}/model_index.json"]
)
def test_a_hub_that_is_busy_is_asked_again_as_late_as_it_wants(
    server: FileServer, folder: Path, pipeline: dict[str, bytes], path: str
) -> None:
    server.add_repo("me/pipeline", pipeline)
    busy = server.files[path.format("me/pipeline", COMMIT)]
    busy.statuses = [429, 503]
    busy.refusal = {"Retry-After": "17"}
    pauses: list[float] = []
    web = Web(endpoint=server.url, retries=Retries(pause=pauses.append))
    found = plan("me/pipeline", web, endpoint=server.url)
    assert {remote.name for remote in found.files} == set(pipeline)
    assert pauses == [17, 17]


def test_a_hub_that_stays_busy_is_given_up(server: FileServer) -> None:
    server.files["/api/models/me/busy/revision/main"] = Served(statuses=[503] * 20)
    pauses: list[float] = []
    web = Web(endpoint=server.url, retries=Retries(pause=pauses.append))
    with pytest.raises(ServerFailed, match=r"nothing came \(127\.0\.0\.1: 503 Service Unav"):
        plan("me/busy", web, endpoint=server.url)
    assert pauses == [1, 2, 4, 8]


def test_a_listing_that_comes_compressed_is_read(
    server: FileServer, folder: Path, checkpoint: bytes
) -> None:
    server.add_repo("me/tiny", {"tiny.safetensors": checkpoint})
    server.files["/api/models/me/tiny/revision/main"].encoding = "gzip"
    assert pull(server, folder, "me/tiny").info.name == "tiny"


@pytest.mark.parametrize("hub", [True, False])
def test_a_server_that_sends_parts_with_the_status_of_a_whole_is_pulled_from(
    server: FileServer, elsewhere: FileServer, folder: Path, checkpoint: bytes, *, hub: bool
) -> None:
    server.add_repo("me/tiny", {"tiny.safetensors": checkpoint})
    elsewhere.files["/tiny.safetensors"] = Served(checkpoint)
    stored = server.stored(checkpoint) if hub else elsewhere.files["/tiny.safetensors"]
    stored.partial, stored.drops = 200, [10**9, 100_000, *[0] * 10]
    source = "me/tiny" if hub else f"{elsewhere.url}/tiny.safetensors"
    with pytest.raises(ServerFailed, match="goes on from there"):
        pull(server, folder, source, name="tiny")
    stored.drops.clear()
    pull(server, folder, source, name="tiny")
    assert files_under(folder) == {"tiny.safetensors": checkpoint}
    kept = [*server.asked, *elsewhere.asked][-1]
    assert kept.headers["Range"] == "bytes=100000-"


@pytest.mark.parametrize(
    "answer", [b"[]", b"null", b"not json", b'{"siblings": [1]}', b"[" * 10**5]
)
def test_a_hub_that_speaks_otherwise_is_an_error(
    server: FileServer, folder: Path, answer: bytes
) -> None:
    server.files["/api/models/me/tiny/revision/main"] = Served(answer)
    with pytest.raises(ServerFailed):
        pull(server, folder, "me/tiny")


@pytest.mark.parametrize(
    "source", ["tiny", "a/../b", "me/", "/etc/passwd", "me/tiny/../x", "a b/c"]
)
def test_a_source_that_means_nothing_is_refused(
    server: FileServer, folder: Path, source: str
) -> None:
    with pytest.raises(SettingsError):
        pull(server, folder, source)
    assert server.asked == []


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "C:", "a\nb", "x" * 300])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="--name"):
        checked_name(name)

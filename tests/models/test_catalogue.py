"""Tests of imagine_core.models.catalogue."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoints import write_hollow
from imagine_core import hookimpl
from imagine_core.errors import NoModel, UnknownName, UnusableModel
from imagine_core.interfaces import ModelInfo, ModelLoader
from imagine_core.models.catalogue import Catalogue
from imagine_core.models.folders import KINDS, LABELS, folder_of
from imagine_core.models.stamps import has_changed, stamp_of
from imagine_core.plugins import build_plugins
from imagine_core.settings import default_models_folder
from imagine_core.testing import FakeLoader


def catalogue(folder: Path, *names: str, **options: str) -> Catalogue:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.fake").write_bytes(b"x")
    bundled = folder.parent / "bundled"
    bundled.mkdir(exist_ok=True)
    (bundled / "doodle.fake").write_bytes(b"x")
    return Catalogue(folder, bundled=[bundled], loaders=[FakeLoader()], **options)


def test_models_are_sorted_and_bundled_ones_among_them(tmp_path: Path) -> None:
    models = catalogue(tmp_path / "m", "zebra", "apple").models()
    assert [info.name for info in models] == ["apple", "doodle", "zebra"]


def test_a_users_model_wins_over_a_bundled_one_of_its_name(tmp_path: Path) -> None:
    found = catalogue(tmp_path / "m", "doodle").get("doodle")
    assert found.path.parent == tmp_path / "m"


def test_a_broken_file_does_not_hide_a_bundled_model_of_its_name(tmp_path: Path) -> None:
    models = catalogue(tmp_path / "m")
    (tmp_path / "m" / "doodle.lora").write_bytes(b"x")
    models._loaders = (RefuseFolder(tmp_path / "m"), *models._loaders)
    assert models.get("doodle").path.parent == tmp_path / "bundled"


def test_a_foreign_format_is_refused_without_its_suffix_as_well(tmp_path: Path) -> None:
    models = catalogue(tmp_path / "m")
    (tmp_path / "m" / "old.ckpt").touch()
    models._loaders = (Pickles(), *models._loaders)
    for name in ("old.ckpt", "Old"):
        with pytest.raises(UnusableModel, match=r"'old\.ckpt' cannot be used: a pickle"):
            models.get(name)


class Pickles(FakeLoader):
    """Knows that a .ckpt is a pickle."""

    def recognise(self, path: Path) -> ModelInfo | None:
        if path.suffix != ".ckpt":
            return None
        return ModelInfo(
            name=path.name, path=path, loader="fake", family="pickle", size=1, problem="a pickle"
        )


class RefuseFolder(FakeLoader):
    """Says that everything in one folder is broken."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def recognise(self, path: Path) -> ModelInfo | None:
        if path.parent != self.folder:
            return None
        return ModelInfo(
            name=path.stem, path=path, loader="fake", family="lora", size=1, problem="a LoRA"
        )


def test_names_are_found_in_any_case_and_near_misses_are_offered(tmp_path: Path) -> None:
    models = catalogue(tmp_path / "m", "dreamshaper_8")
    assert models.get("DreamShaper_8").name == "dreamshaper_8"
    with pytest.raises(UnknownName) as caught:
        models.get("dreamshaper")
    assert caught.value.nearest == ("dreamshaper_8",)


def test_a_name_is_never_a_path(tmp_path: Path) -> None:
    models = catalogue(tmp_path / "m", "a")
    for name in ("../m/a", str(tmp_path / "m" / "a.fake"), "a.fake", ""):
        with pytest.raises(UnknownName):
            models.get(name)


def test_an_unusable_model_says_why(tmp_path: Path) -> None:
    models = catalogue(tmp_path / "m", "broken")
    assert [info.name for info in models.usable()] == ["doodle"]
    with pytest.raises(UnusableModel, match="get another one"):
        models.get("broken")


@pytest.mark.parametrize(
    ("names", "default"), [((), "doodle"), (("mine",), "mine"), (("one", "two"), "doodle")]
)
def test_the_default_is_the_only_model_or_the_bundled_one(
    tmp_path: Path, names: tuple[str, ...], default: str
) -> None:
    assert catalogue(tmp_path / "m", *names).default().name == default


def test_a_configured_default_wins(tmp_path: Path) -> None:
    models = catalogue(tmp_path / "m", "one", "two", default_model="two")
    assert models.default().name == "two"


def test_a_missing_folder_is_a_problem_in_words_and_the_bundled_model_serves(
    tmp_path: Path,
) -> None:
    models = catalogue(tmp_path / "m")
    (tmp_path / "m").rmdir()
    assert "does not exist" in str(models.problem())
    assert models.default().name == "doodle"


def test_a_first_start_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Catalogue(default_models_folder()).problem() is None
    default_models_folder().parent.mkdir()
    default_models_folder().write_text("no folder")
    assert "is a file" in str(Catalogue(default_models_folder()).problem())


def test_a_file_in_place_of_the_folder_is_a_problem_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "is a file" in str(Catalogue(tmp_path / "file").problem())
    assert Catalogue(tmp_path).problem() is None


def test_a_file_is_recognised_once_until_it_changes(tmp_path: Path) -> None:
    asked: list[Path] = []

    class Counting(FakeLoader):
        def recognise(self, path: Path) -> ModelInfo | None:
            asked.append(path)
            return super().recognise(path)

    file = tmp_path / "a.fake"
    file.write_bytes(b"x")
    models = Catalogue(tmp_path, loaders=[Counting()])
    models.models()
    models.models()
    assert len(asked) == 1
    file.write_bytes(b"longer")
    os.utime(file, ns=(1, 1))
    models.models()
    assert len(asked) == 2


def test_a_loader_that_raises_is_named_and_hides_nobodys_models(tmp_path: Path) -> None:
    class Raising(FakeLoader):
        name = "bad"

        def recognise(self, path: Path) -> ModelInfo | None:
            if path.stem == "b":
                raise ValueError("no idea")
            return None

    for name in ("a.fake", "b.other"):
        (tmp_path / name).write_bytes(b"x")
    models = Catalogue(tmp_path, loaders=[Raising(), FakeLoader()])
    assert [info.name for info in models.usable()] == ["a"]
    with pytest.raises(UnusableModel, match="'bad' failed on it with ValueError"):
        models.get("b")


class Answering(FakeLoader):
    """Answers for files that end in .safetensors, with a problem or without."""

    def __init__(self, name: str, problem: str | None) -> None:
        super().__init__()
        self.name = name
        self.problem = problem

    def recognise(self, path: Path) -> ModelInfo | None:
        if path.suffix != ".safetensors":
            return None
        return ModelInfo(
            name=path.stem, path=path, loader="", family=self.name, size=1, problem=self.problem
        )


class Failing(Answering):
    """Fails on every file that it knows."""

    def recognise(self, path: Path) -> ModelInfo | None:
        if super().recognise(path) is None:
            return None
        raise ZeroDivisionError


USABLE, OTHER = Answering("usable", None), Answering("other", None)
REFUSING, SILENT = Answering("refusing", "not supported"), FakeLoader()
FAILING = Failing("failing", None)


@pytest.mark.parametrize(
    ("loaders", "winner"),
    [
        ((REFUSING, USABLE), "usable"),
        ((USABLE, REFUSING), "usable"),
        ((FAILING, REFUSING, SILENT, USABLE), "usable"),
        ((USABLE, OTHER), "usable"),
        ((OTHER, USABLE), "other"),
        ((SILENT, REFUSING), "refusing"),
        ((REFUSING, SILENT), "refusing"),
        ((REFUSING, Answering("second", "no")), "refusing"),
        ((FAILING, REFUSING), "refusing"),
        ((FAILING, SILENT), "failing"),
    ],
)
def test_the_first_loader_that_can_load_a_file_wins_over_those_that_cannot(
    tmp_path: Path, loaders: tuple[FakeLoader, ...], winner: str
) -> None:
    (tmp_path / "flux.safetensors").write_bytes(b"x")
    info = Catalogue(tmp_path, loaders=loaders).find("flux")
    assert info.loader == winner
    assert (info.problem is None) == (winner in {"usable", "other"})


class FluxPlugin:
    """A stranger's plugin whose name comes after that of the built-in loaders."""

    @hookimpl
    def register_model_loaders(self, register: Callable[[ModelLoader], None]) -> None:
        register(Answering("flux", None))


def test_a_strangers_loader_takes_a_file_that_the_built_in_ones_call_unsupported(
    tmp_path: Path,
) -> None:
    write_hollow(tmp_path / "flux1-dev.safetensors", {"double_layers.0.attn.w1q.weight": (8, 8)})
    alone = Catalogue(tmp_path, loaders=build_plugins().loaders).find("flux1-dev")
    assert (alone.loader, alone.family) == ("checkpoint", "auraflow")
    assert "AuraFlow, which is not supported" in (alone.problem or "")
    plugins = build_plugins(extra=[("loader-flux", FluxPlugin())])
    known = ["checkpoint", "folder", "lora", "embedding", "vae", "controlnet", "upscaler", "flux"]
    assert plugins.loaders.names() == known
    assert Catalogue(tmp_path, loaders=plugins.loaders).get("flux1-dev").loader == "flux"


def test_a_loader_that_answers_nonsense_hides_nobodys_models(tmp_path: Path) -> None:
    class Nonsense(FakeLoader):
        def recognise(self, path: Path) -> ModelInfo | None:
            return "flux" if path.suffix == ".safetensors" else None  # type: ignore[return-value]

    (tmp_path / "flux.safetensors").write_bytes(b"x")
    assert Catalogue(tmp_path, loaders=[Nonsense(), USABLE]).get("flux").loader == "usable"
    problem = Catalogue(tmp_path, loaders=[Nonsense()]).find("flux").problem
    assert problem == "loader 'fake' failed on it with TypeError"


def test_a_folder_changes_when_a_file_inside_it_or_its_sidecar_does(tmp_path: Path) -> None:
    folder = tmp_path / "sd-v1.5"
    (folder / "unet").mkdir(parents=True)
    weights = folder / "unet" / "model.safetensors"
    weights.write_bytes(b"old")
    stamps = [stamp_of(folder)]
    weights.write_bytes(b"newer")
    stamps.append(stamp_of(folder))
    (tmp_path / "sd-v1.5.json").write_text("{}")
    stamps.append(stamp_of(folder))
    assert len(set(stamps)) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="keeps no time of the change itself")
@pytest.mark.parametrize("way", ["renamed over it", "written into it"])
def test_a_file_replaced_by_one_of_its_size_and_time_has_changed(tmp_path: Path, way: str) -> None:
    file, other = tmp_path / "model.fake", tmp_path / "other"
    file.write_bytes(b"old")
    stamp, status = stamp_of(file), file.stat()
    time.sleep(0.02)  # the clock of file systems ticks in steps of up to 10 ms
    (other if way == "renamed over it" else file).write_bytes(b"new")
    if other.exists():
        other.replace(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_mtime_ns == status.st_mtime_ns
    assert has_changed(file, stamp)


@pytest.mark.skipif(sys.platform in {"darwin", "win32"}, reason="file names are text there")
def test_a_file_name_that_is_no_text_is_a_problem_and_shown_in_text(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9.fake")).write_bytes(b"x")
    models = catalogue(tmp_path, "good")
    assert [info.name for info in models.models()] == [r"d\xe9", "doodle", "good"]
    assert [info.name for info in models.usable()] == ["doodle", "good"]
    with pytest.raises(UnusableModel, match="not valid UTF-8"):
        models.get(r"d\xe9")


@pytest.mark.parametrize("name", ["gone.fake", "gone"], ids=["file", "folder"])
def test_a_link_to_nothing_is_shown_as_one(tmp_path: Path, name: str) -> None:
    models = catalogue(tmp_path / "m", "good")
    (tmp_path / "m" / name).symlink_to(tmp_path / "unplugged" / name)
    assert [info.name for info in models.usable()] == ["doodle", "good"]
    with pytest.raises(UnusableModel, match="points to nothing"):
        models.get("gone")
    (tmp_path / "unplugged").mkdir()
    (tmp_path / "unplugged" / name).write_bytes(b"x")
    if name.endswith(".fake"):
        assert models.get("gone").problem is None


@pytest.mark.parametrize("name", ["notes.txt", ".cache"])
def test_a_link_to_nothing_that_was_no_models_is_not_shown(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    assert Catalogue(tmp_path, loaders=[FakeLoader()]).models() == []


def test_with_no_model_at_all_the_default_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoModel, match="imagine pull"):
        Catalogue(tmp_path, loaders=[FakeLoader()]).default()


def test_with_several_models_and_no_default_they_are_named(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.fake").write_bytes(b"x")
    with pytest.raises(NoModel, match="'a', 'b'") as caught:
        Catalogue(tmp_path, loaders=[FakeLoader()]).default()
    assert caught.value.nearest == ("a", "b")


# ------------------------------------------------------------------------------ other kinds


class Parts(FakeLoader):
    """A stranger's format of LoRAs: `NAME.part2`."""

    name = "parts"
    kind = "lora"

    def recognise(self, path: Path) -> ModelInfo | None:
        if path.suffix != ".part2":
            return None
        return ModelInfo(
            name=path.stem,
            path=path,
            loader="",
            kind=self.kind,
            family="sd1",
            fits=("sd1", "sd2"),
            size=1,
            problem="it is broken" if "broken" in path.stem else None,
        )


def with_parts(folder: Path, *names: str, loader: Parts | None = None) -> Catalogue:
    models = catalogue(folder)
    (folder / "loras").mkdir()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    models._loaders = (*models._loaders, loader or Parts())
    return models


def test_a_strangers_lora_is_no_model(tmp_path: Path) -> None:
    models = with_parts(tmp_path / "m", "loras/style.part2", "loras/broken.part2")
    assert [info.name for info in models.models()] == ["doodle"]
    assert models.default().name == "doodle"
    assert [info.name for info in models.models("lora")] == ["broken", "style"]
    assert [info.name for info in models.usable("lora")] == ["style"]
    assert models.find("STYLE").kind == "lora"
    assert models.find("style", "lora").loader == "parts"
    for name, kind in (("style", "model"), ("doodle", "lora")):
        with pytest.raises(UnknownName, match=f"unknown {LABELS[kind]} '{name}'"):
            models.find(name, kind)
    for ask in (models.get, models.match):
        for name in ("style", "broken"):
            with pytest.raises(UnusableModel, match=r"this is a LoRA.* of sd1, sd2"):
                ask(name)


def test_what_lies_in_the_folder_of_another_kind_says_where_it_belongs(tmp_path: Path) -> None:
    models = with_parts(tmp_path / "m", "style.part2", "loras/of/mine/tiny.fake")
    (style,) = [info for info in models.models() if info.problem]
    assert (style.kind, style.family) == ("model", "lora")
    assert "it belongs in the folder loras/ beside the checkpoints" in (style.problem or "")
    (tiny,) = models.models("lora")
    assert (tiny.kind, tiny.family, tiny.fits) == ("lora", "fake", ())
    assert tiny.problem == "this is a model; it belongs in the models folder itself"


def test_a_model_wins_over_a_lora_of_its_name(tmp_path: Path) -> None:
    models = with_parts(tmp_path / "m", "same.fake", "loras/same.part2")
    assert models.get("same").kind == models.find("same").kind == "model"
    assert models.find("same", "lora").path.suffix == ".part2"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "model"])
def test_plugins_bring_files_of_each_kind_in_the_same_folders(tmp_path: Path, kind: str) -> None:
    loader = Parts()
    loader.kind = kind
    models = with_parts(tmp_path / "m", loader=loader)
    theirs = folder_of(tmp_path / "bundled", kind)
    theirs.mkdir()
    (theirs / "theirs.part2").write_bytes(b"x")
    assert [info.name for info in models.usable(kind)] == ["theirs"]
    assert [info.name for info in models.models()] == ["doodle"]


def test_loras_lie_in_folders_inside_theirs_but_models_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    models = with_parts(
        folder, "loras/a.part2", "loras/styles/b.part2", "loras/.hidden/c.part2", "sub/d.fake"
    )
    (folder / "loras" / "styles" / "again").symlink_to(folder / "loras")
    assert [info.name for info in models.usable("lora")] == ["a", "b"]
    assert "d" not in [info.name for info in models.models()]


@pytest.mark.parametrize("text", ["b", "B", "b.part2", "styles/b.part2", "styles/b"])
def test_a_lora_is_meant_by_its_name_or_file(tmp_path: Path, text: str) -> None:
    models = with_parts(tmp_path / "m", "loras/styles/b.part2")
    assert models.match(text, "lora").name == "b"


def test_loras_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    models = with_parts(tmp_path / "m", "loras/b.part2", "loras/a/b.part2", "loras/a/c/b.part2")
    assert [info.name for info in models.usable("lora")] == ["a/b", "a/c/b", "b"]
    for name in ("b", "a/b", "A/b.part2", "a\\c\\b"):
        found = models.match(name, "lora")
        assert found.path.relative_to(tmp_path / "m" / "loras").with_suffix("").as_posix() == (
            name.lower().replace("\\", "/").removesuffix(".part2")
        )
        assert models.find(name, "lora") == found
    for name in ("x/b", "b.other", "c/b", "/b"):
        with pytest.raises(UnknownName):
            models.match(name, "lora")


def test_a_name_with_a_dot_is_no_name_with_an_ending(tmp_path: Path) -> None:
    models = with_parts(tmp_path / "m", "loras/ink.part2", "loras/ink.v2.part2", "tiny.fake")
    assert models.match("ink.v2", "lora").name == "ink.v2"
    assert models.match("ink.v2.pt", "lora").name == "ink.v2"
    for name in ("ink.v3", "-zzz", "nothing [-1]", "ink.v2.v2"):
        with pytest.raises(UnknownName):
            models.match(name, "lora")
    assert models.match("tiny.safetensors").name == "tiny"
    for name in ("tiny.anything", "-x", "realistic [-]"):
        with pytest.raises(UnknownName):
            models.match(name)


def test_capitals_tell_loras_apart_that_nothing_else_does(tmp_path: Path) -> None:
    models = with_parts(tmp_path / "m", "loras/Wool.part2", "loras/sub/wool.part2")
    assert models.match("wool", "lora").path.name == "Wool.part2"
    assert models.match("sub/wool", "lora").path.name == "wool.part2"


def test_a_link_that_may_not_be_followed_is_listed_with_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = with_parts(tmp_path / "m", "loras/good.part2")
    link = tmp_path / "m" / "loras" / "link.part2"
    link.symlink_to(tmp_path / "closed" / "x.part2")
    stat = Path.stat

    def refuse(path: Path, **how: Any) -> Any:
        if path == link and how.get("follow_symlinks", True):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", refuse)
    listed = {info.name: info.problem for info in models.models("lora")}
    assert listed == {"good": None, "link": "it cannot be read: Permission denied"}


def test_a_kind_that_is_not_known_is_a_problem_of_its_file(tmp_path: Path) -> None:
    loader = Parts()
    loader.kind = "poem"
    models = with_parts(tmp_path / "m", "a.part2", loader=loader)
    assert models.find("a").problem == "loader 'parts' takes it for 'poem', which is no known kind"


def test_a_folder_of_loras_may_be_missing_and_no_file(tmp_path: Path) -> None:
    models = catalogue(tmp_path / "m")
    assert (models.problem("lora"), models.models("lora")) == (None, [])
    (tmp_path / "m" / "loras").touch()
    assert models.problem("lora") == f"the models folder {tmp_path}/m/loras is a file"
    assert models.models("lora") == []

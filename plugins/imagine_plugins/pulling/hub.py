"""Resolves a name or a URL to the files to fetch: one checkpoint, or a diffusers folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from imagine_core.errors import ServerFailed, SettingsError, UnusableModel
from imagine_plugins.loaders.checkpoint import OTHER_FILES
from imagine_plugins.loaders.folder import INDEX
from imagine_plugins.loaders.weight_names import index_files, weight_files
from imagine_plugins.pulling.download import Remote
from imagine_plugins.pulling.web import Web, parts_of, shown

ENDPOINT = "https://huggingface.co"
HUB_HOSTS = {"huggingface.co", "www.huggingface.co", "hf.co"}
REVISION = "main"
SUFFIX = ".safetensors"

VARIANTS = (".fp16", "", ".bf16")
"""In the order of preference: half precision halves the download, and models compute in it."""

NOT_NEEDED = {"safety_checker", "feature_extractor", "image_encoder"}
CONFIGURATION = {".json", ".txt"}
PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
NAMELESS = {
    *("pytorch_lora_weights", "adapter_model", "diffusion_pytorch_model"),
    *("learned_embeds", "embeddings"),
}
"""What trainers call every LoRA, embedding or VAE; it is called as its repository is instead."""

MOST_NAMED = 8
LARGEST = 2**63 - 1
"""The largest file size that systems have; JSON may state a larger number."""

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The files to fetch for one model.

    Attributes:
        identity: Names the source, regardless of its revision.
        version: Names the revision; files of different versions are never joined.
        name: The default name of the model.
        folder: Whether it is a folder of files, or one file.
        files: The files; `name` is their path inside the folder.
    """

    identity: str
    version: str
    name: str
    folder: bool
    files: Sequence[Remote]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A repository, and perhaps a file in it."""

    repo: str
    revision: str
    file: str | None = None


def plan(source: str, web: Web, *, endpoint: str = ENDPOINT, revision: str | None = None) -> Plan:
    """The files that `source` names: "owner/name", "owner/name/file", or an https URL.

    Raises:
        SettingsError: It is neither.
        UnusableModel: It is something that Imagine does not load.
        ServerFailed: The server does not have it.
    """
    place = _place(source, endpoint, revision)
    if place is None:
        return _from_url(source)
    repository = Repository.ask(place, web, endpoint=endpoint)
    if place.file is not None:
        return repository.file(place.file)
    if INDEX in repository.sizes:
        index = web.json(repository.url(INDEX))
        folder = repository.folder(index if isinstance(index, dict) else {})
        if folder is not None:
            return folder
    return repository.only_file()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """The files of a repository at one commit.

    Attributes:
        name: "owner/name".
        endpoint: Its server.
        commit: The commit.
        sizes: The bytes of each file, None where not stated.
        hashes: The sha256 of the large ones.
    """

    name: str
    endpoint: str
    commit: str
    sizes: Mapping[str, int | None]
    hashes: Mapping[str, str]

    @classmethod
    def ask(cls, place: _Place, web: Web, *, endpoint: str) -> Repository:
        """Ask the server for the files of a repository."""
        url = f"{endpoint}/api/models/{place.repo}/revision/{quote(place.revision, safe='')}"
        answer = web.json(f"{url}?blobs=true")
        try:
            files = {each["rfilename"]: each for each in answer["siblings"]}
            return cls(
                name=place.repo,
                endpoint=endpoint,
                commit=str(answer.get("sha") or place.revision),
                sizes={name: _size(each) for name, each in files.items() if _is_safe(name)},
                hashes={
                    name: str(each["lfs"]["sha256"])
                    for name, each in files.items()
                    if (each.get("lfs") or {}).get("sha256")
                },
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ServerFailed(f"{shown(url)} does not list files as a model hub does") from error

    def url(self, name: str) -> str:
        """The URL of a file."""
        return f"{self.endpoint}/{self.name}/resolve/{quote(self.commit, safe='')}/{quote(name)}"

    def file(self, name: str) -> Plan:
        """A plan of one file of the repository."""
        _refuse_other_formats(name)
        if name not in self.sizes:
            raise ServerFailed(f"{self.name} has no file {name[:200]!r}; {self._what_there_is()}")
        remote = self._remote(name, PurePosixPath(name).name)
        stem = PurePosixPath(name).stem
        if stem in NAMELESS:
            stem = self.name.partition("/")[2]
        return self._plan(stem, [remote], file=name)

    def only_file(self) -> Plan:
        """A plan of the only checkpoint at the top of the repository."""
        top = [name for name in self.sizes if name.endswith(SUFFIX) and "/" not in name]
        if len(top) == 1:
            return self.file(top[0])
        raise UnusableModel(self.name, self._what_there_is())

    def folder(self, index: Mapping[str, Any]) -> Plan | None:
        """The files of a diffusers pipeline, or None if its weights are not in safetensors."""
        components = [
            name
            for name, value in index.items()
            if isinstance(value, list) and all(value) and name not in NOT_NEEDED
        ]
        chosen = [INDEX]
        for component in components:
            files = list(self._component(component))
            if not files and self._weights_of(component):
                return None
            chosen += files
        remotes = [self._remote(name, name) for name in chosen]
        return self._plan(self.name.partition("/")[2], remotes, file=None)

    def _component(self, component: str) -> Iterator[str]:
        """The configuration and the weights of a component; empty if all weights are pickles."""
        names = {PurePosixPath(name).name: name for name in self._under(component)}
        chosen = weight_files(names, variants=VARIANTS)
        if self._weights_of(component) and not chosen:
            return
        indices = index_files(chosen)
        for short, name in names.items():
            configures = PurePosixPath(short).suffix in CONFIGURATION
            if short in chosen or short in indices or (configures and ".index." not in short):
                yield name

    def _weights_of(self, component: str) -> list[str]:
        return [
            name
            for name in self._under(component)
            if PurePosixPath(name).suffix in {SUFFIX, *PICKLES}
        ]

    def _under(self, component: str) -> list[str]:
        return [name for name in self.sizes if PurePosixPath(name).parent.as_posix() == component]

    def _remote(self, name: str, here: str) -> Remote:
        return Remote(
            url=self.url(name), name=here, size=self.sizes[name], sha256=self.hashes.get(name)
        )

    def _plan(self, name: str, files: Sequence[Remote], *, file: str | None) -> Plan:
        return Plan(
            identity=f"{self.endpoint}/{self.name}/{file or ''}",
            version=self.commit,
            name=name,
            folder=file is None,
            files=files,
        )

    def _what_there_is(self) -> str:
        """Tells the user which files of the repository a pull could name."""
        models = [name for name in self.sizes if name.endswith(SUFFIX) and "/" not in name]
        if models:
            more = f" and {len(models) - MOST_NAMED} more" if len(models) > MOST_NAMED else ""
            return f"name one of its files: {', '.join(models[:MOST_NAMED])}{more}"
        if any(PurePosixPath(name).suffix in PICKLES for name in self.sizes):
            return (
                "its weights are pickles, and loading one runs whatever code it holds; "
                "look for a copy in safetensors"
            )
        return "it has no safetensors files"


def _place(source: str, endpoint: str, revision: str | None) -> _Place | None:
    """The place in a hub that `source` names; None if it is a URL of another server."""
    if "://" in source:
        parts = parts_of(source)
        if parts.hostname not in {*HUB_HOSTS, urlsplit(endpoint).hostname}:
            return None
        return _from_page(unquote(parts.path).strip("/").split("/"), source, revision)
    text = source.removeprefix("hf.co/").removeprefix("huggingface.co/").rstrip("/")
    owner, _, rest = text.partition("/")
    name, _, file = rest.partition("/")
    if not REPO.fullmatch(f"{owner}/{name}") or (file and not _is_safe(file)):
        raise SettingsError(
            f"{source[:200]!r} is neither OWNER/NAME of a repository, OWNER/NAME/FILE, nor a URL"
        )
    return _Place(repo=f"{owner}/{name}", revision=revision or REVISION, file=file or None)


def _from_page(parts: list[str], source: str, revision: str | None) -> _Place | None:
    """The place that the URL of a hub's page shows."""
    match parts:
        case [owner, name]:
            file = None
            at = REVISION
        case [owner, name, "tree", at]:
            file = None
        case [owner, name, "blob" | "resolve", at, *path] if path:
            file = "/".join(path)
        case _:
            return None
    if not REPO.fullmatch(f"{owner}/{name}") or (file is not None and not _is_safe(file)):
        raise SettingsError(f"{source[:200]!r} is no repository and no file of one")
    return _Place(repo=f"{owner}/{name}", revision=revision or at, file=file)


def _from_url(url: str) -> Plan:
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    _refuse_other_formats(name)
    stem = name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else name
    remote = Remote(url=url, name=f"{stem}{SUFFIX}")
    return Plan(identity=url, version="", name=stem, folder=False, files=[remote])


def _refuse_other_formats(name: str) -> None:
    """Refuse a file by its suffix if no loader takes it, before anything is fetched."""
    found = OTHER_FILES.get(PurePosixPath(name).suffix.lower())
    if found is not None:
        raise UnusableModel(name, found[1])


def _is_safe(name: object) -> bool:
    """Whether a path of a repository stays inside the folder it will be written to."""
    if not isinstance(name, str) or "\\" in name or ":" in name or not name.isprintable():
        return False
    parts = name.split("/")
    return all(part and part not in (".", "..") and not part.startswith(".") for part in parts)


def _size(entry: Mapping[str, Any]) -> int | None:
    size = entry.get("size")
    is_size = isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= LARGEST
    return size if is_size else None

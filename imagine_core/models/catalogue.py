"""The catalogue: which models and LoRAs there are, by name, from their headers alone."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from imagine_core.errors import ImagineError, NoModel, UnknownName, UnusableModel
from imagine_core.interfaces import ModelInfo, ModelLoader
from imagine_core.models.folders import FOLDERS, KINDS, LABELS, folder_of
from imagine_core.models.hashing import known_hash
from imagine_core.models.recognition import UNREADABLE, askable, recognise, unreadable
from imagine_core.models.remembered import Remembered
from imagine_core.models.stamps import Stamp, stamp_of
from imagine_core.settings import default_models_folder

__all__ = [
    "Catalogue",
]

log = logging.getLogger("imagine")

MOST_FOLDERS = 500
ENDINGS = frozenset((".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf"))
DANGLING = "this is a link that points to nothing; mend it or delete it"


class Catalogue:
    """The models in the user's folder and in those that plugins bring, and what changes them.

    Files of other kinds than "model" lie in folders of their own inside those, and are never
    among the models. The folders are listed again for every request, because users drop files
    into them; a file is recognised once, and again when it changes.

    Args:
        folder: The user's models; may be missing.
        bundled: Folders that come with plugins.
        loaders: The registered model formats.
        default_model: The name that `default` answers with, if there is one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        bundled: Sequence[Path] = (),
        loaders: Iterable[ModelLoader] = (),
        default_model: str | None = None,
    ) -> None:
        self.folder = folder
        self._bundled = tuple(bundled)
        self._loaders = tuple(loaders)
        self._default = default_model
        self._known: dict[Path, tuple[Stamp, ModelInfo | None]] = {}
        self._remembered = Remembered(self._loaders)

    def problem(self, kind: str = "model") -> str | None:
        """What is wrong with the user's folder of `kind`, or None.

        The default folder may be missing, and so may those of other kinds than "model".
        """
        folder = folder_of(self.folder, kind)
        try:
            next(folder.iterdir(), None)
        except FileNotFoundError:
            if kind != "model" or folder == default_models_folder():
                return None
            return f"the models folder {folder} does not exist"
        except NotADirectoryError:
            return f"the models folder {folder} is a file"
        except OSError as error:
            return f"the models folder {folder} cannot be read: {error.strerror}"
        return None

    def models(self, kind: str = "model") -> list[ModelInfo]:
        """Every recognised file and folder of `kind` by name, usable or not."""
        found: dict[str, ModelInfo] = {}
        for info in self._scan(kind):
            key = info.name.casefold()
            if key not in found or (found[key].problem and not info.problem):
                found[key] = info
        self._remembered.save()
        return sorted(found.values(), key=lambda info: info.name)

    def usable(self, kind: str = "model") -> list[ModelInfo]:
        """The models that can make pictures; or what of another kind they can use."""
        return [info for info in self.models(kind) if info.problem is None]

    def get(self, name: str) -> ModelInfo:
        """The usable model called `name`; raises `UnknownName` or `UnusableModel`."""
        info = self._named(name, "model") or self._part(name)
        if info is None:
            raise UnknownName("model", name, known=[i.name for i in self.usable()])
        if info.problem is not None:
            raise UnusableModel(info.name, info.problem)
        return info

    def find(self, name: str, kind: str | None = None) -> ModelInfo:
        """The file of `kind` called `name`, usable or not; raises `UnknownName`.

        Of any kind where `kind` is None, a model before others of its name. Files of foreign
        formats keep their suffix in the list, and are found without it as well.
        """
        kinds = tuple(KINDS) if kind is None else (kind,)
        for each in kinds:
            info = self._named(name, each)
            if info is not None:
                return info
        known = [info.name for each in kinds for info in self.usable(each)]
        raise UnknownName(LABELS[kinds[0]], name, known=known)

    def _named(self, name: str, kind: str) -> ModelInfo | None:
        if kind != "model" and (info := self._of_file(name, kind)) is not None:
            return info
        models, wanted = self.models(kind), name.casefold()
        for info in models:
            if info.name.casefold() == wanted:
                return info
        for info in models:
            if info.problem is not None and info.path.stem.casefold() == wanted:
                return info
        return None

    def _part(self, name: str) -> ModelInfo | None:
        """What is called `name` and is no model, with that as its problem."""
        for kind in KINDS:
            info = None if kind == "model" else self._named(name, kind)
            if info is not None:
                fits = f"; it is for models of {', '.join(info.fits)}" if info.fits else ""
                return replace(info, problem=f"{KINDS[kind]}{fits}")
        return None

    def match(self, text: str, kind: str = "model") -> ModelInfo:
        """The usable file of `kind` that other programs mean by `text`.

        A name, a file name, one in a folder, a hash of ten digits or more, or "FILE [HASH]", in any
        case. Raises `UnknownName`, or `UnusableModel` where it is the name of what is no such file.
        """
        wanted = text[:1000].strip()
        name, bracket, digits = wanted.removesuffix("]").rpartition(" [")
        forms = (wanted, name) if bracket else (wanted,)
        for each in forms:
            info = self._of_model(each) if kind == "model" else self._of_file(each, kind)
            if info is not None:
                return info
        for info in self.usable(kind):
            known = known_hash(info.path)
            if known is not None and (digits if bracket else wanted).lower().startswith(known):
                return info
        stem = Path(forms[-1]).stem
        other = self._part(stem) if kind == "model" else self._named(stem, kind)
        if other is not None and other.problem is not None:
            raise UnusableModel(other.name, other.problem, kind=LABELS[kind])
        usable = self.usable(kind)
        names = [info.path.name if kind == "model" else info.name for info in usable]
        raise UnknownName(LABELS[kind], text, known=names)

    def _of_model(self, wanted: str) -> ModelInfo | None:
        """The usable model of that name or file, which other programs may say with its folder."""
        usable, wanted = self.usable(), wanted.casefold()
        for info in usable:
            if wanted in (info.path.name.casefold(), info.name.casefold()):
                return info
        bare = _without_ending(wanted)
        return next((info for info in usable if info.name.casefold() == bare), None)

    def _of_file(self, wanted: str, kind: str) -> ModelInfo | None:
        """The usable file of that name, without a look at all the others.

        With or without its ending and the folders that it lies in; capitals tell those apart that
        nothing else does.
        """
        wanted = wanted.replace("\\", "/")
        name = wanted.rpartition("/")[2].casefold()
        stems = {name, Path(name).stem}
        found = [info for info in self._scan(kind, stems=stems) if info.problem is None]
        bare = wanted.removesuffix(Path(wanted).suffix)
        forms = {wanted, bare} if Path(wanted).suffix.lower() in ENDINGS else {wanted}
        for same in (str, str.casefold):
            for info in found:
                inside = self._inside(info.path, kind)
                names = {info.name, info.name + info.path.suffix, inside, inside + info.path.suffix}
                if set(map(same, forms)) & set(map(same, names)):
                    return info
        return None

    def _inside(self, path: Path, kind: str) -> str:
        """The name of a file with the folders that it lies in, inside the folder of its kind."""
        for models in (self.folder, *self._bundled):
            if path.is_relative_to(folder := folder_of(models, kind)):
                return path.relative_to(folder).with_suffix("").as_posix()
        return path.stem

    def match_or_default(self, *texts: object) -> tuple[ModelInfo | None, list[str]]:
        """The first model that one of `texts` means, else the default one; None without any.

        Empty texts mean none; for those that mean an unknown model, there are warnings.
        """
        problems: list[ImagineError] = []
        found: ModelInfo | None = None
        for text in filter(None, texts):
            try:
                found = self.match(str(text))
                break
            except (UnknownName, UnusableModel) as error:
                problems.append(error)
        if found is None:
            with suppress(UnknownName, UnusableModel):
                found = self.default()
        instead = "" if found is None else f"; {found.name!r} draws instead"
        return found, [f"{problem}{instead}" for problem in problems]

    def default(self) -> ModelInfo:
        """The model of a request that names none.

        The configured one; else the only one in the user's folder; else the bundled one. Raises
        `NoModel` where that is none.
        """
        if self._default is not None:
            return self.get(self._default)
        usable = self.usable()
        own = [info for info in usable if info.path.parent == self.folder]
        bundled = [info for info in usable if info.path.parent != self.folder]
        for candidates in (own if len(own) == 1 else [], bundled):
            if candidates:
                return candidates[0]
        raise NoModel(known=[info.name for info in usable])

    def _scan(self, kind: str, *, stems: Container[str] | None = None) -> Iterator[ModelInfo]:
        """What lies in the folders of `kind`, or the files of those stems.

        Of several LoRAs of a name, those in folders inside have these in their names.
        """
        taken = set()
        for path in self._paths(kind):
            if stems is not None and path.stem.casefold() not in stems:
                continue
            info = self._recognise(path, kind)
            if info is None:
                continue
            if kind != "model" and info.problem is None:
                if info.name.casefold() in taken:
                    info = replace(info, name=self._inside(path, kind))
                taken.add(info.name.casefold())
            yield info

    def _paths(self, kind: str) -> Iterator[Path]:
        """What may be a file of `kind`, but for "model" in folders inside its folder too."""
        for models in (self.folder, *self._bundled):
            yield from self._within(folder_of(models, kind), kind, set())

    def _within(self, folder: Path, kind: str, seen: set[Path]) -> Iterator[Path]:
        try:
            seen.add(folder.resolve())
            paths = sorted(folder.iterdir(), key=_files_first)
        except (OSError, RuntimeError):  # `problem` says it in words
            return
        others = {folder / name for name in FOLDERS.values() if name and kind == "model"}
        for path in paths:
            if path in others:
                continue
            yield path
            inner = kind != "model" and len(seen) < MOST_FOLDERS and _leads_on(path, seen)
            if inner and self._recognise(path, kind) is None:
                yield from self._within(path, kind, seen)

    def _recognise(self, path: Path, kind: str) -> ModelInfo | None:
        if path.is_symlink() and not _exists(path):
            return self._dangling(path, kind)
        try:
            stamp = stamp_of(path)
        except FileNotFoundError:  # removed since it was listed
            return None
        except OSError as error:
            problem = f"it cannot be read: {error.strerror}"
            return replace(askable(unreadable(path, "?", problem)), kind=kind)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = (stamp, self._look(path, kind, stamp))
            self._known[path] = known
        return known[1]

    def _look(self, path: Path, kind: str, stamp: Stamp) -> ModelInfo | None:
        """`recognise`, or what it said the last time: people have hundreds of LoRAs."""
        if kind == "model":
            return self.recognise(path, kind)
        info = self._remembered.get(path, kind, stamp)
        if info is None:
            info = self.recognise(path, kind)
            if info is not None and info.family != UNREADABLE:  # which may be better next time
                self._remembered.put(info, kind, stamp)
        return info

    def _dangling(self, path: Path, kind: str) -> ModelInfo | None:
        """A link to nothing as an unusable model, if its name may be a model's."""
        info = self.recognise(path, kind)
        if info is None and not path.suffix and not path.name.startswith("."):  # a folder, perhaps
            info = askable(unreadable(path, "?", DANGLING))
        return info and replace(info, kind=kind, size=0, problem=DANGLING)

    def recognise(self, path: Path, kind: str | None = None) -> ModelInfo | None:
        """What the loaders say of `path`; None if none of them knows it.

        In the order of their registration: the first that can use it, else the first that says
        why it cannot, else the first that failed.

        Args:
            path: A file or a folder, wherever it lies.
            kind: What it is taken for; what is usable as another kind has that as its problem.
                None for whatever it is.
        """
        return recognise(self._loaders, path, kind)


def _without_ending(name: str) -> str:
    """A file's name without the folder and the ending that other programs give it."""
    path = Path(name)
    return path.stem if path.suffix in ENDINGS else name


def _exists(path: Path) -> bool:
    """Whether a link leads to something, which may not be ours to read."""
    try:
        return path.exists()
    except OSError:
        return True


def _files_first(path: Path) -> tuple[bool, Path]:
    try:
        return path.is_dir(), path
    except OSError:
        return False, path


def _leads_on(path: Path, seen: set[Path]) -> bool:
    """Whether `path` is a folder to look into; a link may lead back to one that was."""
    try:
        return not path.name.startswith(".") and path.is_dir() and path.resolve() not in seen
    except (OSError, RuntimeError):
        return False

"""Registry: what plugins registered under a name, looked up in any case, by name or alias."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from imagine_core.errors import PluginError, UnknownName


class Named(Protocol):
    """Anything with a name; `aliases` is optional."""

    @property
    def name(self) -> str | None:
        """What it is looked up by."""


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """Items of one kind, in the order of their registration.

    A taken name raises and names both plugins: with renaming or "the last one wins", users
    would not know which one runs.
    """

    def __init__(self, kind: str, accepts: type = object) -> None:
        self.kind = kind
        self._accepts = accepts
        self._items: dict[str, tuple[T, str]] = {}
        self._aliases: dict[str, str] = {}

    def register(self, item: T, *, plugin: str) -> None:
        """Add `item` on behalf of `plugin`, under its name and its aliases."""
        if not isinstance(item, self._accepts):
            wanted = self._accepts.__name__
            raise PluginError(plugin, f"a {self.kind} must be a {wanted}, got {item!r:.100}")
        names: list[Any] = [item.name, *getattr(item, "aliases", ())]
        for name in names:
            if not isinstance(name, str) or not name.strip():
                raise PluginError(plugin, f"a {self.kind} needs a name, got {name!r}")
            owner = self._owner(name.casefold())
            if owner is not None:
                raise PluginError(
                    plugin, f"the {self.kind} name {name!r} is taken by plugin {owner!r}"
                )
        self._items[names[0].casefold()] = (item, plugin)
        for name in names[1:]:
            self._aliases[name.casefold()] = names[0].casefold()

    def get(self, name: str) -> T:
        """The item called `name`, in any case; raises `UnknownName` with the nearest names."""
        return self._entry(name)[0]

    def plugin_of(self, name: str) -> str:
        """The name of the plugin that registered `name`."""
        return self._entry(name)[1]

    def names(self) -> list[str]:
        """The names, without aliases, in the order of registration."""
        return [str(item.name) for item, _ in self._items.values()]

    def __iter__(self) -> Iterator[T]:
        return iter([item for item, _ in self._items.values()])

    def __len__(self) -> int:
        return len(self._items)

    def _entry(self, name: str) -> tuple[T, str]:
        key = name.strip().casefold()
        try:
            return self._items[self._aliases.get(key, key)]
        except KeyError:
            known, aliases = self.names(), self._aliases
            raise UnknownName(self.kind, name, known=known, aliases=aliases) from None

    def _owner(self, key: str) -> str | None:
        entry = self._items.get(self._aliases.get(key, key))
        return None if entry is None else entry[1]

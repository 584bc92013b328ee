"""The settings file: TOML, whose keys are the flags of commands.

click does the rest: the file becomes the program's `default_map`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click import Command, Context
from click.core import ParameterSource

from imagine_core.errors import SettingsError, UnknownName
from imagine_core.settings import options
from imagine_core.settings.options import (
    commands_of,
    is_shared,
    key_of,
    names_of,
    options_of,
    plain,
)

__all__ = [
    "config_file",
    "configuration_of",
    "origin",
]

VARIABLE = "IMAGINE_CONFIG"
EXPLICIT = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


@dataclass(frozen=True, slots=True)
class Entry:
    """A value in the file and its `key`, with the name of its table before it."""

    key: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The content of the file; empty if there is none.

    Attributes:
        path: The file, whether it exists or not.
        table: Its content, every key in its `plain` spelling.
    """

    path: Path
    table: Mapping[str, Any] = field(default_factory=dict)

    def find(self, option: click.Option, names: Sequence[str]) -> Entry | None:
        """The entry in the file for `option` of the command called by `names`."""
        key, table = plain(key_of(option)), self.table
        for name in names:
            inner = table.get(plain(name))
            table = inner if isinstance(inner, Mapping) else {}
        if key in table:
            return Entry(".".join((*names, key_of(option))), table[key])
        if is_shared(option) and key in self.table:
            return Entry(key_of(option), self.table[key])
        return None

    def defaults(self, command: Command, *names: str) -> dict[str, Any]:
        """The `default_map`, for click, of `command`, which is called by `names`."""
        found: dict[str, Any] = {}
        for option in options_of(command):
            entry = self.find(option, names)
            if entry is not None:
                found[str(option.name)] = self.as_given(option, entry)
        for name, inner in commands_of(command):
            found[name] = self.defaults(inner, *names, name)
        return found

    def as_given(self, option: click.Option, entry: Entry) -> str | list[str]:
        """A value as text, as it would be given to the flag, so that both are read alike.

        Raises:
            SettingsError: No flag could have this value.
        """
        several = option.multiple or option.nargs != 1 or getattr(option.type, "several", False)
        values = entry.value if several and isinstance(entry.value, list) else [entry.value]
        if not all(isinstance(value, str | int | float) for value in values):
            kinds = "a text, a number, true or false" + (", or a list of those" if several else "")
            raise SettingsError(f"{self.path}: {entry.key!r} must be {kinds}")
        if "\0" in "".join(map(str, values)):
            raise SettingsError(f"{self.path}: {entry.key!r} must not hold a null character")
        texts = [str(v).lower() if isinstance(v, bool) else str(v) for v in values]
        return texts if option.multiple or option.nargs != 1 else ",".join(texts)

    def check(
        self, root: Command, commands: Mapping[str, Command], *, complete: Callable[[], bool]
    ) -> None:
        """Refuse a key that nothing reads.

        Args:
            root: The program, for its own options.
            commands: Its commands, by name.
            complete: Whether these are all; if not, a table may belong to a missing command.
        """
        known = options.keys(root)
        for name, command in commands.items():
            known |= options.keys(command, name)
        for key in _keys(self.table):
            mine = "." not in key or key.partition(".")[0] in map(plain, commands)
            if key not in known and (mine or complete()):
                raise SettingsError(f"{self.path}: {_unknown(key, known.values())}")


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """The file that is read, whether it exists or not."""
    if given := environ.get(VARIABLE):
        return Path(given).expanduser()
    import platformdirs

    return platformdirs.user_config_path("imagine", appauthor=False) / "config.toml"


def read_configuration(environ: Mapping[str, str] = os.environ) -> Configuration:
    """Read the file.

    Raises:
        SettingsError: It cannot be read; says why, and where it is wrong.
    """
    path = config_file(environ)
    try:
        text = path.read_text("utf-8-sig")  # editors on Windows may put a byte order mark first
    except FileNotFoundError as error:
        if environ.get(VARIABLE):
            raise SettingsError(f"{VARIABLE} names {path}, which does not exist") from error
        return Configuration(path=path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path, error.object) from error
    if "\0" in text:
        raise _wrong_encoding(path, b"\0")
    import tomllib  # slow, and only needed with a file

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: {error}") from error
    return Configuration(path=path, table=_plain_table(table, path))


def _wrong_encoding(path: Path, data: bytes) -> SettingsError:
    encoding = "UTF-16" if b"\0" in data else "no UTF-8"  # in UTF-16 every Latin letter has a zero
    return SettingsError(f"{path} cannot be read: it is {encoding} text; save it as UTF-8")


def configure(
    context: Context, commands: Mapping[str, Command], *, complete: Callable[[], bool]
) -> None:
    """Give the program in `context` and its `commands` the values of the file.

    Raises:
        SettingsError: The file cannot be used; says why.
    """
    configuration = read_configuration()
    context.meta[__name__] = configuration
    configuration.check(context.command, commands, complete=complete)
    for option in options_of(context.command):  # click has parsed these already
        _set(context, option, configuration)
    found = {name: configuration.defaults(command, name) for name, command in commands.items()}
    context.default_map = dict(found)


def configuration_of(context: Context) -> Configuration:
    """The configuration of the program that a command runs in."""
    found: Configuration | None = context.meta.get(__name__)
    if found is None:
        raise RuntimeError("this command runs outside the `imagine` program")
    return found


def origin(context: Context, option: click.Option) -> str | None:
    """Where the value of `option` came from, if neither from the command line nor a default."""
    source, names = context.get_parameter_source(str(option.name)), names_of(context)
    if source is ParameterSource.ENVIRONMENT:
        return next(name for name in options.variables(option, names) if os.environ.get(name))
    if source is ParameterSource.DEFAULT_MAP:
        configuration = configuration_of(context)
        entry = configuration.find(option, names)
        return None if entry is None else f"{entry.key} in {configuration.path}"
    return None


def explained(error: click.BadParameter) -> click.BadParameter:
    """`error`, extended by where its value came from."""
    if error.ctx is None or not isinstance(error.param, click.Option):
        return error
    # click's own hint names the variable even where the value is not from there.
    error.param_hint = click.Parameter.get_error_hint(error.param, error.ctx)
    found = origin(error.ctx, error.param)
    if found is None:
        return error
    message = f"{error.message.rstrip('.')} (from {found})"
    return click.BadParameter(message, error.ctx, error.param, error.param_hint)


def _set(context: Context, option: click.Option, configuration: Configuration) -> None:
    """Apply the file to `option`, which click parsed without it."""
    entry = configuration.find(option, ())
    if entry is not None and context.get_parameter_source(str(option.name)) not in EXPLICIT:
        context.set_parameter_source(str(option.name), ParameterSource.DEFAULT_MAP)
        option.process_value(context, configuration.as_given(option, entry))


def _unknown(key: str, known: Collection[str]) -> str:
    """The message about a key that nothing reads."""
    homes = [repr(other) for other in known if plain(other).endswith(f".{key}")]
    if homes:
        return f"{key!r} cannot be set for all commands; did you mean {' or '.join(homes)}?"
    return str(UnknownName("key", key, known=known))


def _keys(table: Mapping[str, Any], *names: str) -> Iterator[str]:
    """The keys of all values in `table`, with the names of the tables around them."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _keys(value, *names, key)
        else:
            yield ".".join((*names, key))


def _plain_table(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        if plain(key) in found:
            raise SettingsError(f"{path}: {key!r} is there twice, once with '-' and once with '_'")
        inner = isinstance(value, Mapping)
        found[plain(key)] = _plain_table(value, path) if inner else value
    return found

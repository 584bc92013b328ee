"""Options that can be set outside the command line: their keys in the file, and their variables.

An option that many commands share, or that people set rather than type, is `shared`: it has one
variable, IMAGINE_NAME, and one key at the top of the file, `name`. Every other one has
IMAGINE_COMMAND_NAME, which click calls automatic, and its key in the table `[command]`. One with
`allow_from_autoenv=False` and no variable takes no part: it must be given each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import click
from click import Command, Context

from imagine_core.errors import UnknownName

__all__ = [
    "commands_of",
    "is_secret",
    "is_shared",
    "key_of",
    "names_of",
    "options_of",
    "shared",
]

PREFIX = "IMAGINE"
OURS = frozenset(
    {
        "IMAGINE_BLOCK_PLUGINS",
        "IMAGINE_CONFIG",
        "IMAGINE_DEBUG",
        "IMAGINE_ENHANCE_MODEL",
        "IMAGINE_EXECUTABLE",
        "IMAGINE_OFFLINE",
        "IMAGINE_PLUGINS",
        "IMAGINE_PLUGINS_FOLDER",
        "IMAGINE_RUNTIME_DIR",
    }
)
"""Variables that are read without an option."""

SECRETS = {"key", "token", "secret", "password"}


def shared(option: click.Option) -> click.Option:
    """Let `option` be set for all commands at once: by IMAGINE_NAME, or `name` in the file."""
    option.envvar = _variable(key_of(option))
    option.show_envvar = True
    option.allow_from_autoenv = False
    if is_secret(option):
        option.show_default = False  # --help would print the value in the file
    return option


def is_shared(option: click.Option) -> bool:
    """Whether `option` is set for all commands at once."""
    return option.envvar == _variable(key_of(option))


def is_secret(option: click.Option) -> bool:
    """Whether a value of `option` must not be shown."""
    return option.hide_input or not SECRETS.isdisjoint(plain(key_of(option)).split("_"))


def options_of(command: Command) -> list[click.Option]:
    """The options of `command` that can be set."""
    return [
        param
        for param in command.params
        if isinstance(param, click.Option)
        and not param.is_eager
        and (param.envvar or param.allow_from_autoenv)
    ]


def commands_of(command: Command) -> Iterator[tuple[str, Command]]:
    """The commands in a group, by name."""
    if isinstance(command, click.Group):
        yield from command.commands.items()


def key_of(option: click.Option) -> str:
    """The key of `option` in the file: its flag's name."""
    flags = [flag for flag in option.opts if flag.startswith("--")] or option.opts
    return flags[0].lstrip("-")


def plain(key: str) -> str:
    """The canonical spelling of a key."""
    return key.replace("-", "_")


def keys(command: Command, *names: str) -> dict[str, str]:
    """The keys of `command`, which is called by `names`, and of the commands in it, by `plain`."""
    found = {}
    for option in options_of(command):
        own = ".".join((*names, key_of(option)))
        found[plain(own)] = own
        if is_shared(option):
            found[plain(key_of(option))] = key_of(option)
    for name, inner in commands_of(command):
        found |= keys(inner, *names, name)
    return found


def variables(option: click.Option, names: Sequence[str]) -> list[str]:
    """The variables from which click reads `option` of the command `names`, by precedence."""
    given = option.envvar or ()
    found = [given] if isinstance(given, str) else list(given)
    return [*found, _variable(*names, str(option.name))] if option.allow_from_autoenv else found


def unknown_variables(
    commands: Mapping[str, Command], environ: Mapping[str, str] = os.environ
) -> list[UnknownName]:
    """The variables with our prefix that nothing reads, with the nearest known names."""
    given = sorted(name for name in environ if name.startswith(f"{PREFIX}_") and name not in OURS)
    if not given:
        return []
    known = OURS.union(*(_all_variables(command, name) for name, command in commands.items()))
    return [UnknownName("variable", name, known=known) for name in given if name not in known]


def names_of(context: Context) -> list[str]:
    """The names that a command was called by, without the program's own."""
    if context.parent is None:
        return []
    return [*names_of(context.parent), str(context.info_name)]


def _all_variables(command: Command, *names: str) -> set[str]:
    found = {name for option in options_of(command) for name in variables(option, names)}
    inside = (_all_variables(inner, *names, name) for name, inner in commands_of(command))
    return found.union(*inside)


def _variable(*names: str) -> str:
    return plain("_".join((PREFIX, *names))).upper()

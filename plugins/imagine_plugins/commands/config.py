"""`imagine config`: the settings in force, and where each of them comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
from click.core import ParameterSource

from imagine_core import hookimpl
from imagine_core.errors import UnknownName
from imagine_core.settings.file import config_file, configuration_of, origin
from imagine_core.settings.options import (
    commands_of,
    is_secret,
    is_shared,
    key_of,
    names_of,
    options_of,
)
from imagine_plugins.commands.shared.options import JSON_OPTION
from imagine_plugins.commands.shared.output import note, print_json, print_table

MASK = "********"
SOURCES = {
    ParameterSource.COMMANDLINE: "flag",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """A setting, its value as it was given, and the origin of that value.

    Attributes:
        name: Its key in the file.
        value: Its value; None if it has neither a value nor a default.
        source: "flag", "environment", "file" or "default".
        origin: The flag, the variable, or the key and the file; empty for a default.
        shared: Whether one value holds for all commands.
    """

    name: str
    value: str | None
    source: str
    origin: str
    shared: bool


def _config(*, command: tuple[str, ...], path: bool, as_json: bool) -> None:
    """Show the settings in force, and where each comes from: the settings file, or a variable.

    Without COMMAND: those that all commands share, and what was set for single ones. With it, all
    of that command's, as they would be with those ARGS: 'imagine config serve -p 6000'.
    """
    context = click.get_current_context().find_root()
    if path:
        click.echo(config_file())
        return
    found = list(_of_command(context, command) if command else _summary(_of_all_commands(context)))
    if as_json:
        keys = ("name", "value", "source", "origin")
        print_json([{key: asdict(each)[key] for key in keys} for each in found])
        return
    file = configuration_of(context).path
    note(f"settings file: {file}" if file.exists() else f"settings file: {file} (there is none)")
    rows = [(each.name, each.value or "-", each.origin or each.source) for each in found]
    print_table(("SETTING", "VALUE", "FROM"), rows)


def _of_command(root: click.Context, words: Sequence[str]) -> Iterator[Effective]:
    """The settings of the command that `words` begin with; the other words are its flags."""
    context, rest = root, list(words)
    while isinstance(context.command, click.Group) and rest:
        group, name = context.command, rest.pop(0)
        inner = group.get_command(context, name)
        if inner is None:
            unknown = UnknownName("command", name, known=group.list_commands(context))
            raise click.UsageError(str(unknown), context)
        context = click.Context(inner, info_name=name, parent=context, **inner.context_settings)
    given, _, _ = context.command.make_parser(context).parse_args(rest)
    return _settings(context, given)


def _of_all_commands(root: click.Context) -> Iterator[Effective]:
    """The settings of all commands."""
    group = root.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(root):
        command = group.get_command(root, name)
        if command is not None:
            yield from _inside(click.Context(command, info_name=name, parent=root))


def _inside(context: click.Context) -> Iterator[Effective]:
    yield from _settings(context, {})
    for name, command in commands_of(context.command):
        yield from _inside(click.Context(command, info_name=name, parent=context))


def _summary(found: Iterable[Effective]) -> list[Effective]:
    """Each shared setting once, from a command with a default for it; others only if they are set.

    A value in the table of one command belongs to that command alone.
    """
    common: dict[str, Effective] = {}
    single: list[Effective] = []
    for each in found:
        if each.shared:
            known = common.get(each.name)
            if known is None or known.value is None:
                common[each.name] = each
        elif each.source != "default":
            single.append(each)
    return [*(common[name] for name in sorted(common)), *single]


def _settings(context: click.Context, given: dict[str, Any]) -> Iterator[Effective]:
    """The settings of the command in `context`, with the flags that were `given`.

    Raises:
        BadParameter: A value is invalid.
    """
    for option in options_of(context.command):
        value, source = option.consume_value(context, given)
        context.set_parameter_source(str(option.name), source)
        if source is ParameterSource.DEFAULT:
            value = option.to_info_dict()["default"]  # None if there is none
        else:
            _check(context, option, value)
        yield _effective(context, option, value)


def _check(context: click.Context, option: click.Option, value: object) -> None:
    try:
        option.type_cast_value(context, value)
    except click.BadParameter as error:
        error.ctx, error.param = context, option  # the program adds the origin of the value
        raise


def _effective(context: click.Context, option: click.Option, value: object) -> Effective:
    name = str(option.name)
    key = ".".join((*names_of(context), key_of(option)))
    shared = is_shared(option)
    home, parent = context, context.find_root()
    if shared and parent.get_parameter_source(name) in SOURCES:
        home, value = parent, _program_value(parent, option)  # it holds for every command
    source = SOURCES.get(home.get_parameter_source(name), "default")  # type: ignore[arg-type]
    from_where = origin(home, option) or (f"--{key_of(option)}" if source == "flag" else "")
    if source == "file":
        shared = not from_where.startswith(f"{key} in ")
    return Effective(
        name=key_of(option) if shared else key,
        value=_text(option, value),
        source=source,
        origin=from_where,
        shared=shared,
    )


def _program_value(program: click.Context, option: click.Option) -> object:
    """The value of a flag of the program itself."""
    match program.get_parameter_source(str(option.name)):
        case ParameterSource.ENVIRONMENT:
            value: object = option.value_from_envvar(program)
        case ParameterSource.DEFAULT_MAP:
            configuration = configuration_of(program)
            entry = configuration.find(option, ())
            value = entry and configuration.as_given(option, entry)
        case _:
            value = True
    return option.type_cast_value(program, value)


def _text(option: click.Option, value: object) -> str | None:
    """The text of a value, with secrets masked."""
    if value is None or value == "":
        return f"({option.show_default})" if isinstance(option.show_default, str) else None
    if is_secret(option):
        return MASK
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


config = click.Command(
    "config",
    callback=_config,
    help=_config.__doc__,
    short_help="Show the settings, and where they come from.",
    params=[
        click.Argument(
            ["command"], nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND [ARGS]...]"
        ),
        click.Option(
            ["--path"],
            is_flag=True,
            allow_from_autoenv=False,
            help="Print where the settings file is looked for.",
        ),
        JSON_OPTION,
    ],
    context_settings={"allow_interspersed_args": False},
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine config`."""
    register(config)

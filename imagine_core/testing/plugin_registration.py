"""Puts a plugin under test beside the installed ones, which it may be one of."""

from __future__ import annotations

from collections.abc import Sequence

from imagine_core.plugins import Plugins, build_plugins

UNDER_TEST = "the plugin under test"


def beside_the_installed(plugin: object, *, extra: Sequence[tuple[str, object]] = ()) -> Plugins:
    """The installed plugins and `plugin`, which must register without a problem.

    Args:
        plugin: What an entry point names: a module, a class, or an object.
        extra: Further plugins by name.
    """
    plugins = build_plugins(extra=extra)
    name = _name_of(plugins, plugin)
    if name is None:
        name, plugins = UNDER_TEST, build_plugins(extra=[*extra, (UNDER_TEST, plugin)])
    problem = next(report.problem for report in plugins.reports() if report.name == name)
    assert problem is None, problem
    return plugins


def alone(plugin: object) -> Plugins:
    """Just `plugin`."""
    return build_plugins(found=[], extra=[(UNDER_TEST, plugin)])


def _name_of(plugins: Plugins, plugin: object) -> str | None:
    for name, known in plugins.manager.list_name_plugin():
        if known is plugin or type(known) is plugin:
            return str(name)
    return None

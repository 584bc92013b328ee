"""Tests of imagine_core.plugins and imagine_core.registry."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from imagine_core import HttpApi, SamplerSpec, hookimpl
from imagine_core.errors import SettingsError, UnknownName
from imagine_core.plugins import PluginReport, build_plugins, plugins_from_environment
from imagine_core.testing import euler

ROOT = Path(__file__).parent.parent


def sampler(name: str, *aliases: str) -> SamplerSpec:
    return SamplerSpec(name=name, label=name.title(), sample=euler, aliases=aliases)


class Brings:
    """Registers the samplers that it was built with."""

    def __init__(self, *specs: SamplerSpec) -> None:
        self.specs = specs

    @hookimpl
    def register_samplers(self, register: Callable[[SamplerSpec], None]) -> None:
        for spec in self.specs:
            register(spec)


def report(reports: list[PluginReport], name: str) -> PluginReport:
    return next(report for report in reports if report.name == name)


def test_installed_entry_points_are_those_of_pyproject() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = pyproject["project"]["entry-points"]["imagine"]
    installed = {
        point.name: point.value
        for point in entry_points(group="imagine")
        if point.name.startswith("imagine-")
    }
    assert installed == declared, "entry points changed: run `pip install -e .` again"


def test_every_builtin_plugin_loads_without_a_problem() -> None:
    problems = [report for report in build_plugins().reports() if report.problem]
    assert problems == []


def test_the_core_never_imports_the_builtin_plugins() -> None:
    for path in (ROOT / "imagine_core").rglob("*.py"):
        assert "imagine_plugins" not in imported(path), path


def test_plugins_import_of_the_core_only_modules_without_an_underscore() -> None:
    for path in (ROOT / "plugins").rglob("*.py"):
        names = [name for name in imported(path) if name.startswith("imagine_core")]
        assert not [name for name in names if "._" in name], path


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, node.module.split(".")[0]}
    return names


def test_hook_register_samplers() -> None:
    plugins = build_plugins(found=[], extra=[("a", Brings(sampler("one", "uno")))])
    assert plugins.samplers.names() == ["one"]
    assert plugins.samplers.get("UNO").name == "one"
    assert plugins.samplers.plugin_of("one") == "a"


def test_a_taken_name_is_refused_and_both_plugins_are_named() -> None:
    plugins = build_plugins(
        found=[], extra=[("first", Brings(sampler("x"))), ("second", Brings(sampler("X")))]
    )
    assert plugins.samplers.plugin_of("x") == "first"
    problem = report(plugins.reports(), "second").problem
    assert problem is not None
    assert "'first'" in problem
    assert "'X'" in problem


def test_an_alias_cannot_take_a_name() -> None:
    plugins = build_plugins(
        found=[], extra=[("first", Brings(sampler("x"))), ("second", Brings(sampler("y", "x")))]
    )
    assert plugins.samplers.names() == ["x"]


def test_a_plugin_that_raises_is_blamed_and_the_others_stay() -> None:
    class Raises:
        @hookimpl
        def register_samplers(self, register: Callable[[SamplerSpec], None]) -> None:
            register(sampler("kept"))
            raise RuntimeError("oops")

    plugins = build_plugins(found=[], extra=[("bad", Raises()), ("good", Brings(sampler("x")))])
    assert plugins.samplers.names() == ["kept", "x"]
    problem = report(plugins.reports(), "bad").problem
    assert problem == "register_samplers: RuntimeError: oops"


class Unbuildable:
    """Cannot be built without what nobody gives it."""

    def __init__(self, what: str) -> None:
        self.what = what


class Leaves:
    """Ends the program where it is asked for samplers."""

    @hookimpl
    def register_samplers(self, register: Callable[[SamplerSpec], None]) -> None:
        sys.exit("bye")


@pytest.mark.parametrize(
    ("plugin", "problem"),
    [(Unbuildable, "TypeError: "), (Leaves, "register_samplers: SystemExit: bye")],
)
def test_a_plugin_that_cannot_be_built_or_ends_the_program_is_blamed(
    plugin: type, problem: str
) -> None:
    plugins = build_plugins(only=[], extra=[("bad", plugin), ("good", Brings(sampler("fine")))])
    assert plugins.samplers.names() == ["fine"]
    assert problem in str(report(plugins.reports(), "bad").problem)


def test_nonsense_is_refused_where_it_is_registered() -> None:
    class Nonsense:
        @hookimpl
        def register_samplers(self, register: Callable[[object], None]) -> None:
            register("euler")

    plugins = build_plugins(found=[], extra=[("bad", Nonsense())])
    assert len(plugins.samplers) == 0
    problem = report(plugins.reports(), "bad").problem
    assert problem is not None
    assert "SamplerSpec" in problem


def api(name: str, path: str = "/count") -> HttpApi:
    return HttpApi(name=name, path=path, programs=("counters",), key="the key", no_key="nothing")


class Names:
    """Registers the APIs that it was built with."""

    def __init__(self, *apis: object) -> None:
        self.apis = apis

    @hookimpl
    def register_apis(self, register: Callable[[object], None]) -> None:
        for each in self.apis:
            register(each)


def test_hook_register_apis() -> None:
    one, two, three = api("One"), api("Two"), api("Three")
    plugins = build_plugins(found=[], extra=[("b", Names(three)), ("a", Names(one, two))])
    assert list(plugins.apis) == [one, two, three]
    assert plugins.apis.plugin_of("Two") == "a"


def test_an_api_that_is_none_or_has_a_taken_name_is_refused_and_the_others_stay() -> None:
    plugins = build_plugins(
        found=[],
        extra=[("a", Names(api("One"))), ("b", Names(api("Two"), "v1")), ("c", Names(api("one")))],
    )
    assert [each.name for each in plugins.apis] == ["One", "Two"]
    assert "HttpApi" in str(report(plugins.reports(), "b").problem)
    assert "'a'" in str(report(plugins.reports(), "c").problem)


def test_the_builtin_apis_lead_to_routes_and_leave_with_their_plugin() -> None:
    plugins = build_plugins()
    assert "OpenAI API" in [each.name for each in plugins.apis]
    plugin = plugins.apis.plugin_of("OpenAI API")
    assert "OpenAI API" not in [each.name for each in build_plugins(block=[plugin]).apis]


def test_a_plugin_that_fails_to_import_is_reported_with_the_reason() -> None:
    point = EntryPoint(name="lost", value="no_such_module_anywhere", group="imagine")
    plugins = build_plugins(found=[point], extra=[("good", Brings(sampler("x")))])
    problem = report(plugins.reports(), "lost").problem
    assert problem is not None
    assert problem.startswith("import failed: ModuleNotFoundError")
    assert plugins.samplers.names() == ["x"]


def test_a_plugin_with_an_unknown_hook_is_reported() -> None:
    class Typo:
        @hookimpl
        def register_sampler(self, register: Callable[[SamplerSpec], None]) -> None: ...

    problem = report(build_plugins(found=[], extra=[("typo", Typo())]).reports(), "typo").problem
    assert problem is not None
    assert problem.startswith("unknown hook 'register_sampler'; did you mean 'register_samplers'")


def test_a_name_that_two_plugins_have_is_reported() -> None:
    plugins = build_plugins(found=[], extra=[("a", Brings(sampler("x"))), ("a", Brings())])
    assert report(plugins.reports(), "a").problem == "another plugin has this name"


def test_blocked_plugins_are_left_out_and_only_keeps_just_those() -> None:
    every = {report.name for report in build_plugins().reports()}
    blocked = {r.name for r in build_plugins(block=["imagine-device-mps"]).reports()}
    assert every - blocked == {"imagine-device-mps"}
    only = [r.name for r in build_plugins(only=["imagine-device-cpu"]).reports()]
    assert only == ["imagine-device-cpu"]


def test_three_managers_in_one_process_do_not_meet() -> None:
    managers = [build_plugins(found=[], extra=[("a", Brings(sampler(n)))]) for n in "xyz"]
    assert [m.samplers.names() for m in managers] == [["x"], ["y"], ["z"]]


def test_an_unknown_name_offers_the_nearest() -> None:
    plugins = build_plugins(found=[], extra=[("a", Brings(sampler("euler"), sampler("heun")))])
    with pytest.raises(UnknownName, match="did you mean 'euler'"):
        plugins.samplers.get("eulr")


# ---------------------------------------------------------------------------------- the folder


def test_a_wheel_that_is_unpacked_into_a_folder_takes_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setenv("IMAGINE_PLUGINS_FOLDER", str(tmp_path))
    monkeypatch.setenv("IMAGINE_PLUGINS", "unpacked")
    info = tmp_path / "unpacked_plugin-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unpacked-plugin\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[imagine]\nunpacked = unpacked_plugin\n")
    (tmp_path / "unpacked_plugin.py").write_text(
        "from imagine_core import hookimpl\n\n\n"
        "@hookimpl\ndef register_samplers(register):\n    register(5)\n"
    )
    (tmp_path / "click.py").write_text("raise RuntimeError('what is installed wins')\n")
    for _ in range(2):
        (report,) = plugins_from_environment().reports()
        assert (report.distribution, report.version) == ("unpacked-plugin", "1.2")
        assert report.problem is not None
        assert "a sampler must be a SamplerSpec" in report.problem
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[-1] == str(tmp_path)


def test_a_variable_that_names_no_plugin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGINE_PLUGINS", "imagine-command-run,imagine-command-lst")
    with pytest.raises(SettingsError, match=r"IMAGINE_PLUGINS: .*did you mean 'imagine-command-l"):
        plugins_from_environment()


def test_a_misspelled_name_of_a_plugin_to_leave_out_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMAGINE_BLOCK_PLUGINS", "imagine-page,imagine-api-opneai")
    with pytest.raises(SettingsError, match=r"IMAGINE_BLOCK_PLUGINS: .*'imagine-api-openai'"):
        plugins_from_environment()


def test_there_need_be_no_folder_of_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("IMAGINE_PLUGINS_FOLDER", raising=False)
    before = sys.path.copy()
    plugins_from_environment()
    assert sys.path == before

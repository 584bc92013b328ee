"""The plugin manager: finds plugins by entry point, isolates broken ones, fills the registries."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from imagine_core import hookspecs
from imagine_core.errors import FAULTS, ImagineError, PluginError, SettingsError, UnknownName
from imagine_core.interfaces import (
    Device,
    Enhancer,
    HttpApi,
    ModelLoader,
    Preprocessor,
    SamplerSpec,
    UpscalerSpec,
)
from imagine_core.registry import Registry

if TYPE_CHECKING:
    import click
    from starlette.routing import BaseRoute

    from imagine_core.models.catalogue import Catalogue
    from imagine_core.service import Service
    from imagine_core.settings import Settings

__all__ = [
    "Plugins",
]

GROUP = "imagine"
log = logging.getLogger("imagine")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginReport:
    """The result of loading a plugin; `problem` is None if everything it offers was accepted."""

    name: str
    point: EntryPoint | None = field(default=None, repr=False)
    hooks: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def distribution(self) -> str:
        """The package that it came with; reading this parses the package's metadata."""
        return "" if self.point is None or self.point.dist is None else self.point.dist.name

    @property
    def version(self) -> str:
        """The version of that package."""
        return "" if self.point is None or self.point.dist is None else self.point.dist.version


class Plugins:
    """The plugins of one process and what they registered.

    The registries fill on first use, so that `imagine --help` asks no plugin for its samplers.
    A plugin that raises, or registers what cannot be accepted, is left out of that registry and
    named in `reports()`; the items of other plugins stay.
    """

    def __init__(self, manager: pluggy.PluginManager, reports: Iterable[PluginReport]) -> None:
        self.manager = manager
        self._reports = {report.name: report for report in reports}
        self._registries: dict[str, Registry[Any]] = {}
        self._failed: set[tuple[str, str]] = set()

    @property
    def devices(self) -> Registry[Device]:
        """The compute devices, available on this machine or not."""
        return self._registry("device", "register_devices", Device)

    @property
    def samplers(self) -> Registry[SamplerSpec]:
        """The samplers."""
        return self._registry("sampler", "register_samplers", SamplerSpec)

    def sampler_details(self) -> list[dict[str, Any]]:
        """What `GET /samplers` and `imagine samplers` say of each sampler, by name."""
        return [
            {
                "name": spec.name,
                "label": spec.label,
                "aliases": list(spec.aliases),
                "schedules": list(spec.schedules),
                "evaluations": spec.evaluations,
                "stochastic": spec.stochastic,
                "plugin": self.samplers.plugin_of(spec.name),
            }
            for spec in sorted(self.samplers, key=lambda spec: spec.name)
        ]

    @property
    def loaders(self) -> Registry[ModelLoader]:
        """The model formats."""
        return self._registry("model loader", "register_model_loaders", ModelLoader)

    @property
    def enhancers(self) -> Registry[Enhancer]:
        """The prompt enhancers."""
        return self._registry("enhancer", "register_enhancers", Enhancer)

    @property
    def upscalers(self) -> Registry[UpscalerSpec]:
        """The upscalers that need no file."""
        return self._registry("upscaler", "register_upscalers", UpscalerSpec)

    @property
    def preprocessors(self) -> Registry[Preprocessor]:
        """What makes hints of pictures."""
        return self._registry("preprocessor", "register_preprocessors", Preprocessor)

    @property
    def apis(self) -> Registry[HttpApi]:
        """The APIs of the server that other programs know."""
        return self._registry("API", "register_apis", HttpApi)

    @property
    def commands(self) -> Registry[click.Command]:
        """The commands of the `imagine` program."""
        import click

        return self._registry("command", "register_commands", click.Command)

    def model_folders(self) -> list[Path]:
        """Folders of models that come with plugins."""
        return self._list("register_model_folders")

    def catalogue(self, settings: Settings) -> Catalogue:
        """The catalogue of the models folder of `settings` and of what plugins bring."""
        from imagine_core.models.catalogue import Catalogue

        return Catalogue(
            settings.models,
            bundled=self.model_folders(),
            loaders=self.loaders,
            default_model=settings.default_model,
        )

    def routes(self, service: Service) -> list[BaseRoute]:
        """The HTTP routes of all plugins, in the order of the plugins' names."""
        return self._list("register_routes", service=service)

    def implement(self, hook: str) -> bool:
        """Whether any plugin implements `hook`."""
        return any(True for _ in self._callers(hook))

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call an observing hook; a plugin that raises is called again next time.

        Its first failure is logged and reported.
        """
        for name, caller in self._callers(hook):
            try:
                caller(**arguments)
            except FAULTS as error:
                if (name, hook) not in self._failed:
                    self._failed.add((name, hook))
                    log.exception(
                        "plugin %r failed in %s; further failures are kept quiet", name, hook
                    )
                    self._blame(name, hook, error)

    def reports(self) -> list[PluginReport]:
        """The report on each plugin, by name. Fills every registry, so that problems show."""
        pictures = (self.upscalers, self.preprocessors)
        registries = (self.devices, self.samplers, self.loaders, self.enhancers)
        for kind in (*registries, *pictures, self.apis, self.commands):
            len(kind)
        return sorted(self._reports.values(), key=lambda report: report.name)

    def _registry(self, kind: str, hook: str, accepts: type) -> Registry[Any]:
        if kind not in self._registries:
            registry: Registry[Any] = Registry(kind, accepts)
            self._collect(hook, lambda item, plugin: registry.register(item, plugin=plugin))
            self._registries[kind] = registry
        return self._registries[kind]

    def _list(self, hook: str, **arguments: Any) -> list[Any]:
        items: list[tuple[str, Any]] = []
        self._collect(hook, lambda item, plugin: items.append((plugin, item)), **arguments)
        return [item for _, item in items]

    def _collect(self, hook: str, take: Callable[..., None], **arguments: Any) -> None:
        """Call `hook` plugin by plugin, giving each a `register` that knows the plugin."""
        for name, caller in self._callers(hook):
            try:
                caller(register=partial(take, plugin=name), **arguments)
            except FAULTS as error:  # a plugin may raise anything
                self._blame(name, hook, error)

    def _callers(self, hook: str) -> Iterator[tuple[str, pluggy.HookCaller]]:
        """The name of each plugin that implements `hook`, and a caller of it alone."""
        everyone = sorted(self.manager.list_name_plugin())
        for name, plugin in everyone:
            callers = self.manager.get_hookcallers(plugin) or ()
            if hook in {caller.name for caller in callers}:
                others = [other for _, other in everyone if other is not plugin]
                yield name, self.manager.subset_hook_caller(hook, others)

    def _blame(self, name: str, hook: str, error: BaseException) -> None:
        text = str(error) if isinstance(error, PluginError) else f"{hook}: {_describe(error)}"
        old = self._reports[name]
        problem = text if old.problem is None else f"{old.problem}; {text}"
        self._reports[name] = replace(old, problem=problem)


def build_plugins(
    *,
    only: Sequence[str] | None = None,
    block: Sequence[str] = (),
    extra: Sequence[tuple[str, object]] = (),
    found: Iterable[EntryPoint] | None = None,
) -> Plugins:
    """Load the plugins of the entry-point group `imagine`, one by one.

    Args:
        only: Names of the plugins to load; None loads all.
        block: Names of plugins to leave out.
        extra: Further plugins by name, for tests.
        found: Entry points to load instead of the installed ones.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    reports = []
    points = entry_points(group=GROUP) if found is None else found
    for point in sorted(points, key=lambda point: point.name):
        if point.name in block or (only is not None and point.name not in only):
            continue
        reports.append(_load(manager, point))
    for name, plugin in extra:
        reports.append(_register(manager, name, plugin))
    return Plugins(manager, reports)


def plugins_from_environment() -> Plugins:
    """`build_plugins` with arguments from the environment.

    IMAGINE_PLUGINS names the only ones to load, IMAGINE_BLOCK_PLUGINS those to leave out,
    IMAGINE_PLUGINS_FOLDER the folder of packages that pip has not installed.

    Raises:
        SettingsError: One of the first two names one that is not installed.
    """
    add_folder(Path(os.environ.get("IMAGINE_PLUGINS_FOLDER") or "~/.imagine/plugins").expanduser())
    only = _names(os.environ.get("IMAGINE_PLUGINS"))
    block = _names(os.environ.get("IMAGINE_BLOCK_PLUGINS")) or ()
    found = entry_points(group=GROUP)
    for variable, names in (("IMAGINE_PLUGINS", only or ()), ("IMAGINE_BLOCK_PLUGINS", block)):
        for name in names:
            if name not in found.names:
                unknown = UnknownName("plugin", name, known=found.names)
                raise SettingsError(f"{variable}: {unknown}")
    return build_plugins(only=only, block=block, found=found)


def add_folder(folder: Path) -> None:
    """Make the packages in `folder` importable, after the installed ones.

    The one-file program has nowhere to install to, so users unpack wheels here.
    """
    if folder.is_dir() and str(folder) not in sys.path:
        sys.path.append(str(folder))


def _load(manager: pluggy.PluginManager, point: EntryPoint) -> PluginReport:
    try:
        plugin = point.load()
    except (Exception, SystemExit) as error:  # import runs the plugin's code
        problem = f"import failed: {_describe(error)}"
        return PluginReport(name=point.name, point=point, problem=problem)
    return _register(manager, point.name, plugin, point)


def _register(
    manager: pluggy.PluginManager, name: str, plugin: object, point: EntryPoint | None = None
) -> PluginReport:
    if manager.has_plugin(name):  # pluggy would skip it silently
        return PluginReport(name=name, point=point, problem="another plugin has this name")
    try:
        if isinstance(plugin, type):
            plugin = plugin()
        manager.register(plugin, name=name)
        _check(manager, plugin)
    except FAULTS as error:
        if manager.has_plugin(name):
            manager.unregister(name=name)
        return PluginReport(name=name, point=point, problem=_describe(error))
    hooks = tuple(sorted(call.name for call in manager.get_hookcallers(plugin) or ()))
    problem = None if hooks else "it implements no hook of Imagine"
    return PluginReport(name=name, point=point, hooks=hooks, problem=problem)


def _check(manager: pluggy.PluginManager, plugin: object) -> None:
    """Raise UnknownName if `plugin` implements a hook that does not exist."""
    hooks = vars(manager.hook).items()
    known = [name for name, hook in hooks if not name.startswith("_") and hook.has_spec()]
    for caller in manager.get_hookcallers(plugin) or ():
        if caller.name not in known and not all(one.optionalhook for one in caller.get_hookimpls()):
            raise UnknownName("hook", caller.name, known=known)


def _describe(error: BaseException) -> str:
    if isinstance(error, ImagineError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _names(value: str | None) -> list[str] | None:
    if not value:
        return None
    return [name.strip() for name in value.split(",") if name.strip()]

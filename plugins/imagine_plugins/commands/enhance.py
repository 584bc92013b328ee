"""`imagine enhance`: make a better prompt of a prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from imagine_core import Enhancement, EnhanceTask, hookimpl
from imagine_core.cli import one_line, plugins_of
from imagine_core.enhancing import by_priority, problem_of
from imagine_core.kinds import draw_seed
from imagine_plugins.commands.shared.enhancing import pick, run_enhancer
from imagine_plugins.commands.shared.options import JSON_OPTION
from imagine_plugins.commands.shared.output import print_json, print_table

if TYPE_CHECKING:
    from imagine_core.plugins import Plugins

OPTIONS = [
    click.Option(
        ["-m", "--model"],
        metavar="MODEL",
        allow_from_autoenv=False,  # IMAGINE_ENHANCE_MODEL is the enhancer's: it forces no other
        help="Language model to use, gemma:2b for example. [default: the enhancer's own choice]",
    ),
    click.Option(["-s", "--stream"], is_flag=True, help="Show the prompt as it is written."),
    click.Option(["-n", "--neg"], is_flag=True, help="Make a negative prompt as well."),
    click.Option(
        ["-e", "--enhancer"],
        metavar="NAME",
        help="Enhancer to use. [default: ollama where it answers, else table]",
    ),
    click.Option(
        ["-a", "--address"],
        metavar="HOST:PORT",
        help="Where the language model is. [default: OLLAMA_HOST, else 127.0.0.1:11434]",
    ),
    click.Option(["--seed"], type=int, help="Repeats an enhancement. [default: random]"),
    click.Option(
        ["--list", "listing"],
        is_flag=True,
        allow_from_autoenv=False,
        help="List the enhancers.",
    ),
    JSON_OPTION,
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line of `imagine enhance`."""

    prompt: tuple[str, ...]
    model: str | None
    stream: bool
    neg: bool
    enhancer: str | None
    address: str | None
    seed: int | None
    listing: bool
    as_json: bool

    def task(self) -> EnhanceTask:
        """The task for the enhancer."""
        # Arguments may hold bytes that are no text; a model cannot read those.
        prompt = " ".join(self.prompt).encode("utf-8", "replace").decode().strip()
        if not prompt:
            raise click.UsageError("the prompt is empty")
        return EnhanceTask(
            prompt=prompt,
            seed=draw_seed() if self.seed is None else self.seed,
            negative=self.neg,
            stream=self.stream and not self.as_json,
            model=self.model,
            address=self.address,
        )


class Paper:
    """Prints a growing prompt to stdout, and ends its line in every case."""

    def __init__(self) -> None:
        self.begun = False

    def write(self, piece: str) -> None:
        """Write a piece of the prompt at once."""
        self.begun = True
        click.echo("".join(c if c.isprintable() else " " for c in piece), nl=False)

    def end(self) -> None:
        """End the line if there is one."""
        if self.begun:
            click.echo()


def _enhance(**given: Any) -> None:
    """Make a better prompt of a PROMPT.

    Prints the better prompt alone; with --neg, a second line "Negative prompt: ..." follows.
    """
    options = Options(**given)
    plugins = plugins_of(click.get_current_context())
    if options.listing:
        _list(plugins, options)
        return
    task = options.task()
    enhancer = pick(plugins, options.enhancer, model=options.model, address=options.address)
    paper = Paper()
    try:
        made = run_enhancer(enhancer, task, paper.write)
    finally:
        paper.end()
    if options.as_json:
        print_json(_document(task, enhancer.name, made))
        return
    if not paper.begun:
        click.echo(one_line(made.prompt))
    if options.neg:
        click.echo(f"Negative prompt: {one_line(made.negative_prompt)}")


def _document(task: EnhanceTask, enhancer: str, made: Enhancement) -> dict[str, Any]:
    """The reply that `POST /enhance` would give."""
    document: dict[str, Any] = {"prompt": made.prompt, "original_prompt": task.prompt}
    if task.negative:
        document["neg"] = made.negative_prompt
    return document | {"enhancer": enhancer, "model": made.model, "seed": str(task.seed)}


def _list(plugins: Plugins, options: Options) -> None:
    """Print the enhancers, the one that is used by default first."""
    found = [
        {
            "name": enhancer.name,
            "label": enhancer.label,
            "language_model": enhancer.language_model,
            "plugin": plugins.enhancers.plugin_of(enhancer.name),
            "problem": problem_of(enhancer, options.address),
        }
        for enhancer in by_priority(plugins.enhancers)
    ]
    if options.as_json:
        print_json(found)
        return
    keys = ("name", "label", "plugin", "problem")
    rows = [[str(each[key] or "") for key in keys] for each in found]
    print_table([key.upper() for key in keys], rows)


enhance = click.Command(
    "enhance",
    callback=_enhance,
    help=_enhance.__doc__,
    short_help="Make a better prompt of a prompt.",
    params=[click.Argument(["prompt"], nargs=-1), *OPTIONS],
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine enhance`."""
    register(enhance)

"""`imagine ps`: the models that a server has loaded, and the pictures that it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from imagine_core import hookimpl
from imagine_plugins.commands.shared.options import JSON_OPTION, SERVER_OPTIONS
from imagine_plugins.commands.shared.output import file_size, print_json, print_table
from imagine_plugins.commands.shared.progress import duration
from imagine_plugins.commands.shared.source import ask, server_of


def ps(*, address: str | None, api_key: str | None, as_json: bool) -> None:
    """List the models that an Imagine server has loaded, and the pictures in progress."""
    found = ask(server_of(address=address, api_key=api_key).client().ps())
    if as_json:
        print_json(found)
        return
    dtype = str(found.get("dtype") or "-")
    print_table(
        ("NAME", "KIND", "FAMILY", "MEMORY", "DTYPE", "UNTIL"),
        [
            (
                str(model["name"]),
                str(model.get("kind", "model")),
                str(model.get("family", "-")),
                file_size(model["memory"]) if model.get("memory") else "-",
                dtype,
                _until(model),
            )
            for model in found.get("models", ())
        ],
    )
    if found.get("jobs"):
        click.echo()
        print_table(
            ("JOB", "MODEL", "PICTURE", "SAMPLER", "STEP", "PHASE"),
            [_job(job) for job in found["jobs"]],
        )


def _until(model: Mapping[str, Any]) -> str:
    """How long a model stays loaded without further requests."""
    if model.get("in_use"):
        return "in use"
    seconds = model.get("expires_in")
    return "forever" if seconds is None else f"{duration(seconds)} from now"


def _job(job: Mapping[str, Any]) -> tuple[str, ...]:
    phase = str(job.get("phase", "-"))
    if job.get("fraction") is not None:
        phase += f" {job['fraction']:.0%}"
    if phase == "queued" and job.get("position"):
        phase += f", {job['position']} ahead"
    return (
        str(job.get("id", "-")),
        str(job.get("model", "-")),
        f"{job.get('width')}x{job.get('height')}",
        str(job.get("sampler", "-")),
        f"{job.get('step')}/{job.get('steps')}",
        phase,
    )


command = click.Command(
    "ps",
    callback=ps,
    help=ps.__doc__,
    short_help="List loaded models and running jobs.",
    params=[*SERVER_OPTIONS, JSON_OPTION],
)


@hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    """Register `imagine ps`."""
    register(command)

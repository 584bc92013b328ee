"""What the small routes of A1111's API answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from imagine_core import errors
from imagine_core.kinds import Flag, Picture, Text, Whole
from imagine_core.models.hashing import known_hash
from imagine_core.models.memory import process_memory
from imagine_core.pictures.formats import base64_of
from imagine_core.pictures.infotext import infotext_details
from imagine_core.pictures.metadata import infotext_of
from imagine_core.rows import Row, read_rows
from imagine_core.schedules import schedule_label
from imagine_core.web.answers import Call
from imagine_core.web.callers import CallerOptions, Newest
from imagine_core.web.jobs import Progress
from imagine_plugins.dialects.a1111.dialect import VAES
from imagine_plugins.dialects.a1111.fields import CLIP, MODEL, ROWS, VAE
from imagine_plugins.dialects.a1111.hires import upscaler_list

if TYPE_CHECKING:
    from imagine_core import ModelInfo
    from imagine_core.service import Service
    from imagine_core.web.dialect import Record

# fmt: off
OPTIONS = {CLIP: 1, VAE: "Automatic", "samples_format": "png"}
PICTURE = (Row("image", Picture()),)
TASK = (
    Row("id_task", Text(), ""), Row("id_live_preview", Whole(-1), -1),
    Row("live_preview", Flag(), default=True),
)
MODEL_REST = {"sha256": None, "config": None}
SCHEDULER_REST = {"aliases": None, "default_rho": -1, "need_inner_model": False}
STATE = {
    "skipped": False, "interrupted": False, "stopping_generation": False, "job_no": 0,
    "job_timestamp": "0",
}
IDLE = Progress(share=0.0, seconds=0.0, step=0, steps=0, phase="queued", ahead=0)
# fmt: on


class Answers:
    """What the routes answer; called on threads."""

    def __init__(self, service: Service) -> None:
        self.service, self.options = service, CallerOptions()
        self.ended: Newest[tuple[str, str], asyncio.Event] = Newest()

    def models(self, _: Call) -> object:
        """The models."""
        # A title has no hash, so that it stays the same once that is known.
        return [
            {"title": i.path.name, "model_name": i.name, "filename": i.path.name, **MODEL_REST}
            | {"hash": known_hash(i.path)}
            for i in self.service.engine.catalogue.usable()
        ]

    def loras(self, _: Call) -> object:
        """The LoRAs."""
        return [
            {"name": i.name, "alias": i.name, "path": i.path.name, "metadata": dict(i.metadata)}
            for i in self.service.engine.catalogue.usable("lora")
        ]

    def embeddings(self, _: Call) -> object:
        """The embeddings."""
        loaded = {
            i.name: {
                **dict.fromkeys(("step", "sd_checkpoint", "sd_checkpoint_name")),
                "shape": i.details.get("width"),
                "vectors": i.details.get("vectors"),
            }
            for i in self.service.engine.catalogue.usable("embedding")
        }
        return {"loaded": loaded, "skipped": {}}

    def vaes(self, _: Call) -> object:
        """The VAEs."""
        return [
            {"model_name": i.path.name, "filename": i.path.name}
            for i in self.service.engine.catalogue.usable("vae")
        ]

    def upscalers(self, _: Call) -> object:
        """The upscalers."""
        return upscaler_list(self.service)

    def samplers(self, _: Call) -> object:
        """The samplers."""
        return [
            {"name": spec.label, "aliases": [spec.name, *spec.aliases], "options": {}}
            for spec in self.service.plugins.samplers
        ]

    def schedulers(self, _: Call) -> object:
        """The noise schedules of all samplers."""
        names = {name for spec in self.service.plugins.samplers for name in spec.schedules}
        known = [(name, schedule_label(name)) for name in sorted(names - {"default"})]
        known.insert(0, ("automatic", "Automatic"))
        return [{"name": name, "label": label, **SCHEDULER_REST} for name, label in known]

    def get_options(self, call: Call) -> object:
        """The caller's options; the model is a title of `sd-models`, or empty without any."""
        stored, info = self.options.of(call.caller), self._model(call)
        title, digits = ("", None) if info is None else (info.path.name, known_hash(info.path))
        shown = {**OPTIONS, **stored, MODEL: title, "sd_checkpoint_hash": digits}
        shown.pop("forge_preset", None)  # SillyTavern takes a server that has it for Forge
        return shown

    def set_options(self, call: Call) -> None:
        """Set options for the caller alone."""
        if call.given.get(MODEL):
            self.service.engine.catalogue.match(str(call.given[MODEL]))
        vae = str(call.given.get(VAE) or "Automatic")
        if vae.casefold() not in VAES:
            self.service.engine.catalogue.match(vae, "vae")
        self._read(ROWS, {"clip_skip": call.given.get(CLIP)})
        self.options.set(call.caller, call.given)

    def unload(self, call: Call) -> object:
        """Unload the caller's model, as soon as it is idle."""
        if (info := self._model(call)) is not None:
            self.service.engine.unload(info.name)
        return {}

    def png_info(self, call: Call) -> object:
        """The infotext of a picture, and its fields."""
        text = infotext_of(self._read(PICTURE, call.given)["image"] or b"") or ""
        items = {"parameters": text} if text else {}
        return {"info": text, "items": items, "parameters": infotext_details(text)}

    def interrupt(self, call: Call) -> object:
        """End the caller's requests, no other's."""
        self.skip(call)
        return {}

    def skip(self, call: Call) -> None:
        """End the caller's requests, no other's."""
        for record in _orders(call):
            record.cancel()

    def progress(self, call: Call) -> object:
        """How far the caller's oldest request is."""
        orders = _orders(call)
        record = orders[0] if orders else None
        at = self._at(record)
        skips = call.query.get("skip_current_image", "").lower() in ("true", "1", "yes", "on")
        steps = {"sampling_step": at.step, "sampling_steps": at.steps}
        return {
            "progress": at.share,
            "eta_relative": at.seconds,
            "state": {**STATE, "job": _task(record), "job_count": len(orders), **steps},
            "current_image": None if skips else _image(record),
            "textinfo": record and at.text,
        }

    def task(self, call: Call) -> object:
        """How far the caller's request with this `force_task_id` is."""
        asked = self._read(TASK, call.given)
        found = [each for each in _orders(call) if _task(each) == asked["id_task"]]
        record = found[0] if found else None
        ended = self.ended.get((call.caller, asked["id_task"]))
        at, queued = self._at(record), record is not None and record.phase == "queued"
        changed = asked["live_preview"] and at.step != asked["id_live_preview"]
        image = _image(record) if changed else None
        return {
            "active": record is not None and not queued,
            "queued": queued,
            "completed": record is None and ended is not None and ended.is_set(),
            "progress": None if record is None else at.share,
            "eta": None if record is None else at.seconds,
            "live_preview": image and f"data:image/png;base64,{image}",
            "id_live_preview": at.step if image else asked["id_live_preview"],
            "textinfo": "Waiting..." if record is None else at.text,
        }

    def memory(self, _: Call) -> object:
        """The memory of the process, in bytes."""
        unknown, known = {"error": "unavailable"}, process_memory()
        if known is None:
            return {"ram": unknown, "cuda": unknown}
        used, total = known
        return {"ram": {"free": total - used, "used": used, "total": total}, "cuda": unknown}

    def pending(self, call: Call) -> object:
        """The caller's requests in the queue."""
        tasks = [_task(record) for record in _orders(call) if record.phase == "queued"]
        return {"size": len(tasks), "tasks": tasks}

    def opened(self, record: Record) -> None:
        """Note an order, so that `task` knows when it has ended."""
        self.ended.put((record.caller, _task(record)), record.ended)

    def _model(self, call: Call) -> ModelInfo | None:
        stored = self.options.of(call.caller).get(MODEL)
        return self.service.engine.catalogue.match_or_default(stored)[0]

    def _read(self, rows: tuple[Row, ...], given: dict[str, Any]) -> dict[str, Any]:
        values, wrong = read_rows(rows, given, self.service.engine.settings.limits)
        if wrong:
            raise errors.RequestError(wrong)
        return values

    def _at(self, record: Record | None) -> Progress:
        if record is None:
            return IDLE
        status = next((s for s in self.service.engine.status().jobs if s.id == record.id), None)
        return self.service.jobs.progress(record, status)


def _orders(call: Call) -> list[Record]:
    """Those that came through this API."""
    return [record for record in call.orders if "a1111" in record.order.details]


def _task(record: Record | None) -> str:
    return "" if record is None else record.order.details["a1111"]["force_task_id"] or record.id


def _image(record: Record | None) -> str | None:
    png = None if record is None else record.preview_png()
    return None if png is None else base64_of(png)

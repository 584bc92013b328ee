"""`GET /metrics`: true, bounded, and active only in a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from calls import SMALL, app_of, ask
from imagine_core import Generation
from imagine_core.engine import Engine
from imagine_core.settings import ServerSettings
from imagine_core.testing import FakePlugin, build_test_engine
from imagine_plugins import metrics
from imagine_plugins.metrics import Counts

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Every sample of an answer, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def scrape(engine: Engine) -> Samples:
    answer = ask(app_of(engine), "GET", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(answer.text)


def test_generations_are_counted_by_how_they_ended(tmp_path: Path) -> None:
    fake = FakePlugin()
    engine = build_test_engine(tmp_path, fake)
    app = app_of(engine)
    for _ in range(2):
        assert ask(app, "POST", "/generate", json={**SMALL, "n": 3}).status_code == 200
    fake.loader.before = lambda rows: 1 / 0
    assert ask(app, "POST", "/generate", json=SMALL).status_code == 500
    assert ask(app, "POST", "/generate", json={**SMALL, "model": "nobody"}).status_code == 404
    engine.close()
    answer = ask(app, "GET", "/metrics").text
    found = samples(answer)
    assert value(found, "imagine_generations_started_total", model="tiny") == 3
    assert value(found, "imagine_generations_total", model="tiny", outcome="done") == 2
    assert value(found, "imagine_generations_total", model="tiny", outcome="failed") == 1
    assert value(found, "imagine_errors_total", type="generation_failed") == 1
    assert value(found, "imagine_pictures_total") == 6
    for phase in ("queued", "encoding", "denoising"):
        assert value(found, "imagine_phase_seconds_count", phase=phase) == 3
    assert value(found, "imagine_phase_seconds_count", phase="decoding") == 2
    assert value(found, "imagine_phase_seconds_sum", phase="denoising") > 0
    assert "nobody" not in answer
    assert SMALL["prompt"] not in answer


def test_the_engine_is_measured_when_somebody_asks(tmp_path: Path) -> None:
    engine = build_test_engine(tmp_path)
    app = app_of(engine)
    assert value(samples(ask(app, "GET", "/metrics").text), "imagine_ready") == 0
    ask(app, "POST", "/generate", json={**SMALL, "n": 2})
    found = samples(ask(app, "GET", "/metrics").text)
    assert value(found, "imagine_ready") == 1
    assert value(found, "imagine_evaluations_total") == 2 * SMALL["steps"]
    assert SMALL["steps"] <= value(found, "imagine_forwards_total") <= 2 * SMALL["steps"]
    assert ("imagine_model_memory_bytes", frozenset({("model", "tiny")})) in found
    assert value(found, "imagine_jobs", state="running") == 0
    assert value(found, "imagine_jobs", state="queued") == 0
    engine.close()


def test_what_runs_and_what_waits_is_told_apart(tmp_path: Path) -> None:
    from slow_server import LONG, Server, wait_until

    with Server(tmp_path / "models", max_rows=2).running() as server:
        connections = [server.post(LONG), server.post(LONG)]
        wait_until(lambda: server.phases() == ["denoising", "queued"])
        found = samples(httpx.get(server.url + "/metrics").text)
        assert value(found, "imagine_jobs", state="running") == 1
        assert value(found, "imagine_jobs", state="queued") == 1
        for connection in connections:
            connection.close()


def test_servers_in_one_process_do_not_meet(tmp_path: Path) -> None:
    one, two = (build_test_engine(tmp_path / name) for name in ("one", "two"))
    ask(app_of(one), "POST", "/generate", json=SMALL)
    one.close()
    two.close()
    assert value(scrape(two), "imagine_generations_started_total", model="tiny") == 0


def test_the_number_of_models_with_a_label_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_MODELS", 2)
    counts = Counts()
    for name in ("a", "b", "c", "d", "a"):
        counts.started(
            Generation(
                id="x", model=name, sampler="s", schedule="d", steps=1, width=8, height=8, images=1
            )
        )
    text = "".join(
        f"{sample.labels} {sample.value}"
        for family in counts.registry.collect()
        for sample in family.samples
        if sample.name == "imagine_generations_started_total"
    )
    assert text == "{'model': 'a'} 2.0{'model': 'b'} 1.0{'model': '(other)'} 2.0"


def test_metrics_want_the_key_and_pages_from_files_do_not_get_them(tmp_path: Path) -> None:
    engine = build_test_engine(tmp_path)
    app = app_of(engine, ServerSettings(host="127.0.0.1", api_key="secret"))
    key = {"Authorization": "Bearer secret"}
    assert ask(app, "GET", "/metrics").status_code == 401
    assert ask(app, "GET", "/metrics", headers=key).status_code == 200
    assert ask(app, "GET", "/metrics", headers=key | {"Origin": "null"}).status_code == 403


def test_where_there_is_no_server_nothing_is_counted_or_imported() -> None:
    code = """
import sys
from imagine_core import Generation
from imagine_core.plugins import build_plugins
plugins = build_plugins()
plugins.tell("generation_started", generation=Generation(
    id="x", model="m", sampler="s", schedule="d", steps=1, width=8, height=8, images=1))
assert not [report for report in plugins.reports() if report.problem]
assert "prometheus_client" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)

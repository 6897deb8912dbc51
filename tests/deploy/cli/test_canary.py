"""Test of `sightline models watch` on an in-memory log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.models import canary
from engines.repository.canary import end_canary, read_canary, start_canary
from ingest.exceptions import LogUnavailable
from ingest.kafka.log import Log
from ingest.kafka.memorylog import MemoryLog
from tests.engines.repository.test_canary import copied

T = TypeVar("T")


def test_models_show_prints_the_begin_and_end_of_each_canary(tmp_path: Path) -> None:
    repository = copied(tmp_path)
    end_canary(repository, start_canary(repository, "regions", 2, 0.5, 10**9), "rolled back", 2 * 10**9, "it failed")
    with (tmp_path / "regions" / "canaries.jsonl").open("a") as trail:
        trail.write('{"model":"reg')
    words = ["models", "show", "regions", "--models", str(tmp_path)]
    output = CliRunner().invoke(app, words, env={"COLUMNS": "200"}).output
    assert "canary 1970-01-01T00:00:01.000Z regions@2 began (share 0.5)\n" in output
    assert "canary 1970-01-01T00:00:02.000Z regions@2 rolled back (share 0.5): it failed\n" in output
    lines = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["canaries"]
    assert [(line["change"], line["at_ns"]) for line in lines] == [("began", 10**9), ("rolled back", 2 * 10**9)]


def test_a_watched_canary_is_judged_again_after_an_outage_of_kafka(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = copied(tmp_path)
    start_canary(repository, "regions", 2, 0.5, 1)

    class BrieflyGone(MemoryLog):
        requests = 0

        async def ends(self, topic: str) -> dict[int, int]:
            self.requests += 1
            if self.requests == 1:
                raise LogUnavailable("Kafka does not answer")
            if running := read_canary(repository, "regions"):
                end_canary(repository, running, "promoted", 2)
            return await super().ends(topic)

    def on_log(client_id: str, kafka: str, prefix: str, work: Callable[[Log], Awaitable[T]]) -> T:
        async def connected() -> T:
            return await work(BrieflyGone(1))

        return asyncio.run(connected())

    monkeypatch.setattr(canary, "on_log", on_log)
    found = CliRunner().invoke(app, ["models", "watch", "regions", "--models", str(tmp_path), "--every", "0.1"])
    assert found.exit_code == 0
    assert "regions was not judged: Kafka does not answer. Next try in 0.1 s" in found.output
    assert "regions@2: frames 0" in found.output

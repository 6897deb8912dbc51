"""Tests of the commands in docs/how-to/backtest.md, which run on the log in memory."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from engines.repository.canary import trail_of
from engines.repository.store import Repository
from ingest.kafka.memorylog import MemoryLog
from ingest.site.topic.store import publish
from tests.engines.repository.test_canary import copied
from tests.paths import ROOT
from tests.training.backtest.test_group import ALL, FixedShare
from tests.training.backtest.test_run import damaged, live

PAGE = (ROOT / "docs" / "how-to" / "backtest.md").read_text()
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.M) for line in block.splitlines()]


async def live_log() -> MemoryLog:
    """Return the log of the site that all tests share, with its configuration."""
    site = await live()
    await publish(site.log, site.config.entries.values())
    return site.log


class FixedGroup:
    """A consumer group whose only member gets all partitions."""

    def __init__(self, *_: object) -> None: ...

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[FixedShare]:
        yield FixedShare(ALL)


@pytest.fixture
def sightline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[int, str]]:
    """Return a function that runs a command on the log in memory, in a folder with a model repository."""
    log = asyncio.run(live_log())
    copied(tmp_path / "models")
    monkeypatch.chdir(tmp_path)

    def on_log(_: str, __: str, ___: str, work: Callable[[MemoryLog], Any]) -> Any:
        return asyncio.run(work(log))

    monkeypatch.setattr("deploy.cli.training.backtest.on_log", on_log)
    monkeypatch.setattr("deploy.cli.models.canary.on_log", on_log)
    monkeypatch.setattr("training.backtest.share.GroupShare", FixedGroup)

    def run(command: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, command.removeprefix("sightline ").split(), env={"COLUMNS": "300"})
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return run


def test_every_command_on_the_page_about_backtests_works(sightline: Callable[[str], tuple[int, str]]) -> None:
    outputs: list[str] = []
    for command in COMMANDS:
        code, output = sightline(command)
        assert code == 0, f"{command}\n{output}"
        outputs.append(output)
    assert len(COMMANDS) == 8
    assert "gained" in outputs[1]
    assert "passed" in outputs[1]
    assert "agreement 100.0%" in outputs[1]
    assert "<h1>Backtest of regions@2</h1>" in Path("report/index.html").read_text()
    assert json.loads(Path("report/report.json").read_text())["passed"]
    assert "regions@2 serves 20% of the cameras" in outputs[3]
    assert ": good" in outputs[4]
    assert "regions@1 serves all cameras" in outputs[5]
    assert outputs[6].endswith("regions: 1 → 2\n")
    assert Repository(Path("models")).promoted("regions") == 2
    assert [line.change for line in trail_of(Repository(Path("models")), "regions")] == ["began", "rolled back"]


def test_a_backtest_of_a_worse_model_exits_with_1_writes_pictures_and_prevents_its_promotion(
    sightline: Callable[[str], tuple[int, str]],
) -> None:
    damaged(Path("models"))  # the versions 3 and 4
    period = "--from 2026-11-30T02:00 --to 2026-11-30T03:00"
    code, output = sightline(f"sightline backtest --model regions@4 {period} --out report --camera north --json")
    assert code == 1, output
    report = json.loads(output)
    assert not report["passed"]
    assert any("lost" in reason for reason in report["reasons"])
    assert list(Path("report/lost").glob("north-line-*.jpg"))
    assert re.search(r'<img src="lost/north-line-[^"]*\.jpg"', Path("report/index.html").read_text())
    code, output = sightline("sightline models promote regions@4 --require-backtest")
    assert (code, Repository(Path("models")).promoted("regions")) == (2, 1)

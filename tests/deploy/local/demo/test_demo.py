"""Tests of failing demos, without a broker: a demo ends at once with the error and leaves no process running."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiokafka.errors import KafkaError

from console.context import ConsoleContext
from deploy.local.demo import run as demo
from deploy.local.demo import watch
from deploy.local.demo.figures import Figures
from deploy.local.demo.run import Demo, RunningStack
from deploy.local.demo.watch import watching
from deploy.local.exceptions import StackError
from deploy.local.stack import AGENT, StackFiles, console_service
from deploy.local.supervisor import ServiceSpec
from ingest.contract.topics import TOPICS
from ingest.exceptions import LogUnavailable
from ingest.kafka.settings import KafkaSettings
from ingest.site import Site

SETTINGS = KafkaSettings(bootstrap="127.0.0.1:9")
PATIENCE_S = 60.0
LASTS = "import signal; signal.pause()"


class NoKafka:
    """A fake of the Kafka log and consumer. ``follow`` is the error that ends reading the topics."""

    def __init__(self, follow: Exception | None = None) -> None:
        self.follow = follow
        self.stopped = 0

    async def partitions(self) -> dict[str, int]:
        return dict.fromkeys(TOPICS, 1)

    async def __aenter__(self) -> NoKafka:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def start(self) -> None: ...

    def assign(self, parts: object) -> None: ...

    async def seek_to_beginning(self, *parts: object) -> None: ...

    async def getmany(self, **_: object) -> dict[object, list[object]]:
        if self.follow:
            raise self.follow
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async def stop(self) -> None:
        self.stopped += 1


def replace_kafka(monkeypatch: pytest.MonkeyPatch, cluster: NoKafka) -> None:
    async def nothing(*_: Any, **__: Any) -> None: ...

    monkeypatch.setattr(demo, "KafkaLog", lambda *_: cluster)
    monkeypatch.setattr(demo.topicadmin, "create", nothing)
    monkeypatch.setattr(demo, "publish", nothing)
    monkeypatch.setattr(watch, "KafkaLog", lambda *_: cluster)
    monkeypatch.setattr(watch.kafka, "consumer", lambda *_, **__: cluster)


def run_services(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    argv = [sys.executable, "-S", "-c", LASTS]
    monkeypatch.setattr(demo, "services", lambda *_, **__: [ServiceSpec(name, argv) for name in names])


@contextlib.asynccontextmanager
async def all_running(_: KafkaSettings) -> AsyncIterator[Figures]:
    figures = Figures()
    figures.services.update(dict.fromkeys(("one", "two"), (0.0, "running")))
    yield figures


def endless(folder: Path, **values: Any) -> Demo:
    files = StackFiles(folder / "demo")
    site = Site(name="test", receivers=(demo.prepare_files(files),))
    return Demo(SETTINGS, files, folder, site, seconds=0.0, **values)


def children() -> list[psutil.Process]:
    return psutil.Process().children()


async def test_a_demo_stops_all_services_if_one_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replace_kafka(monkeypatch, NoKafka())
    run_services(monkeypatch, "one", "two", "one", AGENT)
    before = children()
    with pytest.raises(StackError, match="two services are called one"):
        await demo.run(endless(tmp_path))
    assert children() == before


async def test_a_demo_prints_the_address_and_the_first_password_of_its_console(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stop, steps, specs = asyncio.Event(), [], []

    async def during(_: RunningStack) -> None:
        stop.set()
        raise LookupError("seen")

    def lasting(*arguments: Any) -> ServiceSpec:
        specs.append(console_service(*arguments))
        return ServiceSpec("console", [sys.executable, "-S", "-c", LASTS])

    replace_kafka(monkeypatch, NoKafka())
    monkeypatch.setattr(demo, "watching", all_running)
    monkeypatch.setattr(demo, "console_service", lasting)
    run_services(monkeypatch, "one", AGENT)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(LookupError, match="seen"):
            await demo.run(endless(tmp_path, during=during, console=True, on_step=steps.append))
    found = next(step for step in steps if step.startswith("console: http://127.0.0.1:"))
    port = found.removesuffix("/").rpartition(":")[2]
    password = next(step for step in steps if step.startswith("first sign-in")).split()[-1]
    assert f"--listen=127.0.0.1:{port}" in specs[0].argv
    context = ConsoleContext(tmp_path / "demo" / "console")
    admin = context.users.named("admin")
    assert admin
    assert await context.passwords.verify(admin.password, password)
    context.close()


async def test_an_error_in_the_callback_of_a_demo_ends_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def during(_: RunningStack) -> None:
        raise LookupError("nothing to kill")

    replace_kafka(monkeypatch, NoKafka())
    monkeypatch.setattr(demo, "watching", all_running)
    run_services(monkeypatch, "one", AGENT)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(LookupError, match="nothing to kill"):
            await demo.run(endless(tmp_path, during=during))


async def test_the_callback_of_a_demo_is_cancelled_when_the_demo_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def during(_: RunningStack) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def on_tick(*_: object) -> None:
        if begun.is_set():
            raise LookupError("no terminal")

    replace_kafka(monkeypatch, NoKafka())
    monkeypatch.setattr(demo, "watching", all_running)
    run_services(monkeypatch, "one", AGENT)
    with pytest.raises(LookupError, match="no terminal"):
        await demo.run(endless(tmp_path, during=during, on_tick=on_tick))
    assert ended.is_set()


async def test_a_demo_that_cannot_read_its_topics_ends_with_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = NoKafka(follow=ZeroDivisionError("a bug"))
    replace_kafka(monkeypatch, cluster)
    run_services(monkeypatch, "one", AGENT)
    before = children()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ZeroDivisionError, match="a bug"):
            await demo.run(endless(tmp_path))
    assert children() == before
    assert cluster.stopped == 1


@pytest.mark.parametrize(
    ("error", "raised"), [(KafkaError("gone"), LogUnavailable), (ZeroDivisionError("a bug"), ZeroDivisionError)]
)
async def test_a_failing_topic_reader_cancels_the_code_in_its_with_block_and_raises_the_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    cluster = NoKafka(follow=error)
    replace_kafka(monkeypatch, cluster)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(raised, match=str(error.args[0])):
            async with watching(SETTINGS):
                await asyncio.Event().wait()
    assert cluster.stopped == 1


async def test_the_topic_reader_stops_when_its_with_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = NoKafka()
    replace_kafka(monkeypatch, cluster)
    async with watching(SETTINGS):
        assert cluster.stopped == 0
    assert cluster.stopped == 1
    with pytest.raises(LookupError, match="the block's own"):
        async with watching(SETTINGS):
            raise LookupError("the block's own")
    assert cluster.stopped == 2

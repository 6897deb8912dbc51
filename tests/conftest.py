"""What every test may use: a real broker, names of its own, footage, and a check that nothing is left running."""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

from deploy.local.exceptions import DeployError
from deploy.local.kafka.broker import Broker, default_home
from ingest.runtime.clock import Deadline
from tests.paths import ROOT
from tests.peers import rtsp
from tests.peers.rtsp import RtspServer

hypothesis.settings.register_profile("sightline", deadline=None)  # a busy machine is no counterexample
hypothesis.settings.load_profile("sightline")

GONE_S = 5.0
"""How long a child that was told to stop may take until the leak check calls it leaked."""


@pytest.fixture(scope="session")
def home() -> Path:
    """Where Kafka's jars are kept between runs: SIGHTLINE_HOME, or .sightline beside the code."""
    return default_home() if os.environ.get("SIGHTLINE_HOME") else ROOT / ".sightline"


@pytest.fixture(scope="session")
def kafka(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real broker: the one that SIGHTLINE_KAFKA names, else one of this session's own."""
    named = os.environ.get("SIGHTLINE_KAFKA")
    if named:
        yield named
        return
    broker = Broker(home, tmp_path_factory.mktemp("kafka"))
    yield from _serving(broker)


@pytest.fixture
def broker_factory(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Broker]]:
    """Make private brokers, not yet started, that a test may kill and start again. Stopped at its end."""
    made: list[Broker] = []

    def make() -> Broker:
        made.append(Broker(home, tmp_path_factory.mktemp("own-kafka")))
        return made[-1]

    yield make
    for broker in made:
        broker.kill()
        shutil.rmtree(broker.folder, ignore_errors=True)


@pytest.fixture
def own_broker(broker_factory: Callable[[], Broker]) -> Broker:
    """A private broker, started, that a test may kill and start again."""
    broker = broker_factory()
    _start(broker)
    return broker


@pytest.fixture
def prefix() -> str:
    """A prefix for topics, groups and transactional ids that no other test has, e.g. ``t-1f2e3d4c.``."""
    return f"t-{secrets.token_hex(4)}."


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of footage and public models beside the project. Skip where it is not there."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the project: footage and public models are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def rtsp_is_there() -> None:
    """Skip where GStreamer's RTSP server is not installed, and say how it is."""
    reason = rtsp.why_not()
    if reason:
        pytest.skip(f"no RTSP server: {reason}")


@pytest.fixture
def rtsp_server(rtsp_is_there: None) -> Iterator[Callable[..., RtspServer]]:
    """Start RTSP servers of ``{name: units file}``, which end with the test."""
    made: list[RtspServer] = []

    def serve(files: dict[str, Path], *options: str) -> RtspServer:
        made.append(RtspServer(files, *options))
        made[-1].start()
        return made[-1]

    yield serve
    for server in made:
        server.kill()


@pytest.fixture(autouse=True)
def no_leaked_children() -> Iterator[None]:
    """Fail a test that leaves a child process running."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    _, left = psutil.wait_procs([c for c in left if not _is_kept(c)], timeout=GONE_S)
    for child in left:
        child.kill()
    if left:
        pytest.fail(f"left running: {[child.pid for child in left]}; stop every process that a test starts")


@pytest.fixture(autouse=True)
def no_leaks_in_async_tests(request: pytest.FixtureRequest) -> None:
    """Check the tasks of every test that has an event loop."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("no_leaked_tasks")


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail a test that leaves an asyncio task running."""
    yield
    this = asyncio.current_task()
    deadline = Deadline.after(GONE_S)
    left = _running(this)
    while left and not deadline.passed:
        await asyncio.wait(left, timeout=deadline.left)
        left = _running(this)
    for task in left:
        task.cancel()
    if left:
        pytest.fail(f"left running: {left}; await or cancel every task that a test starts")


def _is_kept(child: psutil.Process) -> bool:
    """multiprocessing keeps one helper per process, started on first use, which ends with its parent."""
    try:
        command = " ".join(child.cmdline())
    except psutil.Error:
        return False
    return "multiprocessing.resource_tracker" in command or "multiprocessing.forkserver" in command


def _running(this: asyncio.Task[object] | None) -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if task is not this and not task.done()}


def _serving(broker: Broker) -> Iterator[str]:
    _start(broker)
    yield broker.bootstrap
    broker.kill()
    shutil.rmtree(broker.folder, ignore_errors=True)


def _start(broker: Broker) -> None:
    """A broker that cannot be had fails the test: a suite that skips its broker proves nothing."""
    try:
        broker.start()
    except DeployError as error:
        broker.kill()
        pytest.fail(str(error), pytrace=False)

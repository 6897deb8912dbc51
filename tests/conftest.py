"""Fixtures for all tests: brokers, topic prefixes, footage, RTSP servers, and checks for leaked processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
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
from deploy.local.kafka.broker import Broker
from ingest.runtime.clock import Deadline
from tests.paths import ROOT
from tests.peers import rtsp
from tests.peers.rtsp import RtspServer

hypothesis.settings.register_profile(
    "sightline",
    deadline=None,  # a slow example on a busy machine is not a failure
    # The same examples in each run, so that a change fails only for its own faults. Set SIGHTLINE_EXPLORE to search
    # with new examples.
    derandomize=not os.environ.get("SIGHTLINE_EXPLORE"),
)
hypothesis.settings.load_profile("sightline")

START_S = 150.0
"""Time limit for a broker to start in a test, in seconds. A machine that runs many other processes needs a minute."""
GONE_S = 30.0
"""Time after which a child process or task that should have ended counts as leaked, in seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with services or a broker first.

    These files take longest. If they ran last, the other workers would be idle.
    """
    slow = {item.path for item in items if any(item.get_closest_marker(name) for name in ("e2e", "kafka"))}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Let searches for unreachable objects skip the imported modules and the collected tests, which stay.

    Otherwise each call of ``gc.collect`` in a test takes a third of a second.
    """
    gc.freeze()


@pytest.fixture(scope="session")
def home() -> Path:
    """Return the folder that keeps Kafka's jars between runs: SIGHTLINE_HOME, else .sightline in the repository."""
    return Broker().home if os.environ.get("SIGHTLINE_HOME") else ROOT / ".sightline"


@pytest.fixture(scope="session")
def kafka(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a real broker: that of SIGHTLINE_KAFKA, else of a broker started for this session."""
    named = os.environ.get("SIGHTLINE_KAFKA")
    if named:
        yield named
        return
    broker = Broker(home, tmp_path_factory.mktemp("kafka"))
    yield from _serving(broker)


@pytest.fixture
def broker_factory(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Broker]]:
    """Return a factory of private brokers, not yet started. The test may kill and restart these brokers."""
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
    """Return a started private broker. The test may kill and restart this broker."""
    broker = broker_factory()
    _start(broker)
    return broker


@pytest.fixture
def prefix() -> str:
    """Return a unique prefix for topics, groups and transactional ids, e.g. ``t-1f2e3d4c.``."""
    return f"t-{secrets.token_hex(4)}."


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of footage and public models beside the repository.

    Skip the test if the folder is missing.
    """
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the project: footage and public models are not part of the repository")
    return folder


@pytest.fixture(scope="session")
def rtsp_is_there() -> None:
    """Skip the test if GStreamer's RTSP server is not installed, with the command that installs it."""
    reason = rtsp.why_not()
    if reason:
        pytest.skip(f"no RTSP server: {reason}")


@pytest.fixture
def rtsp_server(rtsp_is_there: None) -> Iterator[Callable[..., RtspServer]]:
    """Return a function that starts an RTSP server of ``{name: units file}``. Servers end with the test."""
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
    before = {child.pid for child in _children()}
    yield
    left = [child for child in _children() if child.pid not in before]
    _, left = psutil.wait_procs([c for c in left if not _is_multiprocessing_helper(c)], timeout=GONE_S)
    for child in left:
        child.kill()
    if left:
        pytest.fail(f"left running: {[child.pid for child in left]}; stop every process that a test starts")


@pytest.fixture(autouse=True)
def no_leaks_in_async_tests(request: pytest.FixtureRequest) -> None:
    """Apply ``no_leaked_tasks`` to every asynchronous test."""
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


def _children() -> list[psutil.Process]:
    """Return the child processes of this process and their children.

    psutil reads the state of every process on the machine. That costs two milliseconds per call, so the usual answer
    of no children comes from Linux's own list.
    """
    with contextlib.suppress(OSError):  # the list of a thread that has just ended, or a system without these lists
        if not any((task / "children").read_text() for task in Path("/proc/self/task").iterdir()):
            return []
    return psutil.Process().children(recursive=True)


def _is_multiprocessing_helper(child: psutil.Process) -> bool:
    """Return whether a child is a helper of multiprocessing, which ends with its parent."""
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
    """Start a broker, or fail the test. Skipping would hide that nothing was tested."""
    try:
        broker.start(timeout_s=START_S)
    except DeployError as error:
        broker.kill()
        pytest.fail(str(error), pytrace=False)

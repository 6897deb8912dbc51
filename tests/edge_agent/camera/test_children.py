"""Tests of failing capture children: the agent continues, and no process or open file is left."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest
from structlog.testing import capture_logs

from edge_agent.camera import camera
from edge_agent.camera.children import close_pipes, kill, last_stderr_line, start_capture, stop_process, wait_exited
from edge_agent.camera.messages import CaptureProgress, Notice, read_message, write_message
from ingest.site import CameraConfig, GateConfig
from tests.peers.rig import Rig, flows, until

Spawn = Callable[..., Awaitable[Process]]
WRITES = "import os, struct, sys, msgpack; write = sys.stdout.buffer.write; "
PACKED = "data = msgpack.packb({}); write(struct.pack('>I', len(data)) + data)"
GARBLED = {
    "no length": WRITES + "write(b'Corrupt JPEG data: 2 extraneous bytes')",
    "not msgpack": WRITES + "write(b'\\0\\0\\0\\5hello')",
    "unknown kind": WRITES + PACKED.format("['Other', {}]"),
    "unknown field": WRITES + PACKED.format("['CaptureProgress', {'captured': 1, 'more': 1}]"),
    "invalid account": WRITES + PACKED.format("['CaptureEnd', {'last': 3, 'tail': {'first': 9}, 'finished': True}]"),
    "endless": WRITES + "write(b'\\xff' * 4)\nwhile True: write(b'x' * 65536)",
}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


async def start(script: str) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdin=PIPE, stdout=PIPE, stderr=PIPE)


def children(script: str, before: int = 10**9) -> Spawn:
    """Return a starter of children: a test script for the first ``before`` starts, and then the real capture."""
    started = 0

    async def spawned(*args: object) -> Process:
        nonlocal started
        started += 1
        return await (start(script) if started <= before else start_capture(*args))  # type: ignore[arg-type]

    return spawned


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


SCENE = CameraConfig(name="a", source="simulated:road", width=160, height=90, gate=GateConfig(motion=False))


@pytest.mark.parametrize("script", GARBLED.values(), ids=GARBLED)
async def test_a_malformed_message_from_a_capture_child_causes_an_outage_only_of_its_camera(
    script: str, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera, "start_capture", children(script, before=2))
    one = rig.add(SCENE)
    with capture_logs() as lines:
        async with rig.running():
            await flows(one)
    lost = [line for line in lines if line["event"] == "camera_lost"]
    assert len(lost) == 1
    assert "malformed message from the capture process" in lost[0]["reason"]
    assert rig.epochs("a")[one.epoch].end is not None


async def test_a_camera_retries_when_no_capture_process_can_be_started(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = [OSError(errno.EAGAIN, "Resource temporarily unavailable")] * 3

    async def spawned(*args: object) -> Process:
        if refused:
            raise refused.pop()
        return await start_capture(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(camera, "start_capture", spawned)
    one = rig.add(SCENE)
    with capture_logs() as lines:
        async with rig.running():
            await flows(one)
    assert [line["reason"] for line in lines if line["event"] == "camera_lost"] == [
        "the capture process cannot be started: Resource temporarily unavailable"
    ]
    epochs = rig.epochs("a")
    assert [epoch.end.last for epoch in epochs.values() if epoch.end and not epoch.frames] == [-1, -1, -1]


async def test_a_camera_kills_its_capture_child_and_retries_when_no_thread_can_be_started(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, refused = threading.Thread.start, ["one", "and another"]

    def begun(thread: threading.Thread) -> None:
        if refused and thread.name.startswith("asyncio-waitpid"):
            refused.pop()
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", begun)
    one, before = rig.add(SCENE), len(psutil.Process().children())
    with capture_logs() as lines:
        async with rig.running():
            await flows(one)
            assert len(psutil.Process().children()) == before + 1
    assert [line["reason"] for line in lines if line["event"] == "camera_lost"] == [
        "the capture process cannot be started: can't start new thread"
    ]


async def test_killed_capture_children_leave_no_open_file_in_the_agent(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera, "start_capture", children(GARBLED["endless"]))
    one = rig.add(SCENE)
    async with rig.running():
        await until(lambda: one.state == "down", "the first end")
        before = open_files()
        first = one.epoch
        await until(lambda: one.epoch >= first + 2, "two more")
        await until(lambda: open_files() <= before, "closed pipes")


@pytest.mark.parametrize("turns", range(5))
async def test_a_camera_can_be_cancelled_while_a_message_of_its_capture_child_arrives(turns: int, rig: Rig) -> None:
    """``asyncio.wait_for`` in Python 3.11 would return the message and ignore the cancellation."""
    one, pipe, message = rig.add(SCENE), asyncio.StreamReader(), io.BytesIO()
    write_message(message, CaptureProgress(1))
    waiting = asyncio.create_task(one._next(cast(Process, SimpleNamespace(stdout=pipe))))
    for _ in range(3):
        await asyncio.sleep(0)
    pipe.feed_data(message.getvalue())
    for _ in range(turns):
        await asyncio.sleep(0)
    was_done = not waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled() or was_done


async def test_a_cancelled_camera_leaves_no_child_process(rig: Rig) -> None:
    one = rig.add(SCENE)
    running = asyncio.create_task(one.run())
    await flows(one)
    process = one._process
    assert process is not None
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert process.returncode is not None


async def test_a_capture_child_is_killed_when_the_wait_for_its_exit_is_cancelled() -> None:
    process = await start("import time; time.sleep(3600)")
    ending = asyncio.create_task(stop_process(process, 3600))
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait({ending})
    await wait_exited(process)
    assert process.returncode == -signal.SIGKILL
    close_pipes(process)


async def test_killing_a_capture_child_that_has_just_exited_raises_no_error() -> None:
    """The event loop has noticed the exit of the child, and the task that waits for the exit has not."""
    process = await start("pass")
    assert await last_stderr_line(process) == ""
    await wait_exited(process)
    kill(process)
    await stop_process(process, 0)
    close_pipes(process)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "the capture process was killed by SIGKILL"),
        ("import os, sys; print('malloc(): broken', file=sys.stderr, flush=True); os.abort()", "SIGABRT: malloc"),
        ("import sys; sys.exit('rtsp://u:hunter2@cam/x: no')", "rtsp://…@cam/x: no"),
        ("import os; os._exit(7)", "status 7"),
    ],
)
async def test_the_outage_reason_has_the_exit_status_and_last_output_line_of_the_capture_child(
    script: str, reason: str, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera, "start_capture", children(script))
    one = rig.add(SCENE)
    async with rig.running():
        await until(lambda: one.state == "down", "an end")
        assert reason in one.reason
        assert "hunter2" not in one.reason


def test_a_capture_child_sends_library_output_to_standard_error_and_disables_core_dumps() -> None:
    script = (
        "import os, resource, sys; from edge_agent.camera import child\n"
        "def run(self, source, stop):\n"
        "    os.write(1, b'Corrupt JPEG data'); print(resource.getrlimit(resource.RLIMIT_CORE), flush=True)\n"
        "child.FrameIntake.run = run; sys.exit(child.main())"
    )
    orders = {"camera": SCENE.model_dump(mode="json"), "epoch": 1}
    said = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(orders).encode() + b"\n",
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert said.stdout == b""
    assert b"Corrupt JPEG data(0, 0)" in said.stderr


async def test_a_message_of_a_capture_child_may_contain_a_file_name_that_is_not_utf8() -> None:
    pipe, message = asyncio.StreamReader(), io.BytesIO()
    write_message(message, Notice(os.fsdecode(b"caf\xe9.jpg: no picture")))
    pipe.feed_data(message.getvalue())
    assert await read_message(pipe) == Notice(r"caf\udce9.jpg: no picture")

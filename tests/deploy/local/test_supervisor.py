"""Tests of the supervisor on real processes: restarts, order of stopping, and no process left over."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy.local.exceptions import StackError
from deploy.local.supervisor import ServiceSpec, Supervisor
from ingest.runtime.clock import Deadline

PATIENCE_S = 60.0
LASTS = "import signal; print('up', flush=True); signal.pause()"
NOTES_ITS_END = """
import signal, sys
def end(*_):
    open({path!r}, "a").write({name!r} + " ")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
signal.pause()
"""
DEAF = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile 1: signal.pause()"
)


def python(name: str, code: str, stop_timeout_s: float = 10.0, **env: str) -> ServiceSpec:
    return ServiceSpec(name, [sys.executable, "-S", "-c", code], env, stop_timeout_s)


async def until(done: Callable[[], bool]) -> None:
    deadline = Deadline.after(PATIENCE_S)
    while not done():
        assert not deadline.passed, "not in time"
        await asyncio.sleep(0.01)


def ups(folder: Path, name: str) -> int:
    return (folder / f"{name}.log").read_text().count("up")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_service_killed_by_a_signal_is_restarted(tmp_path: Path, number: signal.Signals) -> None:
    async with Supervisor([python("a", LASTS), python("b", LASTS)], tmp_path, seed=1) as stack:
        await until(lambda: ups(tmp_path, "a") == 1)
        first, other = stack.pid("a"), stack.pid("b")
        assert first is not None
        os.kill(first, number)
        await until(lambda: ups(tmp_path, "a") == 2)
        assert stack.pid("a") not in (None, first)
        assert stack.pid("b") == other
        assert stack.restarts() == {"a": 1, "b": 0}


async def test_a_service_is_stopped_and_started_again_on_request(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    async with Supervisor([python("a", NOTES_ITS_END.format(path=str(ends), name="a"))], tmp_path, seed=1) as stack:
        await until(lambda: ups(tmp_path, "a") == 1)
        first = stack.pid("a")
        assert await stack.restart("a")
        await until(lambda: ups(tmp_path, "a") == 2)
        assert stack.pid("a") not in (None, first)
        assert stack.restarts() == {"a": 1}
        assert ends.read_text() == "a "


async def test_only_a_service_that_exits_with_an_error_is_restarted(tmp_path: Path) -> None:
    async with Supervisor([python("good", "print('up')"), python("bad", "print('up'); exit(3)")], tmp_path) as stack:
        await until(lambda: stack.restarts()["bad"] >= 2)
        assert "good" not in stack.alive
        assert stack.restarts()["good"] == 0


async def test_a_service_inherits_the_environment_and_its_own_variables(tmp_path: Path) -> None:
    spec = python("a", "import os; print(os.environ['PATH'] and os.environ['FLAVOUR'], flush=True)", FLAVOUR="mint")
    async with Supervisor([spec], tmp_path):
        await until(lambda: "mint" in (tmp_path / "a.log").read_text())


async def test_services_stop_in_reverse_order_of_their_start(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    specs = [python(name, NOTES_ITS_END.format(path=str(ends), name=name)) for name in ("first", "second", "third")]
    async with Supervisor(specs, tmp_path) as stack:
        await until(lambda: all(ups(tmp_path, spec.name) for spec in specs))
        assert await stack.stop()
        assert stack.alive == frozenset()
    assert ends.read_text().split() == ["third", "second", "first"]


async def test_services_stop_in_a_given_order(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    specs = [python(name, NOTES_ITS_END.format(path=str(ends), name=name)) for name in ("a", "b", "c")]
    async with Supervisor(specs, tmp_path) as stack:
        await until(lambda: all(ups(tmp_path, spec.name) for spec in specs))
        assert await stack.stop(["b"])
    assert ends.read_text().split() == ["b", "c", "a"]


async def test_a_service_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    async with Supervisor([python("deaf", DEAF, stop_timeout_s=0.2)], tmp_path) as stack:
        await until(lambda: ups(tmp_path, "deaf") == 1)
        assert not await stack.stop()
        assert stack.pid("deaf") is None
        assert stack.restarts() == {"deaf": 0}


async def test_a_service_suspended_by_sigstop_is_killed_when_asked_to_stop(tmp_path: Path) -> None:
    async with Supervisor([python("paused", LASTS, stop_timeout_s=0.2)], tmp_path) as stack:
        pid = stack.pid("paused")
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        assert not await stack.stop_one("paused")


async def test_a_stop_during_the_restart_pause_cancels_the_restart(tmp_path: Path) -> None:
    async with Supervisor([python("bad", "print('up'); exit(1)")], tmp_path) as stack:
        await until(lambda: stack.restarts()["bad"] >= 3)  # after several restarts, the pause is most of a second
        assert await stack.stop()
        starts = ups(tmp_path, "bad")
    assert ups(tmp_path, "bad") == starts


async def test_the_supervisor_retries_a_service_that_fails_to_start(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    async with Supervisor([python("a", LASTS)], logs, seed=1) as stack:
        await until(lambda: ups(logs, "a") == 1)
        shutil.rmtree(logs)  # from now on, the log file cannot be opened
        os.kill(stack.pid("a") or 0, signal.SIGKILL)
        await until(lambda: stack.restarts()["a"] >= 2)
        assert stack.alive == frozenset()
        logs.mkdir()
        await until(lambda: stack.pid("a") is not None and ups(logs, "a") == 1)


async def test_child_processes_of_a_service_are_killed_when_it_ends(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {LASTS!r}]).wait()"
    async with Supervisor([python("parent", code)], tmp_path, seed=1) as stack:
        await until(lambda: ups(tmp_path, "parent") == 1)
        pid = stack.pid("parent")
        (orphan,) = psutil.Process(pid).children()
        os.kill(pid or 0, signal.SIGKILL)
        await until(lambda: ups(tmp_path, "parent") == 2)
        await until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)


def test_services_die_with_the_supervisor(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib, sys
from deploy.local.supervisor import ServiceSpec, Supervisor
async def main():
    stack = Supervisor([ServiceSpec("a", [sys.executable, "-S", "-c", {LASTS!r}])], pathlib.Path({str(tmp_path)!r}))
    await stack.start()
    print(stack.pid("a"), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        child = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.kill()
    assert psutil.wait_procs([child], timeout=PATIENCE_S)[1] == []


async def test_duplicate_and_unknown_service_names_are_errors(tmp_path: Path) -> None:
    async with Supervisor([python("a", LASTS)], tmp_path) as stack:
        with pytest.raises(StackError, match="called a"):
            await stack.add(python("a", LASTS))
        with pytest.raises(StackError, match="'b'"):
            stack.pid("b")

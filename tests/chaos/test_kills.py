"""Tests that the ledger balances after every process of a running stack, and the broker, was killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from deploy.local.demo.figures import Figures
from deploy.local.demo.run import DemoOutcome, During, RunningStack
from deploy.local.kafka.broker import Broker
from deploy.local.stack import AGENT
from deploy.local.supervisor import ServiceSpec, Supervisor
from ingest.kafka.settings import SESSION_TIMEOUT_MS
from ingest.runtime.clock import Deadline

pytestmark = [pytest.mark.chaos, pytest.mark.kafka, pytest.mark.timeout(600)]

RECOVER_S = 60.0
"""Maximum time until a restarted process works again."""


async def until(done: Callable[[], bool], event: str, seconds: float = RECOVER_S) -> None:
    deadline = Deadline.after(seconds)
    while not done():
        assert not deadline.passed, f"{event} did not happen within {seconds:.0f} s"
        await asyncio.sleep(0.1)


async def results_flow(figures: Figures, results: int = 15) -> None:
    """Wait for ``results`` more results."""
    wanted = figures.results + results
    await until(lambda: figures.results >= wanted, f"{results} more results")


async def kill(stack: Supervisor, name: str) -> None:
    pid, restarts = stack.pid(name), stack.restarts()[name]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: stack.restarts()[name] > restarts and stack.pid(name) is not None, f"restart of {name}")


def capture_child(stack: Supervisor) -> psutil.Process:
    agent = psutil.Process(stack.pid(AGENT))
    return next(c for c in agent.children(recursive=True) if "edge_agent.camera.child" in " ".join(c.cmdline()))


def require_balance(outcome: DemoOutcome) -> None:
    totals = outcome.balance["totals"]
    assert outcome.balance["balanced"], totals["examples"]
    assert totals["unaccounted"] == 0
    assert totals["duplicates"] == 0
    assert totals["captured"] == sum(totals["withheld"].values()) + totals["delivered"]
    report = outcome.report
    assert report["alerts"] == report["events"] > 0
    assert report["deliveries"] == {"delivered": report["alerts"], "dead": 0}


def require_posts(folder: Path, outcome: DemoOutcome, kills: int = 0) -> None:
    """Require one post per alert at the receiver, and at most one more for each kill of the dispatcher or broker.

    A dispatcher repeats a post if a kill falls between the answer to the post and the write of the receipt.
    """
    posts = [json.loads(line)["id"] for line in (folder / "demo" / "received.jsonl").read_text().splitlines()]
    assert len(set(posts)) == outcome.report["alerts"]
    assert len(posts) - len(set(posts)) <= kills


async def test_the_ledger_of_an_undisturbed_run_balances_and_most_line_crossings_are_reported(
    run_stack: Callable[[float, During | None], Awaitable[DemoOutcome]], tmp_path: Path
) -> None:
    async def during(running: RunningStack) -> None:
        await until(lambda: len(running.figures.crossings()) >= 8, "eight crossings", 150.0)

    outcome = await run_stack(10.0, during)
    require_balance(outcome)
    require_posts(tmp_path, outcome)
    truth = outcome.report["truth"]
    assert truth["line_crossings"] > 5
    assert truth["found"] >= 0.7 * truth["line_crossings"]
    assert outcome.balance["totals"]["unclean"] == 0


async def test_the_ledger_balances_after_kills_of_every_process_and_the_broker_and_a_pause_of_an_engine_node(
    run_stack: Callable[..., Awaitable[DemoOutcome]], own_broker: Broker, tmp_path: Path
) -> None:
    """The engine node is stopped for longer than its group session; another node takes its partitions over meanwhile
    and fences it."""

    async def during(running: RunningStack) -> None:
        stack, figures = running.stack, running.figures
        await results_flow(figures)
        capture_child(stack).kill()
        await results_flow(figures)
        for name in (AGENT, "prepare-live", "engine", "analyse", "alerts", "dispatch"):
            await kill(stack, name)
            await results_flow(figures)
        await asyncio.to_thread(own_broker.kill)
        await asyncio.to_thread(own_broker.start)
        await results_flow(figures)
        await pause_beside_a_successor(running)

    outcome = await run_stack(20.0, during, small=True)
    require_balance(outcome)
    require_posts(tmp_path, outcome, kills=2)


async def pause_beside_a_successor(running: RunningStack) -> None:
    """Stop the engine node for longer than its group session, and let it go on beside its successor."""
    stack, figures = running.stack, running.figures
    first = stack.pid("engine")
    assert first is not None
    argv = [sys.executable, "-m", "deploy.cli.app", "engine", f"--models={running.models}"]
    os.kill(first, signal.SIGSTOP)
    await stack.add(ServiceSpec("engine-2", argv, running.settings.to_env()))
    paused = Deadline.after(SESSION_TIMEOUT_MS / 1000 + 3)
    await results_flow(figures)  # the second node has taken over
    await until(lambda: paused.passed, "the end of the pause")
    os.kill(first, signal.SIGCONT)
    await results_flow(figures)


async def test_the_ledger_balances_after_a_fused_node_is_killed_replaced_by_separate_services_and_restored(
    run_stack: Callable[..., Awaitable[DemoOutcome]], tmp_path: Path
) -> None:
    """The broker refuses an engine node without --fused beside the fused node."""
    logs = tmp_path / "demo" / "logs"

    async def during(running: RunningStack) -> None:
        stack, figures = running.stack, running.figures

        async def add(name: str, *argv: str) -> None:
            await stack.add(
                ServiceSpec(name, [sys.executable, "-m", "deploy.cli.app", *argv], running.settings.to_env())
            )

        await results_flow(figures)
        await add("refused", "engine", f"--models={running.models}")
        await until(lambda: stack.restarts()["refused"] > 0, "end of the node without --fused")
        await stack.stop_one("refused")
        await kill(stack, "engine")
        await results_flow(figures)
        await stack.stop_one("engine")
        for lane in ("live", "late"):
            await add(f"prepare-{lane}", "prepare", f"--lane={lane}")
        await add("engine-2", "engine", f"--models={running.models}")
        await results_flow(figures)
        await asyncio.gather(kill(stack, "prepare-live"), kill(stack, "engine-2"))
        await asyncio.gather(*map(stack.stop_one, ("prepare-live", "prepare-late", "engine-2")))
        await add("engine-3", "engine", f"--models={running.models}", "--fused")
        await results_flow(figures)

    outcome = await run_stack(15.0, during, fused=True, small=True)
    require_balance(outcome)
    assert "engine nodes with --fused: stop them first" in (logs / "refused.log").read_text()

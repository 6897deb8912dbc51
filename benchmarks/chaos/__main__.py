"""Disturbs every process of a stack by a seeded plan, and counts frames, events, alerts and posts.

``python -m benchmarks.chaos --seconds 600 --faults 40`` runs the site of ``sightline demo`` on a Kafka broker that
only the benchmark uses. The plan sends SIGKILL, SIGSTOP with SIGCONT, or SIGTERM with a restart to the agent, its
capture processes, all services, the webhook receiver and the broker. The run passes if

- the ledger balances: no frame is unaccounted for, and no frame has two final states,
- each event that an undisturbed replay of the same results and readings raises is on the topic ``events`` exactly
  once,
- each event has one alert, and each alert is delivered,
- the receiver got one post of each alert, and at most one more post per kill of dispatcher, receiver or broker.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.chaos.evidence import gather
from benchmarks.chaos.faults import FaultInjector
from benchmarks.chaos.judge import InjectedFault, judge
from benchmarks.chaos.plan import PAUSE_S, ChaosOptions, plan
from benchmarks.report import keep, log_progress
from deploy.local.demo.run import SHIPPED_MODELS, Demo, RunningStack, prepare_files
from deploy.local.demo.run import run as run_stack
from deploy.local.demo.site import simulated_site
from deploy.local.exceptions import StackError
from deploy.local.kafka.broker import Broker
from deploy.local.stack import StackFiles
from engines.repository.store import Repository
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import eventloop

MODEL = "regions"
RECEIVER_TIMEOUT_S = 3 * PAUSE_S[1]
"""Time limit of a post, in seconds. The dispatcher repeats a post that takes longer, so the limit exceeds the longest
pause of the receiver."""


async def run(options: ChaosOptions, folder: Path, broker: Broker, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the stack, inject the planned faults, and return the report. The run starts and stops ``broker``."""
    files, settings = StackFiles(folder / "stack"), KafkaSettings(bootstrap=broker.start(), prefix="chaos.")
    receiver = prepare_files(files).model_copy(update={"timeout_s": RECEIVER_TIMEOUT_S})
    site = simulated_site(Repository(SHIPPED_MODELS).open(MODEL).manifest, receiver)
    injected, problems, restarts = list[InjectedFault](), list[str](), dict[str, int]()

    async def during(running: RunningStack) -> None:
        injector = FaultInjector(running, broker, say)
        await injector.run(plan(options))
        injected.extend(injector.injected)
        restarts.update(running.stack.restarts())

    try:
        await run_stack(Demo(settings, files, SHIPPED_MODELS, site, options.seconds, on_step=say, during=during))
    except StackError as error:
        problems.append(str(error))
    say("reading the topics")
    async with KafkaLog(settings, "chaos") as log:
        report = judge(await gather(log, site, files.received, injected, problems))
    return {"restarts": restarts, **report}


def main(
    seconds: Annotated[float, typer.Option(help="Length of the run, without start and drain.", min=60.0)] = 600.0,
    faults: Annotated[int, typer.Option(help="Number of faults.", min=1)] = 40,
    seed: Annotated[int, typer.Option(help="Seed of the plan: targets, kinds, times and lengths of the faults.")] = 1,
    out: Annotated[Path | None, typer.Option(help="File for the report, as JSON.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder that keeps all logs and topics.")] = None,
) -> None:
    """Disturb every process of a stack, and check that no frame, event or alert is lost or duplicated.

    Exits with 1 if a check fails.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that is down is part of the plan
    options, began_s = ChaosOptions(seconds, faults, seed), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        with Broker(folder=folder / "kafka") as broker:
            figures = eventloop.run(run(options, folder, broker, log_progress))
    ran_s = round(time.monotonic() - began_s)
    verdict = "failed" if figures["violations"] else "passed"
    report = keep("chaos", {**asdict(options), "ran_s": ran_s, "verdict": verdict, **figures}, None)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    typer.echo(text, nl=False)
    if figures["violations"]:
        typer.echo(f"chaos failed: {'; '.join(figures['violations'])}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

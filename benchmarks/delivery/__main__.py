"""Measures the delivery of alerts to faulty receivers, with a real broker and the dispatcher as a process.

``python -m benchmarks.delivery`` has three parts:

- ``faults``: one receiver with each fault. The run reports the receipts of their alerts, and checks that no redirect
  was followed.
- ``kills``: 10,000 alerts for a receiver that fails 30 % of the posts at random, while the dispatcher is killed
  20 times. The run fails if an alert is neither accepted nor dead, or if a post has another id than its alert.
- ``isolation``: the latency from the alert to its post at nine receivers, alternately with a tenth receiver that
  accepts alerts, and with a tenth receiver that never answers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.delivery.judge import final_states, lost, receipts_table
from benchmarks.delivery.peers import Behaviour, FaultyPeer
from benchmarks.delivery.rig import DispatchRig, untrusted_tls
from benchmarks.report import KeepIt, conclude, log_progress
from deploy.local.kafka.broker import Broker
from ingest.contract.records import Delivery
from ingest.runtime import eventloop
from stream.delivery.history import alerts_since

DOWN_S = 4.0
"""Time in seconds for which a receiver is down in the fault that restarts it."""
RETRIES: tuple[float, ...] = (0, 1, 2, 4)
"""Schedule of the retries in the part ``faults``, in seconds."""
LONG_RETRIES: tuple[float, ...] = (0, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 16)
"""Schedule of the retries in the part ``kills``: an alert fails all 12 attempts once in 1.9 million."""
WAIT_S = 900.0
PEERS = 10
"""Number of receivers in the part ``isolation``."""
FINAL = ("delivered", "dead")

Say = Callable[[str], None]


@dataclass(frozen=True)
class DeliveryOptions:
    """Options of a run."""

    alerts: int = 10_000
    kills: int = 20
    turns: int = 3
    turn_s: float = 20.0
    rate: float = 10.0


async def measure_faults(bootstrap: str, folder: Path) -> dict[str, Any]:
    """Deliver three alerts to one receiver with each fault, and return their receipts."""
    behaviours: dict[str, Behaviour] = {
        "accepts": "accept",
        "slow": "hang",
        "answers-500": "500",
        "answers-429": "429",
        "answers-410": "410",
        "redirects": "redirect",
        "untrusted": "accept",
        "not-allowed": "accept",
        "restarted": "accept",
    }
    peers = {name: FaultyPeer(behaviour) for name, behaviour in behaviours.items()}
    async with DispatchRig.on(bootstrap, "faults", folder) as rig, AsyncExitStack() as stack:
        for name, peer in peers.items():
            if name == "restarted":
                async with peer.running():  # reserves a port, and is gone until later
                    continue
            await stack.enter_async_context(peer.running(untrusted_tls(folder) if name == "untrusted" else None))
        usual = {"retry_s": RETRIES, "timeout_s": 1.0, "history": True}
        receivers = [rig.receiver(name, peer.port, **usual) for name, peer in peers.items()]
        receivers = [
            one.model_copy(update={"url": one.url.replace("http:", "https:")})
            if one.name == "untrusted"
            else one.model_copy(update={"allow_private": one.name != "not-allowed"})
            for one in receivers
        ]
        alerts = await rig.raise_alerts(range(3))
        async with rig.dispatching(receivers):
            await rig.until(lambda found: bool(found), WAIT_S, "the first receipt")
            await asyncio.sleep(DOWN_S)
            await stack.enter_async_context(peers["restarted"].running())
            receipts = await rig.until(lambda found: _finals(found) == 3 * len(peers), WAIT_S, "all final receipts")
    table = receipts_table(receipts)
    for name, peer in peers.items():
        table[name]["posts"] = dict(Counter(post.answer for post in peer.posts))
    return {"alerts": len(alerts), "receivers": table}


async def measure_kills(options: DeliveryOptions, bootstrap: str, folder: Path, say: Say) -> dict[str, Any]:
    """Deliver many alerts to a flaky receiver while the dispatcher is killed, and judge the result."""
    peer = FaultyPeer("flaky", seed=1)
    async with DispatchRig.on(bootstrap, "kills", folder) as rig, peer.running():
        alerts = await rig.raise_alerts(range(options.alerts))
        async with rig.dispatching([rig.receiver("flaky", peer.port, retry_s=LONG_RETRIES, history=True)]):
            for number in range(1, options.kills + 1):
                goal = number * options.alerts // (options.kills + 1)
                await peer.until(lambda goal=goal: len(peer.posts) >= goal)  # type: ignore[misc]
                rig.kill()
                say(f"kill {number}: {len(peer.posts)} posts, {len(set(peer.accepted))} alerts accepted")
            receipts = await rig.until(lambda found: _finals(found) == len(alerts), WAIT_S, "all final receipts")
        began_s = time.monotonic()
        listed = len(await alerts_since(rig.log, 0))
        list_s = time.monotonic() - began_s
    faults = lost(alerts, "flaky", receipts, peer.posts)
    repeats = len(peer.accepted) - len(set(peer.accepted))
    return {
        "alerts": len(alerts),
        "kills": rig.kills,
        "posts": dict(Counter(post.answer for post in peer.posts)),
        "states": dict(Counter(one.state for one in final_states(receipts).values())),
        "accepted_again": repeats,
        "receipts": len(receipts),
        "listed": listed,
        "list_s": round(list_s, 2),
        "faults": faults[:20],
    }


async def measure_isolation(options: DeliveryOptions, bootstrap: str, folder: Path, say: Say) -> dict[str, Any]:
    """Measure the latency at nine receivers, alternately with a tenth receiver that accepts alerts, and with a tenth
    receiver that never answers."""
    found: dict[str, list[dict[str, float]]] = {"accept": [], "hang": []}
    for turn in range(options.turns):
        for behaviour, turns in found.items():
            latencies = await _turn(options, bootstrap, folder, f"isolation-{turn}-{behaviour}", behaviour)
            cuts = statistics.quantiles(latencies, n=100)
            turns.append({"p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1), "posts": len(latencies)})
            say(f"turn {turn}, tenth receiver {behaviour}: {turns[-1]}")
    medians = {
        behaviour: {key: statistics.median(turn[key] for turn in turns) for key in ("p50_ms", "p99_ms")}
        for behaviour, turns in found.items()
    }
    return {"turns": found, "medians": medians}


async def _turn(options: DeliveryOptions, bootstrap: str, folder: Path, name: str, tenth: str) -> list[float]:
    """Return the latencies in ms from alert to post at all receivers but the tenth."""
    peers = [FaultyPeer("accept") for _ in range(PEERS - 1)]
    last = FaultyPeer("hang" if tenth == "hang" else "accept")
    async with DispatchRig.on(bootstrap, name, folder) as rig, AsyncExitStack() as stack:
        for peer in (*peers, last):
            await stack.enter_async_context(peer.running())
        receivers = [rig.receiver(f"r{n}", peer.port, history=True) for n, peer in enumerate((*peers, last))]
        async with rig.dispatching(receivers):
            await rig.raise_alerts(range(10))  # connections, code and topics are warm afterwards
            await _until_posted(peers, 10)
            for number in range(10, 10 + round(options.turn_s * options.rate)):
                await rig.raise_alerts(range(number, number + 1))
                await asyncio.sleep(1.0 / options.rate)
            await _until_posted(peers, number + 1)
    return [(post.at_ns - post.captured_ns) / 1e6 for peer in peers for post in peer.posts[10:]]


async def _until_posted(peers: Sequence[FaultyPeer], count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        for peer in peers:
            await peer.until(lambda peer=peer: len(peer.posts) >= count)  # type: ignore[misc]


def _finals(receipts: Sequence[Delivery]) -> int:
    return sum(one.state in FINAL for one in final_states(receipts).values())


def verdict(report: dict[str, Any]) -> list[str]:
    """Return the failed checks of a run."""
    expected = {
        "accepts": "delivered",
        "restarted": "delivered",
        "answers-429": "delivered",
        **dict.fromkeys(("slow", "answers-500", "answers-410", "redirects", "untrusted", "not-allowed"), "dead"),
    }
    wrong = []
    if faults := report.get("faults"):
        wrong += [
            f"{name}: {faults['receivers'][name]['states']}"
            for name, state in expected.items()
            if faults["receivers"][name]["states"] != {state: faults["alerts"]}
        ]
    if kills := report.get("kills"):
        wrong += kills["faults"]
    return wrong


async def run(
    options: DeliveryOptions, parts: Sequence[str], bootstrap: str, folder: Path, say: Say
) -> dict[str, Any]:
    """Run the parts, and return the report."""
    report: dict[str, Any] = {}
    if "faults" in parts:
        report["faults"] = await measure_faults(bootstrap, folder)
        say(json.dumps(report["faults"], indent=2))
    if "kills" in parts:
        report["kills"] = await measure_kills(options, bootstrap, folder, say)
        say(json.dumps(report["kills"], indent=2))
    if "isolation" in parts:
        report["isolation"] = await measure_isolation(options, bootstrap, folder, say)
    return report


def main(
    parts: Annotated[str, typer.Option(help="Parts to run, separated by commas.")] = "faults,kills,isolation",
    alerts: Annotated[int, typer.Option(help="Alerts of the part kills.", min=1)] = 10_000,
    kills: Annotated[int, typer.Option(help="Kills of the dispatcher.", min=0)] = 20,
    turns: Annotated[int, typer.Option(help="Turns of the part isolation.", min=1)] = 3,
    keep_it: KeepIt = False,
) -> None:
    """Deliver alerts to faulty receivers, while the dispatcher is killed, and next to a dead receiver."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # new topics have no leader at first
    options = DeliveryOptions(alerts, kills, turns)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with Broker(folder=folder / "kafka") as broker:
            report = eventloop.run(run(options, parts.split(","), broker.bootstrap, folder, log_progress))
    conclude("delivery", {**asdict(options), **report}, verdict(report), keep_it=keep_it)


if __name__ == "__main__":
    typer.run(main)

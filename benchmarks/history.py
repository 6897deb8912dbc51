"""Starts the dispatcher of alerts on a long history of alerts and delivery receipts, and measures posts, time and
memory of each start.

``python -m benchmarks.history --receipts 400000 --alerts 300`` runs the dispatcher and a receiver as processes, once
without a history, and once with many receipts whose alerts retention has deleted. The dispatcher starts without a
committed offset, delivers the alerts, and is restarted three times: after SIGTERM, SIGKILL and SIGTERM. The benchmark
writes one alert before each start. The run passes if every alert has one post, and if a restart on the long history
costs no more than a restart without a history.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from benchmarks.chaos.evidence import posts_in
from benchmarks.chaos.judge import Post
from benchmarks.delivery.alerts import alert_record, numbered_alert
from benchmarks.pipeline import peak_memory_mb
from benchmarks.report import KeepIt, conclude, log_progress
from deploy.local.demo.run import PARTITIONS, SHIPPED_MODELS, prepare_files
from deploy.local.kafka.broker import Broker
from deploy.local.stack import StackFiles, services
from deploy.local.supervisor import Supervisor
from ingest.contract.codec import encode_json
from ingest.contract.records import Delivery
from ingest.contract.topics import DELIVERIES
from ingest.kafka import settings as kafka
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log, Outgoing
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import arguments
from ingest.runtime import eventloop
from ingest.runtime.clock import Deadline
from ingest.site.topic.store import publish

DISPATCH, RECEIVER = "dispatch", "webhook-receiver"
RESTARTS = (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)
"""Signals that end the dispatcher before each restart."""
WAIT_S = 300.0
"""Maximum time for a start or for the delivery of all alerts, in seconds. A start that had to read all 400,000
receipts took 58 s."""
BATCH = 5_000
"""Number of receipts that are sent to Kafka concurrently."""
SLACK_S = 5.0
"""Accepted difference between starts with and without a history, in seconds: a busy machine starts Python slowly."""
SLACK_MB = 20.0
"""Accepted difference of the peak memory between starts with and without a history, in MB."""


@dataclass(frozen=True)
class HistoryOptions:
    """Options of a run: the number of receipts whose alerts are deleted, and the number of alerts on the topic."""

    receipts: int = 400_000
    alerts: int = 300


@dataclass
class MeasuredStart:
    """One start of the dispatcher: the time until the post of a new alert, and the peak memory.

    ``after`` names the signal that ended the previous dispatcher, or is ``no commit`` for the first start.
    """

    after: str
    first_post_s: float
    peak_mb: float


class Dispatching:
    """A dispatcher and a receiver as processes, on one set of topics."""

    def __init__(self, settings: KafkaSettings, folder: Path, log: Log) -> None:
        self._files, self._log = StackFiles(folder), log
        self.receiver = prepare_files(self._files)
        port = urlsplit(self.receiver.url).port or 0
        specs = {spec.name: spec for spec in services(self._files, settings, SHIPPED_MODELS, port)}
        self._dispatch = specs[DISPATCH]
        self.stack = Supervisor([specs[RECEIVER]], self._files.logs)
        self._raised, self._started = 0, False

    @property
    def posts(self) -> Counter[str]:
        """Number of posts by alert."""
        return Counter(post.alert for post in self._received())

    async def raise_alerts(self, count: int) -> str:
        """Write alerts, and return the id of the last one."""
        alerts = [numbered_alert("history", self._raised + number) for number in range(count)]
        self._raised += count
        await asyncio.gather(*(self._log.produce(alert_record(alert, PARTITIONS)) for alert in alerts))
        return alerts[-1].id

    async def until_posted(self, count: int, receipts: int) -> None:
        """Wait until the receiver has ``count`` posts, and the topic ``deliveries`` has ``receipts`` plus ``count``
        records."""
        deadline = Deadline.after(WAIT_S)
        while self.posts.total() < count or sum((await self._log.ends(DELIVERIES)).values()) < receipts + count:
            assert not deadline.passed, f"{self.posts.total()} of {count} posts after {WAIT_S:.0f} s"
            await asyncio.sleep(0.1)

    async def start(self, after: str) -> MeasuredStart:
        """Write one alert while no dispatcher runs, start a dispatcher, and wait for the post of this alert."""
        alert = await self.raise_alerts(1)
        began_ns, deadline = time.time_ns(), Deadline.after(WAIT_S)
        await (self.stack.restart(DISPATCH) if self._started else self.stack.add(self._dispatch))
        self._started = True
        posted = list[int]()
        while not posted:
            assert not deadline.passed, f"the alert was not posted within {WAIT_S:.0f} s"
            await asyncio.sleep(0.1)
            posted = [post.at_ns for post in self._received() if post.alert == alert]
        return MeasuredStart(after, round((posted[0] - began_ns) / 1e9, 2), round(peak_memory_mb(self._pid), 1))

    async def end(self, number: signal.Signals) -> None:
        """End the dispatcher by a signal."""
        os.kill(self._pid, number)
        await self.stack.stop_one(DISPATCH)

    def _received(self) -> list[Post]:
        return posts_in(self._files.received) if self._files.received.exists() else []

    @property
    def _pid(self) -> int:
        pid = self.stack.pid(DISPATCH)
        assert pid is not None, "the dispatcher ended"
        return pid


async def measure(
    options: HistoryOptions, receipts: int, settings: KafkaSettings, folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure the dispatcher's starts with ``receipts`` records on the topic ``deliveries``."""
    await topicadmin.create(settings, partitions=PARTITIONS)
    await write_receipts(settings, receipts)
    async with KafkaLog(settings, "history") as log:
        dispatching = Dispatching(settings, folder, log)
        await publish(log, [dispatching.receiver])
        async with dispatching.stack:
            starts = [await dispatching.start("no commit")]
            await dispatching.raise_alerts(options.alerts)
            for number, how in enumerate(RESTARTS):
                await dispatching.until_posted(options.alerts + 1 + number, receipts)
                await dispatching.end(how)
                starts.append(await dispatching.start(how.name))
                say(f"{receipts} receipts: {starts[-1]}")
            await dispatching.until_posted(options.alerts + 1 + len(RESTARTS), receipts)
            await dispatching.stack.stop_one(DISPATCH)
            posts = dispatching.posts
    return {
        "receipts": receipts,
        "alerts": options.alerts + 1 + len(RESTARTS),
        "posts": posts.total(),
        "posts_per_alert": {str(times): n for times, n in sorted(Counter(posts.values()).items())},
        "starts": [asdict(start) for start in starts],
    }


async def write_receipts(settings: KafkaSettings, count: int) -> None:
    """Write final receipts of alerts that are not on the topic ``alerts``."""
    producer = kafka.producer(settings, "history")
    await producer.start()
    try:
        for first in range(0, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            sent = [await producer.send(**arguments(settings, _receipt(number))) for number in numbers]
            await asyncio.gather(*sent)
    finally:
        await producer.stop()


def faults(empty: dict[str, Any], long: dict[str, Any]) -> list[str]:
    """Compare the starts without and with a history, and return the faults."""
    wrong = [
        f"{measured['receipts']} receipts: {measured['posts']} posts of {measured['alerts']} alerts"
        for measured in (empty, long)
        if measured["posts_per_alert"] != {"1": measured["alerts"]}
    ]
    for figure, slack in (("first_post_s", SLACK_S), ("peak_mb", SLACK_MB)):
        before, after = (_restart_median(measured, figure) for measured in (empty, long))
        if after > before + slack:
            wrong.append(f"{figure} of a restart: {before} without a history, {after} with one")
    return wrong


def _restart_median(measured: dict[str, Any], figure: str) -> float:
    return float(statistics.median(start[figure] for start in measured["starts"][1:]))


def _receipt(number: int) -> Outgoing:
    receipt = Delivery(
        alert=f"deleted-{number}",
        incident=f"deleted-{number}",
        receiver="receiver",
        state="delivered",
        attempt=1,
        status=204,
        attempted_ns=time.time_ns(),
    )
    return Outgoing(DELIVERIES, number % PARTITIONS, encode_json(receipt), key=receipt.alert.encode())


async def run(options: HistoryOptions, folder: Path, bootstrap: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure the dispatcher's starts without and with a history, and return the report."""
    empty = KafkaSettings(bootstrap=bootstrap, prefix="history-empty.")
    long = KafkaSettings(bootstrap=bootstrap, prefix="history-long.")
    return {
        "without": await measure(options, 0, empty, folder / "without", say),
        "with": await measure(options, options.receipts, long, folder / "with", say),
    }


def main(
    receipts: Annotated[int, typer.Option(help="Receipts of deleted alerts on the topic.", min=1)] = 400_000,
    alerts: Annotated[int, typer.Option(help="Alerts that are delivered before the restarts.", min=1)] = 300,
    work: Annotated[Path | None, typer.Option(help="Folder that keeps all logs and topics.")] = None,
    keep_it: KeepIt = False,
) -> None:
    """Restart the dispatcher on a long history: check that no alert is posted again, and compare the starts."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # new topics have no leader at first
    options = HistoryOptions(receipts, alerts)
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        with Broker(folder=folder / "kafka") as broker:
            report = eventloop.run(run(options, folder, broker.bootstrap, log_progress))
    wrong = faults(report["without"], report["with"])
    conclude("history", {**asdict(options), **report}, wrong, keep_it=keep_it)


if __name__ == "__main__":
    typer.run(main)

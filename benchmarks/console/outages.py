"""Outages of the broker and of the evidence store during alerts: lost alerts and evidence, and whether the console's
pages name the outages."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.chaos.evidence import gather, records_of
from benchmarks.chaos.judge import InjectedFault
from benchmarks.chaos.judge import judge as judge_chaos
from benchmarks.chaos.plan import BROKER, KILL, PlannedFault
from benchmarks.console.pages import BROKER_TEXT, STORE_TEXT, FollowedPage
from benchmarks.console.rig import PreparedStack, RunningConsole, run_beside
from benchmarks.console.s3server import BUCKET, S3Server
from deploy.local.demo.run import STOP_AGENT_S, RunningStack
from deploy.local.exceptions import StackError
from deploy.local.kafka.broker import Broker
from deploy.local.stack import AGENT
from ingest.contract.codec import decode_json
from ingest.contract.records import Alert, Event, EvidenceRecord
from ingest.contract.topics import ALERTS, EVENTS, EVIDENCE
from ingest.exceptions import LogUnavailable
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import Deadline
from stream.evidence.location import open_store
from stream.evidence.verify import logged_evidence, verdicts

STORE = "evidence store"
TEXTS = {BROKER: BROKER_TEXT, STORE: STORE_TEXT}
"""Text by which a page names an outage."""
PAGES = ("/system", "/events")
NAMED_S = 20.0
"""Longest time in seconds until a page must name an outage."""
PAGE_S = 5.0
"""Longest time in seconds that a page may take during an outage."""
COMPLETE_S = 150.0
"""Time limit in seconds for the missing pictures and clips after the last outage. The worker tries again every
30 s, and makes one clip a second on a busy machine."""
BACK_S = 180.0
"""Time limit in seconds for the broker's restart, which takes long while all services restart too."""
_POLL_S = 2.0
FaultKind = Literal["kill", "pause"]


@dataclass(frozen=True)
class OutageDuringAlerts:
    """Options of a run. ``calm_s`` is the time in seconds before each outage and after the last."""

    outage_s: float = 60.0
    calm_s: float = 30.0
    kind: FaultKind = "kill"


class OutageWindow(NamedTuple):
    """The beginning and the end of an outage, on the monotonic clock in seconds and in Unix ns."""

    begin_s: float
    end_s: float
    begin_ns: int
    end_ns: int


@dataclass
class AlertRecords:
    """The alerts of events, and the evidence records by alert id, as the topics have them."""

    events: list[Event] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    evidence: dict[str, EvidenceRecord] = field(default_factory=dict)

    @classmethod
    async def read(cls, log: Log) -> AlertRecords:
        """Read the topics to their ends. Raise LogUnavailable."""
        alerts = [decode_json(Alert, record.value) for record in await records_of(log, ALERTS)]
        records = [decode_json(EvidenceRecord, record.value) for record in await records_of(log, EVIDENCE)]
        return cls(
            [decode_json(Event, record.value) for record in await records_of(log, EVENTS)],
            [one for one in alerts if one.data.change != "end"],
            {one.alert: one for one in records if one.state == "stored"},
        )

    def incomplete(self) -> list[str]:
        """Return a fault for each alert whose pictures or clip are missing, although its frames are in the log."""
        faults = []
        for alert in self.alerts:
            if alert.data.frame is None:
                continue
            record = self.evidence.get(alert.id)
            files = [*alert.data.evidence, *(record.files if record else ())]
            if not any(one.media_type.startswith("image/") for one in files):
                faults.append(f"{alert.id} has no picture: {alert.data.evidence_missing or 'no reason'}")
            if alert.data.clip and not any(one.media_type.startswith("video/") for one in files):
                missing = record.clip.missing if record and record.clip else "no record"
                faults.append(f"{alert.id} has no clip: {missing}")
        return faults

    def silent(self) -> list[str]:
        """Return a fault for each alert that went out without pictures and without a reason."""
        return [
            f"{alert.id} has neither a picture nor a reason"
            for alert in self.alerts
            if alert.data.frame and not alert.data.evidence and not alert.data.evidence_missing
        ]

    def events_within(self, window: OutageWindow) -> int:
        """Return the number of events whose frames were captured during an outage."""
        return sum(window.begin_ns <= one.data.captured_ns <= window.end_ns for one in self.events)


def page_faults(pages: Sequence[FollowedPage], windows: Mapping[str, OutageWindow]) -> list[str]:
    """Return the faults of the console's pages: a page that did not name an outage in time or named the outage
    afterwards, and a page that was slow or failed. Pure."""
    faults = [f"{page.path}: {page.failures()} requests failed" for page in pages if page.failures()]
    for name, window in windows.items():
        text = TEXTS[name]
        for page in pages:
            named_s = page.named_after_s(text, window.begin_s, window.end_s)
            if named_s is None or named_s > NAMED_S:
                faults.append(f"{page.path} named the outage of the {name} after {named_s} s")
            if page.cleared_after_s(text, window.end_s) is None:
                faults.append(f"{page.path} names the outage of the {name} although it has ended")
            if (slowest_s := page.slowest_s(window.begin_s, window.end_s)) > PAGE_S:
                faults.append(f"{page.path} took {slowest_s} s during the outage of the {name}")
    return faults


class OutageRun:
    """One run: the stack, the console, the outages and the pages."""

    def __init__(
        self, options: OutageDuringAlerts, broker: Broker, server: S3Server, say: Callable[[str], None]
    ) -> None:
        self._options, self._broker, self._server, self._say = options, broker, server, say
        self.pages = [FollowedPage(path) for path in PAGES]
        self.windows: dict[str, OutageWindow] = {}
        self.restarts: dict[str, int] = {}

    async def disturb(self, running: RunningStack, console: RunningConsole) -> None:
        """Cause the outages, and wait until the evidence is complete."""
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(page.follow(console.client)) for page in self.pages]
            try:
                await asyncio.sleep(self._options.calm_s)
                for name, begin, end in self._faults():
                    await self._outage(name, begin, end)
                    await asyncio.sleep(self._options.calm_s)
                await running.stack.stop_one(AGENT, STOP_AGENT_S)  # more events would need more clips
                await self._complete(running.settings)
            finally:
                for task in following:
                    task.cancel()
        self.restarts = running.stack.restarts()

    def _faults(self) -> list[tuple[str, Callable[[], object], Callable[[], object]]]:
        if self._options.kind == KILL:
            return [
                (BROKER, self._broker.kill, partial(self._broker.start, timeout_s=BACK_S)),
                (STORE, self._server.kill, self._server.start),
            ]
        process = self._broker.process
        assert process, "the broker must run"
        return [
            (BROKER, partial(process.signal, signal.SIGSTOP), partial(process.signal, signal.SIGCONT)),
            (STORE, partial(self._server.signal, signal.SIGSTOP), partial(self._server.signal, signal.SIGCONT)),
        ]

    async def _outage(self, name: str, begin: Callable[[], object], end: Callable[[], object]) -> None:
        self._say(f"{self._options.kind}: {name}, for {self._options.outage_s:g} s")
        begin_s, begin_ns = time.monotonic(), time.time_ns()
        await asyncio.to_thread(begin)
        try:
            await asyncio.sleep(self._options.outage_s)
        finally:
            end_s, end_ns = time.monotonic(), time.time_ns()
            await asyncio.to_thread(end)
        self.windows[name] = OutageWindow(begin_s, end_s, begin_ns, end_ns)
        for page in self.pages:
            named_s, slowest_s = page.named_after_s(TEXTS[name], begin_s, end_s), page.slowest_s(begin_s, end_s)
            self._say(f"{page.path}: named after {named_s} s, slowest response {slowest_s} s")

    async def _complete(self, settings: KafkaSettings) -> None:
        """Wait until every alert has its pictures and its clip, or until the time limit."""
        deadline = Deadline.after(COMPLETE_S)
        async with KafkaLog(settings, "outages") as log:
            while (missing := (await AlertRecords.read(log)).incomplete()) and not deadline.passed:
                self._say(f"{len(missing)} pictures or clips are missing")
                await asyncio.sleep(_POLL_S)


async def run(
    options: OutageDuringAlerts, folder: Path, broker: Broker, server: S3Server, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[str]]:
    """Run the stack with outages, and return the report and the faults."""
    os.environ |= server.environment
    stack = PreparedStack.of("outages", folder, broker, f"s3://{BUCKET}/evidence")
    one, problems = OutageRun(options, broker, server, say), list[str]()
    try:
        await run_beside(stack, one.disturb, say)
    except (StackError, LogUnavailable) as error:
        problems.append(str(error))
    say("reading the topics")
    async with KafkaLog(stack.settings, "outages") as log:
        injected = _injected(options, one.windows)
        report = judge_chaos(await gather(log, stack.site, stack.files.received, injected, problems))
        records = await AlertRecords.read(log)
        stored = dict[str, int]()
        store_faults = []
        for each in verdicts(open_store(stack.files.evidence), await logged_evidence(log)):
            stored[each.verdict] = stored.get(each.verdict, 0) + 1
            store_faults += [f"{each.name} is {each.verdict}"] if each.verdict in ("missing", "changed") else []
    faults = [*report["violations"], *records.silent(), *records.incomplete(), *store_faults]
    faults += page_faults(one.pages, one.windows)
    faults += [
        f"no event during the outage of the {name}" for name, w in one.windows.items() if not records.events_within(w)
    ]
    return {**_figures(one, records, stored), "restarts": one.restarts, **report, "faults": faults}, faults


def _figures(one: OutageRun, records: AlertRecords, stored: Mapping[str, int]) -> dict[str, Any]:
    return {
        "alerts": len(records.alerts),
        "alerts_without_pictures_at_first": sum(bool(a.data.evidence_missing) for a in records.alerts),
        "clips": sum(f.media_type == "video/mp4" for r in records.evidence.values() for f in r.files),
        "files": dict(stored),
        "outages": {
            name: {
                "events_captured_meanwhile": records.events_within(window),
                "pages": {
                    page.path: {
                        "named_after_s": page.named_after_s(TEXTS[name], window.begin_s, window.end_s),
                        "cleared_after_s": page.cleared_after_s(TEXTS[name], window.end_s),
                        "slowest_response_s": page.slowest_s(window.begin_s, window.end_s),
                    }
                    for page in one.pages
                },
            }
            for name, window in one.windows.items()
        },
    }


def _injected(options: OutageDuringAlerts, windows: Mapping[str, OutageWindow]) -> list[InjectedFault]:
    """Return the outage of the broker as a fault, which may explain one repeated post."""
    window = windows.get(BROKER)
    if window is None:
        return []
    planned = PlannedFault(options.calm_s, BROKER, options.kind, options.outage_s)
    return [InjectedFault(planned, window.begin_ns, window.end_ns, int(options.kind == KILL))]

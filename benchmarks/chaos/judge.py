"""The verdict on a chaos run, from the topics and the receiver's file. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from benchmarks.chaos.plan import BROKER, PlannedFault
from ingest.contract.records import Event
from stream.analyse.reported import Sighting

DELIVERY = frozenset(["dispatch", "webhook-receiver", BROKER])
"""Processes whose kill may fall between the receiver's answer to a post and the write of the post's receipt. The
dispatcher repeats a post that has no receipt."""
CLOCK_NS = 1_000_000_000
"""Tolerance when the time of a post is compared with the time of a kill, in ns: the receiver stores a post a moment
before it answers."""
_EXAMPLES = 10


@dataclass(frozen=True)
class InjectedFault:
    """A fault that was caused, with the Unix times in ns when it began and when the process ran again.

    ``kills`` counts the processes ended by SIGKILL, including processes that did not stop in time after SIGTERM.
    ``problem`` is the error if the fault could not be caused or the process did not run again, else empty.
    """

    planned: PlannedFault
    begin_ns: int
    end_ns: int
    kills: int
    problem: str = ""


class Post(NamedTuple):
    """One HTTP post at the receiver: its Unix time in ns, and the id of its alert."""

    at_ns: int
    alert: str


@dataclass
class ChaosEvidence:
    """The data of a chaos run from which ``judge`` decides whether frames, events or alerts were lost.

    ``alerts`` lists the alert id of each record on the topic ``alerts``. ``receipts`` maps an alert id to its final
    delivery state.

    ``replayed`` are the events that an undisturbed stage raises from the same results or readings.
    """

    totals: dict[str, Any]
    balanced: bool
    injected: list[InjectedFault] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    replayed: list[Event] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    receipts: dict[str, str] = field(default_factory=dict)
    dead_letters: int = 0
    problems: list[str] = field(default_factory=list)


def judge(evidence: ChaosEvidence) -> dict[str, Any]:
    """Return the report of a run. The report's ``violations`` are empty if the run passed."""
    per_alert = Counter(post.alert for post in evidence.posts)
    explained, unexplained = extra_posts(evidence.posts, evidence.injected)
    found, wanted = Counter(map(_cause, evidence.events)), Counter(map(_cause, evidence.replayed))
    alerts, events = Counter(evidence.alerts), {event.id for event in evidence.events}
    figures = {
        "unaccounted": evidence.totals["unaccounted"],
        "duplicates": evidence.totals["duplicates"],
        "lost_events": sorted(map(str, (wanted - found).keys())),
        "events_not_in_the_replay": sorted(map(str, found.keys() - wanted.keys())),
        "repeated_events": sorted(str(cause) for cause, count in found.items() if count > 1),
        "repeated_alerts": _repeated(alerts),
        "events_without_alert": len(events) - len(alerts),
        "alerts_without_post": sorted(alerts.keys() - per_alert.keys()),
        "alerts_not_delivered": sorted(name for name in alerts if evidence.receipts.get(name) != "delivered"),
        "posts_of_unknown_alerts": sorted(per_alert.keys() - alerts.keys()),
        "unexplained_extra_posts": [post.alert for post in unexplained],
        "dead_letters": evidence.dead_letters,
    }
    return {
        "counts": {
            "events": len(events),
            "alerts": len(alerts),
            "posts": len(evidence.posts),
            "extra_posts_explained_by_a_kill": len(explained),
            "dead_letters": evidence.dead_letters,
        },
        "posts_per_alert": {str(count): n for count, n in sorted(Counter(per_alert.values()).items())},
        "ledger": {**evidence.totals, "balanced": evidence.balanced},
        "injected": [_row(fault) for fault in sorted(evidence.injected, key=lambda fault: fault.begin_ns)],
        "violations": _violations(evidence, figures),
    }


def extra_posts(posts: Iterable[Post], injected: Sequence[InjectedFault]) -> tuple[list[Post], list[Post]]:
    """Return the repeated posts of alerts: the posts that a kill explains, and the unexplained posts.

    A kill of the dispatcher, the receiver or the broker explains one extra post. The kill that explains an extra post
    must fall between it and the previous post of the same alert.
    """
    unused = [fault for fault in injected if fault.planned.target in DELIVERY for _ in range(fault.kills)]
    explained, unexplained = list[Post](), list[Post]()
    last_ns: dict[str, int] = {}
    for post in sorted(posts):
        before_ns = last_ns.get(post.alert)
        last_ns[post.alert] = post.at_ns
        if before_ns is None:
            continue
        kills = [f for f in unused if before_ns - CLOCK_NS <= f.end_ns and f.begin_ns <= post.at_ns]
        if kills:
            unused.remove(min(kills, key=lambda fault: fault.end_ns))
        (explained if kills else unexplained).append(post)
    return explained, unexplained


def _violations(evidence: ChaosEvidence, figures: dict[str, Any]) -> list[str]:
    wrong = list(evidence.problems)
    wrong += [f"{fault.planned.target}: {fault.problem}" for fault in evidence.injected if fault.problem]
    wrong += [] if evidence.balanced else ["the ledger does not balance"]
    for name, found in figures.items():
        if found and isinstance(found, list):
            wrong.append(f"{len(found)} {name}: {', '.join(found[:_EXAMPLES])}")
        elif found:
            wrong.append(f"{found} {name}")
    return wrong


def _cause(event: Event) -> tuple[object, ...]:
    """Return a key that stays the same after a restart: frame and box of a camera event, or id of a sensor event."""
    data = event.data
    if data.camera:
        return data.camera, data.lane, data.epoch, data.seq, Sighting.of(data.rule, data.label, data.overlay.box)
    return data.sensor, event.id


def _repeated(counts: Counter[str]) -> list[str]:
    return sorted(name for name, count in counts.items() if count > 1)


def _row(fault: InjectedFault) -> dict[str, Any]:
    took_s = round((fault.end_ns - fault.begin_ns) / 1e9, 2)
    return {**asdict(fault.planned), "took_s": took_s, "kills": fault.kills, "problem": fault.problem}

"""Judges the evidence of a run that kills an agent repeatedly. Pure.

A frame or reading counts as promised as soon as its row is committed to the spool. Each record that was committed to
the spool must arrive unchanged, or be counted as expired in the ledger. Consumers that drop repeated records must be
left with each record once. If a heartbeat had reported a frame that was lost from memory, the ledger must count the
frame as ``unclean``.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.kills.evidence import Epoch, Numbers, SpoolCopy, SpooledRow, Topics
from edge_agent.spool.schema import WAITS
from engines.node.jobs import HighWaterMarks
from ingest.contract.identity import FrameId
from ingest.contract.records import EpochEnd
from ingest.ledger.balance import Balance
from stream.sense.clean import Cleaner

REPORTED_WITHIN_S = 5.0
"""Maximum age of a frame that no heartbeat has reported, in seconds. A capture process reports its number of frames
once per second, and the agent forwards the number in a heartbeat once per second. The limit leaves 3 s for delays of
a busy machine."""
_MAX_FAULTS = 20
_DROPPED = ("repeat", "old-epoch")


@dataclass
class Kill:
    """One kill: of the ``agent``, of one ``capture`` process, or of an agent that was ``stopping``.

    The target ``ended`` means that the agent had stopped before the kill. ``open`` lists the epochs (capture runs)
    that the kill interrupted. ``gone`` means that the broker was down at the kill. ``copy`` is the spool's contents
    after the kill.
    """

    number: int
    target: str
    at_ns: int
    gone: bool
    copy: SpoolCopy
    open: list[Epoch]


@dataclass
class KillEvidence:
    """The evidence of one run. ``left`` is the spool's contents after the clean stop at the end."""

    kills: list[Kill]
    numbers: Mapping[Epoch, Numbers]
    topics: Topics
    left: SpoolCopy
    balance: Balance
    sensors: frozenset[str]
    faults: list[str] = field(default_factory=list)
    """Errors that were found before the evidence was judged."""


@dataclass
class InMemory:
    """Frames of one epoch (capture run) that were only in memory at the kill.

    ``bytes`` is the total size of the ``encoded`` frames.

    ``undecided`` counts the frames with a sequence number but without a gate decision. ``withheld`` counts the frames
    that the gate had withheld; their pictures were already discarded. ``reported`` counts the frames that a heartbeat
    had reported, and that the ledger must therefore count as ``unclean``.
    """

    undecided: int = 0
    encoded: int = 0
    bytes: int = 0
    withheld: int = 0
    reported: int = 0
    unreported_s: float = 0.0
    oldest_s: float = 0.0

    @property
    def frames(self) -> int:
        """Number of lost frames that the gate had not withheld."""
        return self.undecided + self.encoded


def judge(evidence: KillEvidence) -> dict[str, Any]:
    """Return the report. The report's ``faults`` are empty if every check passed."""
    faults, broken = list(evidence.faults), _interrupted(evidence)
    report = {
        "kills": _counts(evidence.kills),
        "spool": _spools(evidence, faults),
        "promised": _promises(evidence, faults),
        "repeats": {
            "frames": _frame_repeats(evidence.topics, faults),
            "readings": _reading_repeats(evidence.topics, faults),
        },
        "in_memory_only": _memory(evidence, broken, faults),
        "ledger": _ledger(evidence, broken, faults),
    }
    return {**report, "faults": faults[:_MAX_FAULTS], "fault_count": len(faults)}


def _counts(kills: Sequence[Kill]) -> dict[str, int]:
    offered = [sum(row.lane != WAITS for row in kill.copy.rows) for kill in kills]
    backlog = [sum(row.kind == "frame" and row.lane == WAITS for row in kill.copy.rows) for kill in kills]
    return {
        **Counter(kill.target for kill in kills),
        "without_broker": sum(kill.gone for kill in kills),
        "while_sending": sum(count > 0 for count in offered),
        "with_a_backlog_of_100": sum(count >= 100 for count in backlog),
        "epochs_interrupted": sum(len(kill.open) for kill in kills),
    }


def _spools(evidence: KillEvidence, faults: list[str]) -> dict[str, int]:
    copies = [kill.copy for kill in evidence.kills]
    faults += [
        f"kill {kill.number}: the spool is damaged: {kill.copy.verdict}"
        for kill in evidence.kills
        if kill.copy.verdict != "ok"
    ]
    if evidence.left.rows:
        faults.append(f"the spool has {len(evidence.left.rows)} rows after the clean stop: expected none")
    faults += [f"an agent reported on status: {notice}" for notice in evidence.topics.notices]
    return {
        "copies": len(copies),
        "whole": sum(copy.verdict == "ok" for copy in copies),
        "rows": sum(len(copy.rows) for copy in copies),
        "rows_sealed": sum(copy.sealed for copy in copies),
    }


def _promises(evidence: KillEvidence, faults: list[str]) -> dict[str, Any]:
    """Compare the rows of the spool copies and the commits that ``witness`` logged with the records in Kafka."""
    arrived = {(f.camera, f.epoch, f.seq): crc for f, _, crc in evidence.topics.frames}
    arrived |= {(r.sensor, r.epoch, r.last_seq): crc for r, crc in evidence.topics.readings}
    rows = {row for kill in evidence.kills for row in kill.copy.rows}
    seen = {(*epoch, seq) for epoch, found in evidence.numbers.items() for seq in found.promised}
    promised = seen | {(row.name, row.epoch, row.seq) for row in rows if row.kind != "status"}
    expired = {key for key in promised - arrived.keys() if _is_expired(evidence.topics, *key)}
    lost = sorted(promised - arrived.keys() - expired)
    faults += [
        f"{name}/{epoch}/{seq} was committed to the spool, but is neither in Kafka nor expired"
        for name, epoch, seq in lost
    ]
    faults += [
        f"{row} arrived with other bytes, or did not arrive"
        for row in rows
        if _is_changed(row, arrived, evidence.topics)
    ]
    sensors = {key for key in promised if key[0] in evidence.sensors}
    return {
        "frames": len(promised) - len(sensors),
        "records_of_readings": len(sensors),
        "status": len({row.crc for row in rows if row.kind == "status"}),
        "in_copies": len({(row.kind, row.name, row.epoch, row.seq, row.crc) for row in rows}),
        "arrived": len(promised & arrived.keys()),
        "expired": len(expired),
        "lost": len(lost),
    }


def _is_expired(topics: Topics, name: str, epoch: int, seq: int) -> bool:
    accounts = topics.accounts.get((name, epoch), ())
    return any(account.first <= seq <= account.last and account.counts.get("expired") for account in accounts)


def _is_changed(row: SpooledRow, arrived: Mapping[tuple[str, int, int], int], topics: Topics) -> bool:
    """Return whether a row's record in Kafka has other bytes than the row.

    For a status row, return whether the row is missing in Kafka.
    """
    if row.kind == "status":
        return row.crc not in topics.status
    return arrived.get((row.name, row.epoch, row.seq), row.crc) != row.crc


def _frame_repeats(topics: Topics, faults: list[str]) -> dict[str, int]:
    """Drop repeats by high-water marks, like the engine node, and check that each frame remains once."""
    marks, taken = HighWaterMarks(), Counter[FrameId]()
    for frame, lane, _ in topics.frames:
        if not marks.is_repeat(frame, lane, "") and not marks.is_out_of_order(frame, lane, ""):
            taken[frame] += 1
        marks.advance(frame, lane, "")
    lanes = {(frame, lane) for frame, lane, _ in topics.frames}
    twice = [frame for frame, count in taken.items() if count > 1]
    dropped = {frame for frame, _, _ in topics.frames} - taken.keys()
    faults += [f"frame {frame} would be classified twice" for frame in twice]
    faults += [f"frame {frame} is dropped as a repeat, but arrived only once" for frame in dropped]
    return {
        "records": len(topics.frames),
        "repeats": len(topics.frames) - len(lanes),
        "on_two_lanes": len(lanes) - len({frame for frame, _ in lanes}),
        "twice_downstream": len(twice),
        "wrongly_dropped": len(dropped),
    }


def _reading_repeats(topics: Topics, faults: list[str]) -> dict[str, int]:
    """Drop repeats like the sense stage, and check that each reading remains once."""
    cleaners: dict[str, Cleaner] = {}
    positions: Counter[tuple[str, int, int]] = Counter()
    for readings, _ in topics.readings:
        cleaners.setdefault(readings.sensor, Cleaner(None)).clean(readings, 0)  # one agent: its epochs only grow
        positions.update((readings.sensor, readings.epoch, seq) for seq in range(readings.seq, readings.last_seq + 1))
    dropped = sum(cleaner.dropped[reason] for cleaner in cleaners.values() for reason in _DROPPED)
    repeats = positions.total() - len(positions)
    if dropped != repeats:
        faults.append(f"{dropped} readings are dropped as repeats: expected {repeats}")
    return {"records": positions.total(), "repeats": repeats, "dropped": dropped}


def _interrupted(evidence: KillEvidence) -> dict[Epoch, Kill]:
    """Return the first kill that interrupted each epoch (capture run), by epoch; an epoch may stay open over several
    kills."""
    found: dict[Epoch, Kill] = {}
    for kill in evidence.kills:
        for epoch in kill.open:
            found.setdefault(epoch, kill)
    return found


def _memory(evidence: KillEvidence, broken: Mapping[Epoch, Kill], faults: list[str]) -> dict[str, Any]:
    """Count the frames that were only in memory at each kill, and the lost frames that the ledger reports."""
    frames: dict[int, list[InMemory]] = {kill.number: [] for kill in evidence.kills if kill.open}
    readings: list[InMemory] = []
    for epoch, kill in broken.items():
        end, numbers = _end(evidence.topics.ends.get(epoch, [])), evidence.numbers.get(epoch, Numbers())
        if end is not None and not end.clean:
            found = _in_memory(numbers, end, kill)
            faults += _report_faults(epoch, end, numbers, found)
            (readings if epoch[0] in evidence.sensors else frames[kill.number]).append(found)
    every = [*readings, *(one for ones in frames.values() for one in ones)]
    by_target = {
        target: _summary([frames[kill.number] for kill in evidence.kills if kill.open and kill.target == target])
        for target in ("agent", "stopping", "capture")
    }
    return {
        **by_target,
        "readings": _spread(one.frames for one in readings),
        "readings_bytes": _spread(one.frames * evidence.topics.bytes_a_reading for one in readings),
        "oldest_s": _spread(one.oldest_s for one in every if one.frames),
        "numbers": sum(one.frames + one.withheld for one in every),
        "numbers_reported": sum(one.reported for one in every),
        "unreported_s": _spread(one.unreported_s for one in every),
    }


def _in_memory(numbers: Numbers, end: EpochEnd, kill: Kill) -> InMemory:
    beyond = range(end.last + 1, len(numbers.given_ns))
    left = [seq for seq in beyond if seq not in numbers.withheld]
    unreported = numbers.given_ns[max(end.last, end.reported) + 1 :]
    return InMemory(
        undecided=sum(seq not in numbers.encoded for seq in left),
        encoded=sum(seq in numbers.encoded for seq in left),
        bytes=sum(numbers.encoded.get(seq, 0) for seq in left),
        withheld=len(beyond) - len(left),
        reported=max(0, end.reported - end.last),
        unreported_s=_age_s(unreported, kill),
        oldest_s=_age_s([numbers.given_ns[seq] for seq in left], kill),
    )


def _age_s(given_ns: Sequence[int], kill: Kill) -> float:
    return max(0.0, (kill.at_ns - given_ns[0]) / 1e9) if given_ns else 0.0


def _report_faults(epoch: Epoch, end: EpochEnd, numbers: Numbers, found: InMemory) -> Iterator[str]:
    name = f"{epoch[0]}/{epoch[1]}"
    if end.reported >= len(numbers.given_ns) > 0 or end.last >= len(numbers.given_ns) > 0:
        yield f"epoch {name} reported {end}: expected sequence numbers below {len(numbers.given_ns)}"
    if found.unreported_s > REPORTED_WITHIN_S:
        yield f"epoch {name}: no heartbeat reported the newest sequence numbers for {found.unreported_s:.1f} s"


def _summary(kills: Sequence[Sequence[InMemory]]) -> dict[str, Any]:
    return {
        "kills": len(kills),
        "frames": _spread(sum(one.frames for one in ones) for ones in kills),
        "bytes_encoded": _spread(sum(one.bytes for one in ones) for ones in kills),
        "not_encoded_yet": _spread(sum(one.undecided for one in ones) for ones in kills),
        "withheld_and_not_accounted": _spread(sum(one.withheld for one in ones) for ones in kills),
    }


def _spread(values: Iterable[float]) -> dict[str, float]:
    given = [round(value, 2) for value in values]
    return {"min": min(given), "median": statistics.median(given), "max": max(given)} if given else {}


def _ledger(evidence: KillEvidence, broken: Mapping[Epoch, Kill], faults: list[str]) -> dict[str, Any]:
    """Compare the ends of capture runs on the topic ``status``, the frames that ``witness`` logged, and the audit's
    counts of frames."""
    unclean = {e: _end(ends) for e, ends in evidence.topics.ends.items()}
    unclean = {e: end for e, end in unclean.items() if end and not end.clean}
    faults += [
        f"{e[0]}/{e[1]} is reported as killed, but no kill interrupted this epoch"
        for e in unclean.keys() & evidence.numbers.keys() - broken.keys()
    ]
    for epoch, numbers in evidence.numbers.items():
        faults += _end_faults(epoch, numbers, _end(evidence.topics.ends.get(epoch, [])), broken.get(epoch))
    sensors = evidence.balance.sensors
    lines = {"frames": _totals(evidence.balance, pipelines=True)}
    lines |= {"readings": _totals(sensors, pipelines=False)} if sensors else {}
    faults += [f"{line['missing']} {name} are unaccounted for" for name, line in lines.items() if line["missing"]]
    faults += [f"{line['duplicates']} {name} are duplicates" for name, line in lines.items() if line["duplicates"]]
    named = {line.partition(":")[0] for line in (*evidence.balance.unclean, *(sensors.unclean if sensors else ()))}
    faults += [
        f"epoch {n}/{e} was interrupted by a kill, but the audit does not list this epoch"
        for n, e in broken
        if f"{n}/{e}" not in named
    ]
    faults += _uncounted(evidence, unclean, sum(line["captured"] for line in lines.values()))
    return {**lines, "epochs": len(evidence.numbers), "unclean_epochs": _named(unclean, evidence.numbers)}


def _end(ends: Sequence[EpochEnd]) -> EpochEnd | None:
    """Merge the end records of an epoch (capture run) as the ledger does: the highest numbers, and clean if any
    record is clean."""
    if not ends:
        return None
    highest = {"last": max(end.last for end in ends), "reported": max(end.reported for end in ends)}
    return ends[0].model_copy(update={**highest, "clean": any(end.clean for end in ends)})


def _end_faults(epoch: Epoch, numbers: Numbers, end: EpochEnd | None, kill: Kill | None) -> Iterator[str]:
    name, last, promised = f"{epoch[0]}/{epoch[1]}", len(numbers.given_ns) - 1, max(numbers.promised, default=-1)
    if end is None:
        yield f"epoch {name} has no end record"
    elif end.clean and end.last != last:
        yield f"epoch {name} ended at {end.last}: expected {last}, the last sequence number captured"
    elif not end.clean and end.last != promised and not _committed_unwitnessed(epoch, end, promised, kill):
        yield f"epoch {name} was closed at {end.last}: expected {promised}, the last number in the spool"


def _committed_unwitnessed(epoch: Epoch, end: EpochEnd, promised: int, kill: Kill | None) -> bool:
    """Return whether the spool committed a row, and the kill came before ``witness`` could log the commit."""
    known = kill.copy.epochs.get(epoch) if kill else None
    return known is not None and promised < end.last == known.last_kept


def _totals(balance: Balance, *, pipelines: bool) -> dict[str, Any]:
    """Return the totals of all cameras in the ledger: captured, withheld and delivered frames.

    This benchmark runs no engine, so a delivered frame without a classification is not missing.
    """
    totals = balance.totals
    return {
        "captured": totals.captured,
        "delivered": totals.delivered,
        "spooled": totals.spooled,
        "withheld": dict(totals.withheld),
        "repeats": totals.repeats,
        "unclean": totals.unclean,
        "duplicates": totals.duplicates,
        "missing": totals.unaccounted - (totals.delivered if pipelines else 0),
    }


def _uncounted(evidence: KillEvidence, unclean: Mapping[Epoch, EpochEnd | None], captured: int) -> Iterator[str]:
    """Check that all assigned sequence numbers are either captured in the ledger or lost in a kill."""
    given = sum(len(numbers.given_ns) for numbers in evidence.numbers.values())
    taken = sum(
        max(0, len(evidence.numbers[epoch].given_ns) - end.last - 1)
        for epoch, end in unclean.items()
        if end and epoch in evidence.numbers
    )
    if given != captured + taken:
        yield f"{given} sequence numbers were captured: expected {captured} in the ledger plus {taken} lost in kills"


def _named(unclean: Mapping[Epoch, EpochEnd | None], numbers: Mapping[Epoch, Numbers]) -> list[str]:
    """Return the interrupted epochs (capture runs) with the last frame numbers that were stored, reported and
    captured."""
    return [
        f"{name}/{epoch} stored {end.last} reported {end.reported} captured {len(numbers[name, epoch].given_ns) - 1}"
        for (name, epoch), end in sorted(unclean.items())
        if end and (name, epoch) in numbers
    ]

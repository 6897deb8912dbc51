"""Compare the files of an evidence store with the hashes and tombstones on the log."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ingest.contract.codec import decode_json
from ingest.contract.records import Alert, EvidenceRecord
from ingest.contract.topics import ALERTS, EVIDENCE
from ingest.exceptions import CodecError
from ingest.kafka.log import Log
from stream.evidence import names
from stream.evidence.store import EvidenceStore
from stream.exceptions import EvidenceChanged, NotStored

_READ_BYTES = 1024 * 1024
Verdict = Literal["intact", "changed", "missing", "deleted", "undeleted", "unreferenced"]


class FileVerdict(NamedTuple):
    """The verdict on one file.

    - ``intact``: the contents have the hash on the log.
    - ``changed``: the contents have another hash.
    - ``missing``: the store does not have the file, and no tombstone says why.
    - ``deleted``: a tombstone says why the file is gone.
    - ``undeleted``: there is a tombstone, but the store still has the file. Run the same deletion again.
    - ``unreferenced``: no record on the log names the file, because the records have expired, or because a worker
      ended between the file and its record.
    """

    name: str
    verdict: Verdict
    about: str = ""


@dataclass
class LoggedEvidence:
    """The files that the topics ``alerts`` and ``evidence`` name: hashes by name, and tombstones by name."""

    sha256: dict[str, str] = field(default_factory=dict)
    tombstones: dict[str, str] = field(default_factory=dict)
    """Reason of the deletion, by the name of the deleted file."""
    unreadable: int = 0
    """Number of records that could not be decoded."""


async def logged_evidence(log: Log) -> LoggedEvidence:
    """Read the hashes and tombstones of all files from the log. Raise LogUnavailable."""
    found = LoggedEvidence()
    for topic in (ALERTS, EVIDENCE):
        begins, ends = await log.beginnings(topic), await log.ends(topic)
        for partition, end in ends.items():
            async with aclosing(log.read(topic, partition, begins[partition], end)) as records:
                async for record in records:
                    try:
                        _add(found, topic, record.value)
                    except CodecError:
                        found.unreadable += 1
    return found


def _add(found: LoggedEvidence, topic: str, value: bytes) -> None:
    if topic == ALERTS:
        found.sha256 |= {one.name: one.sha256 for one in decode_json(Alert, value).data.evidence}
        return
    record = decode_json(EvidenceRecord, value)
    found.sha256 |= {one.name: one.sha256 for one in record.files}
    if record.state == "deleted":
        why = f"{record.reason}, by {record.by}" if record.by else record.reason
        found.tombstones |= dict.fromkeys(record.deleted, why)
    else:
        for one in record.files:  # stored again after its deletion
            found.tombstones.pop(one.name, None)


def verdicts(store: EvidenceStore, logged: LoggedEvidence, subject: str = "") -> Iterator[FileVerdict]:
    """Yield the verdict on each file that the log or the store names, of one camera or of all.

    Each file is read whole, in parts of 1 MiB. Raise StoreFailed.
    """
    prefix = f"{subject}/" if subject else ""
    stored = {file.name for file in store.list(prefix) if names.parse(file.name)}
    for name in sorted(stored | {name for name in logged.sha256 if name.startswith(prefix)}):
        if name in logged.tombstones:
            yield FileVerdict(name, "undeleted" if name in stored else "deleted", logged.tombstones[name])
        elif name not in logged.sha256:
            yield FileVerdict(name, "unreferenced")
        else:
            yield _compared(store, name, logged.sha256)


def _compared(store: EvidenceStore, name: str, expected: Mapping[str, str]) -> FileVerdict:
    digest = hashlib.sha256()
    try:
        with store.open(name) as stream:
            while part := stream.read(_READ_BYTES):
                digest.update(part)
    except NotStored:
        return FileVerdict(name, "missing")
    except EvidenceChanged as error:
        return FileVerdict(name, "changed", str(error))
    if digest.hexdigest() == expected[name]:
        return FileVerdict(name, "intact")
    return FileVerdict(name, "changed", f"sha256 {digest.hexdigest()}: expected {expected[name]}")

"""Tests of the comparison of stored evidence with the hashes and tombstones on the log."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.services import evidence as command
from ingest.contract.codec import encode_json
from ingest.contract.records import Event, Evidence, EvidenceRecord
from ingest.contract.topics import ALERTS, EVIDENCE
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.eventloop import run
from stream.alerts.alert import make_alert
from stream.evidence import names
from stream.evidence.location import open_store
from stream.evidence.retention import evidence_outgoing
from stream.evidence.store import EvidenceStore, MemoryStore
from stream.evidence.verify import logged_evidence, verdicts
from tests.stream.alerts.test_alerts import event

runner = CliRunner()


def put(store: EvidenceStore, number: int, data: bytes = b"picture") -> Evidence:
    one: Event = event(number)
    return store.put(f"{names.stem('road', one.time, one.id)}-original.jpg", data, "image/jpeg")


async def write_alert(log: MemoryLog, number: int, *files: Evidence) -> None:
    await log.produce(Outgoing(ALERTS, number % 2, encode_json(make_alert(event(number), files))))


async def test_each_evidence_file_is_compared_with_its_hash_and_tombstone_in_the_log() -> None:
    log, store = MemoryLog(partitions=2), MemoryStore()
    files = [put(store, number) for number in range(7)]
    for number in range(6):
        await write_alert(log, number, files[number])
    clip = store.put(files[0].name.replace("original.jpg", "clip.mp4"), b"clip", "video/mp4")
    await log.produce(evidence_outgoing(EvidenceRecord(state="stored", at_ns=1, files=(files[0], clip))))
    store.put(files[1].name, b"forged", "image/jpeg")
    store.delete(files[2].name)
    for number in (3, 4, 5):
        gone = EvidenceRecord(state="deleted", at_ns=1, deleted=(files[number].name,), reason="erased", by="ann")
        await log.produce(evidence_outgoing(gone))
    store.delete(files[3].name)
    await log.produce(evidence_outgoing(EvidenceRecord(state="stored", at_ns=2, files=(files[5],))))
    await log.produce(Outgoing(EVIDENCE, 0, b"{"))
    logged = await logged_evidence(log)
    found = {one.name: one.verdict for one in verdicts(store, logged)}
    assert found.pop(clip.name) == "intact"
    expected = ["intact", "changed", "missing", "deleted", "undeleted", "intact", "unreferenced"]
    assert [found[file.name] for file in files] == expected
    assert logged.unreadable == 1
    about = {one.name: one.about for one in verdicts(store, logged, "road")}
    assert about[files[3].name] == "erased, by ann"
    assert about[files[1].name].endswith(f"expected {files[1].sha256}")
    assert [*verdicts(store, logged, "yard")] == []


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> MemoryLog:
    log = MemoryLog(partitions=2)
    monkeypatch.setattr(command, "on_log", lambda client_id, kafka, prefix, work: run(work(log)))
    return log


def call(*words: str, code: int = 0) -> str:
    result = runner.invoke(app, ["evidence", *words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("evidence"))


def test_the_command_verify_fails_only_for_a_changed_file(log: MemoryLog, folder: str) -> None:
    store = open_store(folder)
    file = put(store, 0)
    run(write_alert(log, 0, file))
    assert "1 intact" in call("verify", "--evidence", folder)
    store.put(file.name, b"forged", "image/jpeg")
    said = json.loads(call("verify", "--evidence", folder, "--json", code=1))
    assert said["counts"] == {"changed": 1}
    assert said["files"][0]["name"] == file.name


def test_legal_holds_protect_evidence_from_the_command_prune_until_they_are_released(
    log: MemoryLog, folder: str
) -> None:
    store = open_store(folder)
    for number in (0, 1):
        put(store, number)
    place = ("hold", "case-1", "--evidence", folder, "--event", "event-0", "--reason", "court")
    assert "case-1 holds 1 events, 7 bytes" in call(*place)
    again = ("hold", "case-1", "--evidence", folder, "--event", "event-1", "--reason", "other")
    assert "a name that no hold has" in " ".join(call(*again, code=2).split())
    listed = json.loads(call("list", "--evidence", folder, "--json", "--from", "2026-01-02T03:04:05"))
    assert [(row["event"], row["held_by"], row["time"]) for row in listed] == [
        ("event-0", "case-1", "2026-01-02T03:04:05.678Z"),
        ("event-1", "", "2026-01-02T03:04:05.678Z"),
    ]
    assert json.loads(call("list", "--evidence", folder, "--json", "--to", "2026-01-02T03:04:05")) == []
    assert json.loads(call("holds", "--evidence", folder, "--json"))[0]["covers"] == "event event-0"
    prune = ("prune", "--evidence", folder, "--keep-days", "0.0000001")
    assert "deleted: 1 events" in call(*prune)
    assert "case-1 is released" in call("release", "case-1", "--evidence", folder)
    assert "deleted: 1 events" in call(*prune)
    assert [*store.list()] == []
    gone = {one.verdict for one in verdicts(store, run(logged_evidence(log)))}
    assert gone == set()  # the pictures had no alert


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("hold", "x", "--reason", "r"), "expected either camera or event"),
        (("hold", "x", "--reason", "r", "--camera", "Gate"), "camera = 'Gate'"),
        (("release", "none"), "the name of a hold (none is placed)"),
        (("list", "--from", "yesterday"), "a time such as"),
        (("list", "--from", "2026-01-02", "--to", "2026-01-01"), "a time after 2026-01-02"),
    ],
)
def test_a_wrong_argument_of_an_evidence_command_is_named(words: tuple[str, ...], expected: str, folder: str) -> None:
    result = runner.invoke(app, ["evidence", *words, "--evidence", folder])
    assert result.exit_code == 2
    assert expected in " ".join(result.output.split())

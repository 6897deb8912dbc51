"""Tests of exported archives: their contents, their manifest, rights, and the audit trail."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from console.context import ConsoleContext
from console.evidence import EvidenceFiles
from console.review.export import export_review
from deploy.cli.app import app
from ingest.contract.codec import encode_json
from ingest.contract.topics import INCIDENTS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from stream.evidence.store import MemoryStore
from stream.incidents.reader import make_action, write_action
from tests.console.conftest import Browser
from tests.console.records import alert, configure, event, receipt, write
from tests.console.test_incidents import incident

Open = Callable[..., Browser]
PICTURE = b"an original picture"


@pytest.fixture
async def events(context: ConsoleContext, log: MemoryLog) -> None:
    """Write three events, of which event-1 and event-2 belong to an incident with a comment, and event-3 is of
    another site. The clip of event-1 is not in the store."""
    store = MemoryStore()
    context.evidence = EvidenceFiles(store, context.clock)
    picture = store.put("gate/2023-11-14/221321.000Z-event-1-original.jpg", PICTURE, "image/jpeg")
    clip = picture.model_copy(update={"name": "gate/2023-11-14/221321.000Z-event-1-clip.mp4"})
    first = alert(event(1, incident="inc"), picture, clip)
    await configure(log)
    await write(
        log, event(1), event(2), event(3, "yard"), first, alert(event(2, incident="inc")), receipt(first, "dead")
    )
    await log.produce(Outgoing(INCIDENTS, 0, encode_json(incident("inc"))))
    await write_action(log, make_action("inc", "comment", "ann", 5, comment="a fox"))
    await context.feed.catch_up(log)


async def exported(one: Browser, **order: list[str]) -> httpx.Response:
    await one.load("/account")
    return await one.post("/api/exports", json=order, headers={"X-CSRF-Token": one.csrf})


async def test_an_exported_archive_has_pictures_receipts_comments_and_a_valid_manifest(
    browser: Open, context: ConsoleContext, events: None, tmp_path: Path
) -> None:
    one = browser()
    await one.sign_in("otto")
    response = await exported(one, incidents=["inc"])
    assert response.headers["content-disposition"].endswith('.zip"')
    archive = zipfile.ZipFile(io.BytesIO(response.content))  # in memory, nothing to close
    manifest = json.loads(archive.read("manifest.json"))
    assert {file["name"] for file in manifest["files"]} == set(archive.namelist()) - {"manifest.json"}
    assert (sorted(manifest["events"]), manifest["incidents"]) == (["event-1", "event-2"], ["inc"])
    assert manifest["missing"][0]["name"].endswith("-clip.mp4")
    assert archive.read("evidence/gate/2023-11-14/221321.000Z-event-1-original.jpg") == PICTURE
    assert json.loads(archive.read("events/event-1.json"))["receipts"][0]["state"] == "dead"
    assert json.loads(archive.read("incidents/inc.json"))["actions"][0]["comment"] == "a fox"
    assert "ann: comment: a fox" in archive.read("review.txt").decode()

    sha256 = hashlib.sha256(archive.read("manifest.json")).hexdigest()
    assert response.headers["x-manifest-sha256"] == sha256
    entries = {(entry.action, entry.subject, entry.detail) for entry in context.trail.page("otto")}
    assert ("incident_exported", "inc", f"manifest SHA-256 {sha256}") in entries
    assert ("event_exported", "event-2", f"manifest SHA-256 {sha256}") in entries

    path, folder = tmp_path / "export.zip", tmp_path / "folder"
    path.write_bytes(response.content)
    archive.extractall(folder)
    for place in (path, folder):
        found = CliRunner().invoke(app, ["evidence", "verify", f"--export={place}"])
        assert (found.exit_code, "5 intact" in found.output, sha256 in found.output) == (0, True, True), found.output
    (folder / "review.txt").write_text("another text")
    (folder / "events/event-1.json").unlink()
    (folder / "added.txt").write_text("x")
    found = CliRunner().invoke(app, ["evidence", "verify", f"--export={folder}", "--json"])
    assert found.exit_code == 1
    assert json.loads(found.output)["counts"] == {"changed": 1, "missing": 1, "intact": 3, "unreferenced": 1}


async def test_operators_export_only_events_that_they_may_see(browser: Open, events: None) -> None:
    one, vera = browser(), browser()
    await one.sign_in("otto")
    assert (await exported(one, events=["event-3"])).status_code == 404
    assert (await exported(one, events=["event-1"], incidents=["none"])).status_code == 404
    assert (await exported(one)).status_code == 422
    await one.load("/events")
    assert (await one.submit("/export", event="event-2")).headers["content-type"] == "application/zip"
    await vera.sign_in("vera")
    assert (await exported(vera, events=["event-1"])).status_code == 403
    assert "/export" not in await vera.load("/events")


async def test_an_export_leaves_no_named_temporary_file_while_it_is_written(
    browser: Open, events: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Path] = []
    folder = tmp_path / "temporary"
    folder.mkdir()

    def look() -> None:
        left.extend(folder.iterdir())

    async def write_and_look(*args: Any, **facts: Any) -> str:
        sha256 = await export_review(*args, **facts)
        look()
        return sha256

    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr("console.pages.export.export_review", write_and_look)
    one = browser()
    await one.sign_in("otto")
    response = await exported(one, events=["event-1"])
    assert (response.status_code, left) == (200, [])
    assert response.headers["content-length"] == str(len(response.content))


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_a_file_that_is_no_exported_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.zip"
    path.write_bytes(content)
    for place in (path, tmp_path, tmp_path / "none.zip"):
        found = CliRunner().invoke(app, ["evidence", "verify", f"--export={place}"])
        assert (found.exit_code, "expected an archive" in found.output) == (2, True), found.output

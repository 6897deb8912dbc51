"""Tests of the commands, links and tables in the documents."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.local.demo.table import STATES
from deploy.optimise.report import OptimisedVersion, OptimiseReport
from engines import decoders
from engines.decoders.settings import BoxSettings, PriorSettings, RowSettings
from engines.repository.manifest import Decoding, Manifest
from engines.repository.report import ModelReport
from ingest.contract import headers as h
from ingest.contract.records import WITHHELD_REASONS
from ingest.contract.topics import TOPICS
from tests.paths import ROOT
from tests.shell import blocks, run_commands

DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.e2e
@pytest.mark.kafka
@pytest.mark.timeout(480)
def test_every_command_of_the_tutorial_works(tmp_path: Path, home: Path, kafka: str) -> None:
    said = run_commands("\n".join(blocks(ROOT / "docs" / "tutorial.md")), tmp_path, home, timeout_s=420)
    assert "balanced: every captured frame" in said
    assert "-annotated.jpg" in said
    assert "rule middle (line) fired" in said
    assert (tmp_path / "explained.jpg").stat().st_size > 0
    assert (tmp_path / "received.jsonl").stat().st_size > 0


def test_the_readme_s_make_targets_exist_and_ci_runs_the_test_command() -> None:
    makefile = (ROOT / "Makefile").read_text()
    said = [line for block in blocks(ROOT / "README.md") for line in block.splitlines()]
    targets = {line.split()[1] for line in said if line.startswith("make ")}
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def commands() -> list[tuple[str, ...]]:
    """Return the words of every `sightline …` command that a document names."""
    found = set()
    for path in DOCUMENTS:
        for match in re.finditer(r"(?:^|[`( ])sightline ((?:[a-z][a-z-]+ ?){1,2})", path.read_text(), re.MULTILINE):
            found.add(tuple(match.group(1).split()))
    return sorted(found)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_that_a_document_names_has_help(words: tuple[str, ...]) -> None:
    runner = CliRunner()
    for length in (len(words), 1):  # the second word may be an argument
        result = runner.invoke(app, [*words[:length], "--help"])
        if result.exit_code == 0:
            assert "Usage" in result.output
            return
    pytest.fail(f"sightline {' '.join(words)}: {result.output}")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_documents_have_existing_targets(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def table_of(document: str, heading: str) -> list[list[str]]:
    """Return the rows of a table in a document of the reference.

    ``heading`` is the heading of the table's first column.
    """
    lines = (ROOT / "docs" / "reference" / document).read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_reference_lists_every_topic_with_its_real_settings() -> None:
    said = {row[0].strip("`"): row[3:] for row in table_of("topics.md", "Topic")}
    assert list(said) == list(TOPICS)
    for name, (partitions, kept) in said.items():
        topic = TOPICS[name]
        assert partitions == ("chosen" if topic.partitions is None else str(topic.partitions)), name
        unit = {"day": 24, "days": 24, "hour": 1}
        hours = 0 if kept == "compacted" else int(kept.split()[0]) * unit[kept.split()[1]]
        assert (topic.compacted, topic.retention_ms) == (kept == "compacted", hours * 3_600_000), name


def test_the_reference_lists_all_record_headers_all_ledger_states_and_all_withheld_reasons() -> None:
    headers = {row[0].strip("`") for row in table_of("topics.md", "Header")}
    assert {h.FRAMES, h.ACCOUNT, h.LANE, h.PIPELINE, h.TRACEPARENT, *h.CLOUD_EVENT} < headers
    assert [row[0].strip("`") for row in table_of("ledger.md", "State")] == list(STATES)
    assert [row[0].strip("`") for row in table_of("ledger.md", "Reason")] == list(WITHHELD_REASONS)


def test_the_reference_lists_every_decoder_and_every_setting() -> None:
    assert {row[0].strip("`") for row in table_of("decoders.md", "Decoder")} == set(decoders.known())
    settings = {name.strip("` ") for row in table_of("decoders.md", "Setting") for name in row[0].split(",")}
    kinds = (BoxSettings, RowSettings, PriorSettings)
    own = {name for kind in kinds for name in kind.model_fields}
    assert settings == own | (Decoding.model_fields.keys() - {"settings"})


def test_the_reference_lists_every_manifest_key_and_report_field() -> None:
    keys = {key.strip(" `") for row in table_of("models.md", "Key") for key in row[0].split(",")}
    assert keys == set(Manifest.model_fields)
    fields = {key.strip(" `") for row in table_of("models.md", "Field") for key in row[0].split(",")}
    assert fields == {*ModelReport.model_fields, "assumed"}
    for heading, kind in (("Report", OptimiseReport), ("Version", OptimisedVersion)):
        named = {key.strip(" `") for row in table_of("models.md", heading) for key in row[0].split(",")}
        assert named == set(kind.model_fields)

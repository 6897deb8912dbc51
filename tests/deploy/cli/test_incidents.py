"""Tests of the command `sightline incidents`."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.common import USAGE_EXIT
from ingest.contract.codec import encode_json
from ingest.contract.records import Incident
from ingest.contract.topics import INCIDENTS, partition_for
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Outgoing
from ingest.kafka.settings import KafkaSettings
from tests.stream.incidents.test_view import incident

PARTITIONS = 2


async def write(settings: KafkaSettings, *records: Incident) -> None:
    async with KafkaLog(settings, "test") as log:
        for one in records:
            partition = partition_for(one.place, PARTITIONS)
            await log.produce(Outgoing(INCIDENTS, partition, encode_json(one), key=one.id.encode()))
        await log.produce(Outgoing(INCIDENTS, 0, b"{}"))


@pytest.mark.kafka
def test_incidents_are_listed_acknowledged_assigned_and_commented_with_a_real_broker(kafka: str, prefix: str) -> None:
    env = {"SIGHTLINE_KAFKA": kafka, "SIGHTLINE_KAFKA_PREFIX": prefix}

    def invoke(*words: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["incidents", *words], env=env)
        return done.exit_code, done.stdout, done.stderr

    assert CliRunner().invoke(app, ["topics", "create", f"--partitions={PARTITIONS}"], env=env).exit_code == 0
    now_ns = time.time_ns()
    gate = incident("a1b2", begin_ns=now_ns, last_ns=now_ns, summary="a person [/red]")
    yard = incident("a1c3", begin_ns=now_ns, last_ns=now_ns, place="yard", severity="critical", change="end")
    asyncio.run(write(KafkaSettings(bootstrap=kafka, prefix=prefix), gate, yard))

    code, out, err = invoke("list", "--json")
    assert code == 0, err
    assert "1 records cannot be read" in err
    assert {row["id"] for row in json.loads(out)} == {"a1b2", "a1c3"}
    assert [row["id"] for row in json.loads(invoke("list", "--open", "--json")[1])] == ["a1b2"]
    assert [row["id"] for row in json.loads(invoke("list", "--place", "yard", "--json")[1])] == ["a1c3"]

    code, out, err = invoke("ack", "a1b", "--by", "ann", "--comment", "on my way", "--json")
    assert code == 0, err
    assert json.loads(out)["acknowledged_by"] == "ann"
    assert invoke("assign", "a1b2", "bob", "--by", "ann")[0] == 0
    assert invoke("comment", "a1b2", "a fox", "--by", "bob")[0] == 0
    found = json.loads(invoke("show", "a1b2", "--json")[1])
    assert [(one["action"], one["by"], one["comment"]) for one in found["actions"]] == [
        ("acknowledge", "ann", "on my way"),
        ("assign", "ann", ""),
        ("comment", "bob", "a fox"),
    ]
    assert found["assignee"] == "bob"
    text = invoke("show", "a1b2")[1]
    assert "incident a1b2: open, warning" in text
    assert "assign to bob by ann" in text
    assert "a person [/red]" in text
    assert [row["id"] for row in json.loads(invoke("list", "--unacknowledged", "--json")[1])] == ["a1c3"]

    code, _, err = invoke("ack", "a1", "--by", "ann")
    assert (code, "2 incidents have ids that begin with a1" in err) == (USAGE_EXIT, True)
    code, _, err = invoke("comment", "a1b2", " ", "--by", "ann")
    assert (code, "expected a text in a comment" in err) == (USAGE_EXIT, True)
    code, _, err = invoke("assign", "a1b2", "", "--by", "ann")
    assert (code, "expected assignee" in err) == (USAGE_EXIT, True)


def test_a_malformed_period_is_refused() -> None:
    done = CliRunner().invoke(app, ["incidents", "list", "--last", "week"])
    assert (done.exit_code, "such as 24h" in done.stderr) == (USAGE_EXIT, True)


def test_an_unknown_severity_is_refused_with_the_known_ones() -> None:
    done = CliRunner().invoke(app, ["incidents", "list", "--severity", "high"])
    assert done.exit_code == USAGE_EXIT
    assert "one of info, warning, critical" in done.stderr

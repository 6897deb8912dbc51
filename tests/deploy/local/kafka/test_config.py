"""Tests of the broker's configuration, without starting a broker."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.kafka.config import (
    LONG_RUNNING,
    PORT_RANGE,
    Ports,
    choose_ports,
    format_command,
    jvm_command,
    properties,
    server_command,
)
from deploy.local.kafka.fetch import KAFKA_FILES, java_major
from ingest.contract.codec import MAX_RECORD_BYTES

TEMPLATE = (KAFKA_FILES / "server.properties.template").read_text()


def _parsed(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_broker_properties_have_ports_folder_and_record_sizes() -> None:
    found = _parsed(properties(TEMPLATE, Ports(20_001, 20_002), Path("/data/here")))
    assert found["log.dirs"] == "/data/here"
    assert found["advertised.listeners"] == "PLAINTEXT://127.0.0.1:20001"
    assert found["controller.quorum.voters"] == "1@127.0.0.1:20002"
    assert found["auto.create.topics.enable"] == "false"
    assert int(found["message.max.bytes"]) > MAX_RECORD_BYTES
    assert int(found["socket.request.max.bytes"]) > int(found["message.max.bytes"])


def test_the_broker_listens_only_on_loopback() -> None:
    listeners = _parsed(properties(TEMPLATE, Ports(1, 2), Path()))["listeners"]
    assert all("//127.0.0.1:" in listener for listener in listeners.split(","))


@given(st.integers(0, 100_000), st.sets(st.sampled_from(PORT_RANGE), max_size=50))
def test_the_ports_chosen_for_kafka_are_free_different_and_in_the_range(start: int, taken: set[int]) -> None:
    ports = choose_ports(start, lambda port: port not in taken)
    assert ports.broker != ports.controller
    assert {ports.broker, ports.controller} <= set(PORT_RANGE) - taken


def test_a_port_range_without_two_free_ports_is_an_error() -> None:
    with pytest.raises(LookupError):
        choose_ports(0, lambda port: port == PORT_RANGE.start)


def test_a_kafka_cluster_id_may_begin_with_a_dash() -> None:
    command = format_command(["java"], Path("config"), "-3xAmpLe")
    assert "--cluster-id=-3xAmpLe" in command


def test_the_kafka_server_command_has_the_heap_limit_and_the_jvm_options() -> None:
    jvm = jvm_command("java", Path("libs"), Path("log4j2.xml"), Path("log"), *LONG_RUNNING)
    command = server_command(jvm, Path("config"))
    assert command[0] == "java"
    assert "-Xmx256m" in command
    tiers = [option for option in command if option.startswith("-XX:TieredStopAtLevel=")]
    assert tiers[-1:] == list(LONG_RUNNING)  # the JVM uses the last one
    assert command[-2:] == ["kafka.Kafka", "config"]


@pytest.mark.parametrize(
    ("version", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_401"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ("command not found", 0),
    ],
)
def test_the_major_version_of_java_is_read_from_its_output(version: str, major: int) -> None:
    assert java_major(version) == major

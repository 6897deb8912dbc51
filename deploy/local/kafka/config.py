"""Configuration of a local broker: properties, ports and command lines. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template

from ingest.contract.codec import MAX_RECORD_BYTES

PORT_RANGE = range(15_000, 30_000)
"""Ports of local brokers, below Linux's ephemeral ports (32768 on).

A client that keeps connecting to a dead broker's ephemeral port can connect to itself. Such a client then holds the
port, and the broker cannot start again.
"""
HEAP_MB = 256
"""Heap of the broker, in MiB. Enough for a few hundred partitions and records of 16 MiB."""
_HEADER_ROOM_BYTES = 64 * 1024
_REQUEST_ROOM_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of a node."""

    broker: int
    controller: int


def choose_ports(start: int, is_free: Callable[[int], bool]) -> Ports:
    """Return the first two free ports from ``start`` on, wrapping around the range.

    Raise LookupError if fewer than two ports are free.
    """
    first, size = PORT_RANGE.start, len(PORT_RANGE)
    candidates = (first + (start + i) % size for i in range(size))
    free = (port for port in candidates if is_free(port))
    try:
        return Ports(next(free), next(free))
    except StopIteration:
        raise LookupError(f"no two free ports from {first} to {PORT_RANGE.stop - 1}") from None


def properties(template: str, ports: Ports, data: Path) -> str:
    """Return the text of ``server.properties``, filled in from the template."""
    largest = MAX_RECORD_BYTES + _HEADER_ROOM_BYTES
    return Template(template).substitute(
        broker_port=ports.broker,
        controller_port=ports.controller,
        data=data,
        max_message_bytes=largest,
        max_request_bytes=max(100 * 1024 * 1024, largest + _REQUEST_ROOM_BYTES),
    )


def format_command(jvm: list[str], config: Path, cluster_id: str) -> list[str]:
    """Return the command that formats a node's data folder. ``jvm`` is the result of ``jvm_command``."""
    cluster = f"--cluster-id={cluster_id}"  # in one argument, because an id may begin with a dash
    return [*jvm, "kafka.tools.StorageTool", "format", cluster, f"--config={config}"]


def server_command(jvm: list[str], config: Path) -> list[str]:
    """Return the command that runs a node. ``jvm`` is the result of ``jvm_command``."""
    return [*jvm, "kafka.Kafka", str(config)]


def jvm_command(java: str, libs: Path, log_config: Path, log: Path, *options: str) -> list[str]:
    """Return the start of a command line that runs a class of Kafka, with further options of the JVM."""
    return [
        java,
        *options,
        f"-Xmx{HEAP_MB}m",
        "-XX:+UseSerialGC",  # smallest footprint; pauses are milliseconds at this heap size
        "-XX:TieredStopAtLevel=1",  # starts in one second instead of three, with a lower peak throughput
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={log_config}",
        f"-Dsightline.log={log}",
        "-cp",
        f"{libs}/*",
    ]

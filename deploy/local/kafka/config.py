"""Configuration of a local Kafka broker: server.properties, ports and command lines. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template

from ingest.contract.codec import MAX_RECORD_BYTES

PORT_RANGE = range(15_000, 30_000)
"""Ports that a local broker may use: below Linux's ephemeral ports, which begin at 32768.

If the broker used an ephemeral port, a client that keeps connecting to the dead broker could connect to itself. A
client that is connected to itself holds the broker's port, so the broker could not start again.
"""
HEAP_MB = 256
"""Maximum heap of the broker's JVM, in MiB. The heap is large enough for a few hundred partitions and records of 16
MiB."""
LONG_RUNNING = ("-XX:TieredStopAtLevel=4",)
"""JVM options for a broker that runs for more than a few minutes. The JVM's second compiler takes some 20 s of
processor time in the first minutes, and afterwards the broker needs about half of the processor time per record."""
_HEADER_ROOM_BYTES = 64 * 1024
_REQUEST_ROOM_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of a Kafka node: one for clients, and one for the KRaft controller."""

    broker: int
    controller: int


def choose_ports(start: int, is_free: Callable[[int], bool]) -> Ports:
    """Return the first two free ports of ``PORT_RANGE``.

    The search begins at index ``start``, and continues at the first port of the range after the last port. Raise
    LookupError if fewer than two ports of ``PORT_RANGE`` are free.
    """
    first, size = PORT_RANGE.start, len(PORT_RANGE)
    candidates = (first + (start + i) % size for i in range(size))
    free = (port for port in candidates if is_free(port))
    try:
        return Ports(next(free), next(free))
    except StopIteration:
        raise LookupError(
            f"Kafka needs two free TCP ports from {first} to {PORT_RANGE.stop - 1}, found fewer"
        ) from None


def properties(template: str, ports: Ports, data: Path) -> str:
    """Return the text of ``server.properties``, made from the template."""
    largest = MAX_RECORD_BYTES + _HEADER_ROOM_BYTES
    return Template(template).substitute(
        broker_port=ports.broker,
        controller_port=ports.controller,
        data=data,
        max_message_bytes=largest,
        max_request_bytes=max(100 * 1024 * 1024, largest + _REQUEST_ROOM_BYTES),
    )


def format_command(jvm: list[str], config: Path, cluster_id: str) -> list[str]:
    """Return the command that formats the data folder of a Kafka node.

    ``jvm`` is a command line from ``jvm_command``.
    """
    cluster = f"--cluster-id={cluster_id}"  # in one argument, because an id may begin with a dash
    return [*jvm, "kafka.tools.StorageTool", "format", cluster, f"--config={config}"]


def meta_properties(cluster_id: str, directory_id: str) -> str:
    """Return the text of ``meta.properties``, which marks a data folder as formatted for the node of the template."""
    return f"version=1\nnode.id=1\ncluster.id={cluster_id}\ndirectory.id={directory_id}\n"


def server_command(jvm: list[str], config: Path) -> list[str]:
    """Return the command that runs a Kafka node. ``jvm`` is a command line from ``jvm_command``."""
    return [*jvm, "kafka.Kafka", str(config)]


def jvm_command(java: str, libs: Path, log_config: Path, log: Path, *options: str) -> list[str]:
    """Return the first part of a command line that runs a Kafka class on the JVM. ``options`` are further options of
    the JVM, which replace earlier options of the same name."""
    return [
        java,
        f"-Xmx{HEAP_MB}m",
        "-XX:+UseSerialGC",  # smallest footprint; pauses are milliseconds at this heap size
        "-XX:TieredStopAtLevel=1",  # starts in one second instead of three, with a lower peak throughput
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={log_config}",
        f"-Dsightline.log={log}",
        *options,
        "-cp",
        f"{libs}/*",
    ]

"""Bad wire: loses, delays, reorders or slows IP packets between two network namespaces that it creates.

A wire needs Linux's TUN devices, and root or user namespaces. A wire changes nothing outside the two namespaces.
The kernel's own tool, netem, is missing in most kernels of small machines and containers. toxiproxy works on TCP
streams, which lose no data, and does not support UDP.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.peers.network.badwire_relay import FAR

__all__ = ["FAR", "BadWire", "why_not"]

RELAY = Path(__file__).with_name("badwire_relay.py")


@functools.cache
def why_not() -> str:
    """Return why this machine cannot create a bad wire, or an empty text if it can."""
    missing = [tool for tool in ("ip", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not found; Debian and Ubuntu: apt-get install iproute2 util-linux"
    probe = subprocess.run([sys.executable, str(RELAY), "0"], input="", capture_output=True, text=True, check=False)
    last = (probe.stderr.strip().splitlines() or ["it ended"])[-1]
    return f"no TUN devices or no network namespaces: {last}" if probe.returncode else ""


class BadWire:
    """Wire between a far and a near end. The prefixes ``far`` and ``near`` run a command at an end."""

    def __init__(self, seed: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(RELAY), str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._ends: dict[str, int] = json.loads(self._heard())

    @property
    def far(self) -> list[str]:
        """Command prefix for the far end, where the camera has the address ``FAR``."""
        return self._enter("far")

    @property
    def near(self) -> list[str]:
        """Command prefix for the near end, where the agent is."""
        return self._enter("near")

    def set(
        self, *, loss: float = 0.0, jitter_s: float = 0.0, bytes_per_s: float = 0.0, in_order: bool = False
    ) -> dict[str, int]:
        """Set the impairments of both directions. Return the counts of packets carried, lost, … until now.

        ``loss`` is a share. Each packet is delayed by a uniform time from 0 to ``jitter_s``, and may overtake others
        unless ``in_order``. A ``bytes_per_s`` of 0 means unlimited.
        """
        asked = {"loss": loss, "jitter_s": jitter_s, "bytes_per_s": bytes_per_s, "in_order": in_order}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        told: dict[str, int] = json.loads(self._heard())
        return told

    @classmethod
    @contextmanager
    def laid(cls, seed: int = 0) -> Iterator[BadWire]:
        """Create a wire for the time of the context."""
        wire = cls(seed)
        try:
            yield wire
        finally:
            wire._process.communicate()

    def _enter(self, end: str) -> list[str]:
        at = f"/proc/{self._process.pid}/fd"
        # without root, a command must first enter the user namespace of the wire
        user = [f"--user={at}/{self._ends['user']}", "--preserve-credentials"] if os.geteuid() else []
        return ["nsenter", *user, f"--net={at}/{self._ends[end]}", "--"]

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

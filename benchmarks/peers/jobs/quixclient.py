"""The settings of Quix Streams, which its programs share."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from quixstreams import Application

from benchmarks.peers.jobs import LINGER_MS, MAX_FETCH_WAIT_MS


def make_application(options: Namespace, state: str, **others: Any) -> Application:
    """Return an application with its state in the folder ``state``. Its clients are as safe and as fast as
    Sightline's."""
    return Application(
        broker_address=options.bootstrap,
        consumer_group=options.group,
        auto_offset_reset="earliest",
        consumer_poll_timeout=0.1,
        consumer_extra_config={"fetch.wait.max.ms": MAX_FETCH_WAIT_MS, "isolation.level": "read_committed"},
        producer_extra_config={"acks": "all", "enable.idempotence": True, "linger.ms": LINGER_MS},
        state_dir=state,
        loglevel="WARNING",
        **others,
    )

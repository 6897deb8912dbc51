"""A real broker: it answers, it keeps what it acknowledged through SIGKILL, and one folder has one broker."""

from __future__ import annotations

import pytest

from ingest.kafka import KafkaSettings
from ingest.kafkalog import KafkaLog

pytestmark = pytest.mark.kafka


@pytest.mark.kafka
async def test_session_broker_answers(kafka: str, prefix: str) -> None:
    log = KafkaLog(KafkaSettings(bootstrap=kafka, prefix=prefix), "test")
    try:
        assert await log.partitions() == {}
    finally:
        await log.close()

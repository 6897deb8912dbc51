"""Tests of the requests of a Kafka log, without a broker."""

from __future__ import annotations

import pytest
from aiokafka.protocol.metadata import MetadataRequest, MetadataRequest_v5, MetadataResponse_v5

from ingest.contract.topics import FRAMES
from ingest.exceptions import LogUnavailable
from ingest.kafka import settings as kafka
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings

UNKNOWN_TOPIC = 3


class NoTopics:
    """Admin client of a cluster without topics, which keeps the metadata requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[list[str], bool]] = []

    async def _send_request(self, request: MetadataRequest) -> MetadataResponse_v5:
        sent = request.build(MetadataRequest_v5).to_object()
        self.requests.append((sent["topics"], sent["allow_auto_topic_creation"]))
        missing = [(UNKNOWN_TOPIC, name, False, []) for name in sent["topics"]]
        return MetadataResponse_v5(0, [(1, "broker", 9092, None)], "cluster", 1, missing)


async def test_a_call_of_the_log_requests_metadata_only_of_its_topic_and_never_creates_the_topic() -> None:
    log, admin = KafkaLog(KafkaSettings(prefix="t."), "test"), NoTopics()
    log._clients[kafka.admin] = admin
    with pytest.raises(LogUnavailable, match=r"no topic t\.frames: run `sightline topics create`"):
        await log.ends(FRAMES)
    assert admin.requests == [(["t.frames"], False)]

"""Tests of the link to Kafka: which errors refuse a record, and which errors lose the link."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.errors import InvalidTimestampError, MessageSizeTooLargeError

from edge_agent.exceptions import LinkLost, RecordRefused
from edge_agent.send import kafkalink
from edge_agent.send.kafkalink import KafkaLink
from edge_agent.send.link import OutboundRecord
from edge_agent.send.window import MAX_BATCH_BYTES, MIN_BATCH_BYTES
from ingest.kafka.settings import KafkaSettings


@pytest.mark.parametrize(
    ("error", "verdict"), [(MessageSizeTooLargeError(), RecordRefused), (InvalidTimestampError(), LinkLost)]
)
async def test_a_timestamp_ahead_of_the_broker_clock_closes_the_link_and_the_record_is_not_refused(
    error: Exception, verdict: type[Exception]
) -> None:
    class Producer:
        async def send(self, **_: object) -> asyncio.Future[None]:
            sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            sent.set_exception(error)
            return sent

    link = KafkaLink(KafkaSettings(), "agent", {})
    link._producer, link._partitions = Producer(), {"frames": 4}  # type: ignore[assignment]
    with pytest.raises(verdict):
        await (await link.send(OutboundRecord("frames", "a", b"x")))


async def test_records_of_a_refused_batch_are_sent_again_in_small_batches_to_find_the_faulty_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kafka refuses a batch because of one of its records."""

    class Producer:
        def __init__(self) -> None:
            self.batches: list[asyncio.Future[None]] = []
            self._message_accumulator = SimpleNamespace(_batch_size=MIN_BATCH_BYTES)

        async def start(self) -> None:
            pass

        async def partitions_for(self, _: str) -> set[int]:
            return {0}

        async def send(self, **_: object) -> asyncio.Future[None]:
            self.batches.append(asyncio.get_running_loop().create_future())
            return self.batches[-1]

    producers: list[Producer] = []
    monkeypatch.setattr(kafkalink.kafka, "producer", lambda *_: producers.append(Producer()) or producers[-1])
    link, record = KafkaLink(KafkaSettings(), "agent", {}), OutboundRecord("frames", "a", b"x" * 100_000_000)
    verdicts: list[type[BaseException]] = []
    for _ in range(2):
        await link.open()
        link._batch_limit._since_s -= 1.0
        sent = [await link.send(record), await link.send(record)]
        producers[-1].batches[0].set_result(None)
        await sent[0]
        producers[-1].batches[1].set_exception(MessageSizeTooLargeError())
        with pytest.raises((LinkLost, RecordRefused)) as error:
            await sent[1]
        verdicts.append(error.type)
    assert verdicts == [LinkLost, RecordRefused]
    assert [p._message_accumulator._batch_size for p in producers] == [MAX_BATCH_BYTES, MIN_BATCH_BYTES]

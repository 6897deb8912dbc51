"""FastStream with its client for confluent-kafka: a batch subscriber, which commits after it has published. At least
once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvloop
from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker, KafkaMessage

from benchmarks.peers.jobs import LINGER_MS, MAX_FETCH_WAIT_MS
from benchmarks.peers.jobs.work import PeerWork, read_options
from ingest.contract import headers as h

OPTIONS = read_options()
WORK, POOL = PeerWork(OPTIONS), ThreadPoolExecutor(OPTIONS.threads)
POLL_S = 0.01
"""Time in seconds that a poll waits for more messages. FastStream's default of 0.1 s would delay each batch that is
not full by 0.1 s."""
broker = KafkaBroker(
    OPTIONS.bootstrap,
    acks="all",
    enable_idempotence=True,
    linger_ms=LINGER_MS,
    logger=None,
    config={"fetch.wait.max.ms": MAX_FETCH_WAIT_MS},
)


async def _raw(message: KafkaMessage) -> Any:
    return message.body


@broker.subscriber(  # type: ignore[untyped-decorator]
    OPTIONS.source,
    group_id=OPTIONS.group,
    batch=True,
    max_records=OPTIONS.batch,
    polling_interval=POLL_S,
    auto_offset_reset="earliest",
    isolation_level="read_committed",
    ack_policy=AckPolicy.ACK,
    decoder=_raw,
)
async def classify(message: KafkaMessage) -> None:
    """Classify one batch of frames and publish the results."""
    loop, records = asyncio.get_running_loop(), message.raw_message
    headers = [dict(record.headers()) for record in records]
    values = await asyncio.gather(
        *(loop.run_in_executor(POOL, WORK, record.value(), own) for record, own in zip(records, headers, strict=True))
    )
    await asyncio.gather(
        *(
            broker.publish(
                value,
                OPTIONS.target,
                key=record.key(),
                partition=record.partition(),
                headers={h.FRAMES: own[h.FRAMES].decode()},
            )
            for record, own, value in zip(records, headers, values, strict=True)
        )
    )


if __name__ == "__main__":
    uvloop.run(FastStream(broker, logger=None).run())

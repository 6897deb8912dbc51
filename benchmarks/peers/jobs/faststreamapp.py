"""FastStream with its client for confluent-kafka: a batch subscriber, which commits after it has published. At least
once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import uvloop
from faststream import FastStream
from faststream.confluent import KafkaMessage

from benchmarks.peers.jobs.faststreamclient import make_broker, subscription
from benchmarks.peers.jobs.work import PeerWork, read_options
from ingest.contract import headers as h

OPTIONS = read_options()
WORK, POOL = PeerWork(OPTIONS), ThreadPoolExecutor(OPTIONS.threads)
broker = make_broker(OPTIONS)


@broker.subscriber(OPTIONS.source, **subscription(OPTIONS, batches=True))  # type: ignore[untyped-decorator]
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

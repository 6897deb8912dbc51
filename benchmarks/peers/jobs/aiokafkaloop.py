"""A plain aiokafka loop: fetch, classify in threads, write, commit. Each frame is classified at least once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import CommitFailedError

from benchmarks.peers.jobs import LINGER_MS, MAX_FETCH_WAIT_MS
from benchmarks.peers.jobs.work import PeerWork, read_options
from ingest.contract import headers as h


async def _run(options: Namespace) -> None:
    loop, work, pool = asyncio.get_running_loop(), PeerWork(options), ThreadPoolExecutor(options.threads)
    consumer = AIOKafkaConsumer(
        options.source,
        bootstrap_servers=options.bootstrap,
        group_id=options.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=MAX_FETCH_WAIT_MS,
        max_partition_fetch_bytes=2 * 1024 * 1024,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=options.bootstrap, acks="all", enable_idempotence=True, linger_ms=LINGER_MS
    )
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    async with consumer, producer:
        while not stopping.is_set():
            fetched = await consumer.getmany(timeout_ms=200, max_records=options.batch)
            records = [record for some in fetched.values() for record in some]
            if not records:
                continue
            headers = [dict(record.headers) for record in records]
            values = await asyncio.gather(
                *(
                    loop.run_in_executor(pool, work, record.value, own)
                    for record, own in zip(records, headers, strict=True)
                )
            )
            writes = [
                await producer.send(
                    options.target, value, record.key, record.partition, headers=[(h.FRAMES, own[h.FRAMES])]
                )
                for record, own, value in zip(records, headers, values, strict=True)
            ]
            await asyncio.gather(*writes)
            with contextlib.suppress(CommitFailedError):  # the member that has the partition now repeats the frames
                await consumer.commit()


if __name__ == "__main__":
    uvloop.run(_run(read_options()))

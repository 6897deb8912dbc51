"""Test gateway for the HTTPS link: a small server that writes to a real Kafka.

The gateway checks the bearer token. It accepts a batch completely or not at all, and answers 200 only after Kafka has
all records of the batch. The gateway recognises repeated batches by their ``Idempotency-Key``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import uvicorn
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.contract.topics import FRAMES, FRAMES_LATE, READINGS, STATUS, partition_for
from ingest.kafka import settings as kafka
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import stop

__all__ = ["TestGateway"]

KEYS_KEPT = 10_000
KAFKA_S = 10.0
_PARTITIONED = {FRAMES: FRAMES, FRAMES_LATE: FRAMES, READINGS: READINGS}


class TestGateway:
    """TLS gateway on a loopback port. It accepts the next ``answers_lost`` batches but does not confirm them."""

    __test__ = False  # for pytest: not a test class

    def __init__(
        self, settings: KafkaSettings, certificate: Path, key: Path, token: str, max_bytes: int = MAX_RECORD_BYTES
    ) -> None:
        self._settings, self._token, self._max_bytes = settings, token, max_bytes
        self._taken: OrderedDict[str, None] = OrderedDict()
        self._partitions: dict[str, int] = {}
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"https://localhost:{self._socket.getsockname()[1]}"
        self.answers_lost = 0
        self.repeats = 0
        self.busy = False
        routes = [
            Route("/v1/ready", self._ready, methods=["GET"]),
            Route("/v1/records", self._records, methods=["POST"]),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes),
            log_config=None,
            lifespan="off",
            ssl_certfile=str(certificate),
            ssl_keyfile=str(key),
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._producer: AIOKafkaProducer | None = None
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> TestGateway:
        self._producer = kafka.producer(self._settings, "gateway")
        await self._producer.start()
        for topic in (FRAMES, READINGS):
            self._partitions[topic] = len(await self._producer.partitions_for(self._settings.topic(topic)))
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        if self._serving:
            await self._serving
        if self._producer:
            await stop(self._producer, 2.0)
        self._socket.close()

    async def _ready(self, request: Request) -> Response:
        return Response(status_code=200 if self._is_known(request) else 401)

    async def _records(self, request: Request) -> Response:
        if not self._is_known(request):
            return Response("no such token", status_code=401)
        if self.busy:
            return Response(status_code=503, headers={"Retry-After": "1"})
        records = msgpack.unpackb(await request.body(), max_bin_len=1 << 26)
        refused = [{"index": i, "reason": why} for i, why in enumerate(map(self._problem, records)) if why]
        if refused:
            return JSONResponse({"refused": refused}, status_code=422)
        key = request.headers["Idempotency-Key"]
        if key in self._taken:
            self.repeats += 1
            return Response(status_code=200)
        try:
            async with asyncio.timeout(KAFKA_S):
                await self._write(records)
        except (KafkaError, TimeoutError) as error:
            return Response(repr(error), status_code=503, headers={"Retry-After": "1"})
        self._remember(key)
        if self.answers_lost > 0:
            self.answers_lost -= 1
            raise ConnectionError(
                "the answer is lost, as the test requested"
            )  # the server answers 500, so the client cannot know the result
        return Response(status_code=200)

    def _is_known(self, request: Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {self._token}"

    def _problem(self, record: dict[str, Any]) -> str:
        if record["topic"] not in (*_PARTITIONED, STATUS):
            return f"no topic {record['topic']}"
        return f"over {self._max_bytes} bytes" if len(record["value"]) > self._max_bytes else ""

    async def _write(self, records: list[dict[str, Any]]) -> None:
        assert self._producer is not None
        sent = []
        for record in records:
            counted = _PARTITIONED.get(record["topic"])
            sent.append(
                await self._producer.send(
                    self._settings.topic(record["topic"]),
                    value=record["value"],
                    key=record["key"].encode(),
                    partition=partition_for(record["key"], self._partitions[counted]) if counted else 0,
                    headers=list(record["headers"].items()),
                )
            )
        await asyncio.gather(*sent)

    def _remember(self, key: str) -> None:
        self._taken[key] = None
        while len(self._taken) > KEYS_KEPT:
            self._taken.popitem(last=False)


class _Server(uvicorn.Server):
    """Server that leaves signal handling to the tests."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield

"""A link over HTTPS, to a gateway that writes to Kafka: for agents that cannot reach the cluster.

``POST /v1/records`` with a msgpack list of records, each a map of ``topic``, ``key``, ``headers`` and ``value``. The
gateway answers 200 once Kafka has all of them; 422 with ``{"refused": [{"index": 0, "reason": "…"}]}``, and none of
them taken, when it will never take some; 429 or 503 with ``Retry-After`` when not now. A batch that is repeated after
its answer was lost is recognised by its ``Idempotency-Key``, and each frame by its number.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

import httpx
import msgpack

from edge_agent.clockoffset import ClockOffset
from edge_agent.exceptions import LinkLost, RecordRefused
from edge_agent.send.batches import BatchSize, QueuedRecord, batch_of, idempotency_key
from edge_agent.send.gatewaytrust import Token, tls
from edge_agent.send.link import OutboundRecord
from edge_agent.send.response import GatewayResponse, read_response
from ingest.site import LinkConfig, mask_secrets

READY_S = 15.0
"""For an answer to whether the gateway is ready."""
CONNECT_S = 5.0
REQUEST_S = 60.0
"""For a request with its answer, as long as the sender waits at the most: on a slow uplink a large one takes as long.
Without it, an answer that drips would never be over."""
MAX_PUBLISHED = 8
"""Heartbeats that wait for the link; more of them are old news."""
_READY, _RECORDS = "/v1/ready", "/v1/records"
_LANES = ("live", "late", "others")
_TOO_LARGE, _UNPROCESSABLE = 413, 422
_ABOUT_RECORDS = (400, _TOO_LARGE, _UNPROCESSABLE)


class HttpsLink:
    """Posts batches, one request at a time for each of live, late and other records, so that each keeps its order."""

    def __init__(self, config: LinkConfig, agent: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._config, self._agent, self._transport = config, agent, transport
        self._token = Token(config.token_file)
        self._client: httpx.AsyncClient | None = None
        self._queues: dict[str, deque[QueuedRecord]] = {}
        self._more: dict[str, asyncio.Event] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._lost: LinkLost | None = None
        self._portions = {name: BatchSize() for name in _LANES}
        self.clock = ClockOffset()  # a gateway tells the time in whole seconds: not worth comparing

    @property
    def address(self) -> str:
        """The gateway's address."""
        return str(mask_secrets(self._config.url))

    async def open(self) -> None:
        """Connect, and see that the gateway is ready. Raise LinkLost or ConfigError."""
        self._lost = None
        for portion in self._portions.values():
            portion.begin()
        self._client = httpx.AsyncClient(
            base_url=self._config.url,
            verify=tls(self._config),
            timeout=httpx.Timeout(REQUEST_S, connect=CONNECT_S),
            transport=self._transport,
            headers={"Accept-Encoding": "identity"},  # an answer is small, and may not be made to swell
        )
        answer = await self._ask("GET", _READY)
        if answer.status != httpx.codes.OK:
            raise _lost(answer)
        self._queues = {name: deque() for name in _LANES}
        self._more = {name: asyncio.Event() for name in self._queues}
        self._workers = [asyncio.create_task(self._work(name)) for name in self._queues]

    async def send(self, parcel: OutboundRecord) -> asyncio.Future[None]:
        """Queue a parcel for the next request of its lane. Raise LinkLost."""
        if self._lost or not self._queues:
            raise self._lost or LinkLost(f"{self.address}: not open")
        waiting = QueuedRecord(parcel, asyncio.get_running_loop().create_future())
        name = "late" if parcel.late else "live" if parcel.topic.startswith("frames") else "others"
        self._queues[name].append(waiting)
        self._more[name].set()
        return waiting.done

    async def publish(self, parcel: OutboundRecord) -> None:
        """Queue something that need not arrive."""
        with contextlib.suppress(LinkLost):
            if len(self._queues.get("others", ())) < MAX_PUBLISHED:
                (await self.send(parcel)).add_done_callback(_heard)

    async def close(self) -> None:
        """Drop what is queued, and the connections."""
        self._fail(LinkLost(f"{self.address}: closed"))
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers, self._queues = [], {}
        client, self._client = self._client, None
        if client:
            await client.aclose()

    async def _work(self, name: str) -> None:
        queue, more, portion = self._queues[name], self._more[name], self._portions[name]
        try:
            while True:
                if not queue:
                    more.clear()
                    await more.wait()
                await self._post(batch_of(queue, portion.bytes), portion)
        except Exception as error:  # whatever it is: nobody would post what is queued here any more
            self._fail(error if isinstance(error, LinkLost) else LinkLost(f"{self.address}: {error}"))

    async def _post(self, batch: Sequence[QueuedRecord], portion: BatchSize) -> None:
        """Post until everything of a batch is taken or refused. Raise LinkLost; what it was about is failed, too."""
        left = list(batch)
        try:
            while left:
                left = await self._post_once(left, portion)
        except Exception as error:
            for waiting in left:
                waiting.fail(LinkLost(str(error), getattr(error, "retry_after_s", 0.0)))
            raise

    async def _post_once(self, batch: list[QueuedRecord], portion: BatchSize) -> list[QueuedRecord]:
        """Post a batch once. Return what of it has to be posted again."""
        parcels = [waiting.parcel for waiting in batch]
        size = sum(parcel.size for parcel in parcels)
        records = [{"topic": p.topic, "key": p.key, "headers": dict(p.headers), "value": p.value} for p in parcels]
        headers = {
            "Content-Type": "application/msgpack",
            "Sightline-Agent": self._agent,
            "Idempotency-Key": idempotency_key(self._agent, parcels),
        }
        try:
            answer = await self._ask("POST", _RECORDS, msgpack.packb(records), headers)
        except BaseException:  # also when the sender gives up on it
            portion.unanswered(size)
            raise
        portion.answered(size)
        if answer.status == httpx.codes.OK:
            for waiting in batch:
                waiting.succeed()
            return []
        if answer.status not in _ABOUT_RECORDS:
            raise _lost(answer)
        return await self._without_refused(batch, answer, portion)

    async def _without_refused(
        self, batch: list[QueuedRecord], answer: GatewayResponse, portion: BatchSize
    ) -> list[QueuedRecord]:
        refused = answer.refused(len(batch))
        if len(batch) == 1 and not refused:
            refused = {0: f"{answer.status} {answer.text}"}
        for index, reason in refused.items():
            batch[index].fail(RecordRefused(reason))
        left = [waiting for index, waiting in enumerate(batch) if index not in refused]
        if not refused:  # one of them is at fault, and the gateway does not say which
            for waiting in left:
                await self._post([waiting], portion)
            return []
        return left

    async def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> GatewayResponse:
        if self._client is None:
            raise LinkLost(f"{self.address}: not open")
        headers = {**(headers or {}), **self._token.header()}
        limit_s = READY_S if body is None else REQUEST_S
        try:
            async with asyncio.timeout(limit_s):
                async with self._client.stream(method, path, content=body, headers=headers) as response:
                    return await read_response(response)
        except TimeoutError:
            raise LinkLost(f"{self.address}: {method} {path} took more than {limit_s:.0f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise LinkLost(f"{self.address}: {error!r}") from error

    def _fail(self, error: LinkLost) -> None:
        self._lost = self._lost or error
        for queue in self._queues.values():
            while queue:
                queue.popleft().fail(error)


def _lost(answer: GatewayResponse) -> LinkLost:
    return LinkLost(f"{mask_secrets(answer.url)}: {answer.status} {answer.text}", answer.retry_after_s)


def _heard(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()

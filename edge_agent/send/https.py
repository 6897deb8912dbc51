"""Link over HTTPS to a gateway that writes to Kafka, for agents that cannot reach the Kafka cluster.

The link sends ``POST /v1/records`` with a msgpack list of records, each a map of ``topic``, ``key``, ``headers`` and
``value``. The gateway responds with 200 once Kafka has all records. A response of 422 with ``{"refused": [{"index":
0, "reason": "…"}]}`` means that the gateway accepted no record of the batch, and will never accept the records with
the listed indexes. A response of 429 or 503 with ``Retry-After`` asks the agent to repeat the request later. The
gateway recognises a repeated batch by its ``Idempotency-Key``, and a repeated frame by its sequence number. A server
certificate authenticates the gateway; a client certificate, a bearer token or both authenticate the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgpack

from edge_agent.clockoffset import ClockOffset
from edge_agent.exceptions import LinkLost, RecordRefused
from edge_agent.send.batches import BatchSize, QueuedRecord, batch_of, idempotency_key
from edge_agent.send.link import OutboundRecord
from edge_agent.send.response import GatewayResponse, read_response
from ingest.exceptions import ConfigError
from ingest.runtime.text import decode_text
from ingest.site import LinkConfig, mask_secrets

READY_S = 15.0
"""Maximum time for the request ``GET /v1/ready`` and its response, in seconds."""
CONNECT_S = 5.0
"""Maximum time to connect to the gateway, in seconds."""
REQUEST_S = 60.0
"""Maximum time for a request and its response, in seconds. This limit equals the longest time that the sender waits
for an acknowledgement, because a large batch may take 60 s on a slow uplink. Without a limit, a response that arrives
byte by byte could block the link for ever."""
MAX_PUBLISHED = 8
"""If this many records are queued, a new heartbeat is dropped. Dropping a heartbeat does no harm, because the next
heartbeat replaces its contents."""
_READY, _RECORDS = "/v1/ready", "/v1/records"
_LANES = ("live", "late", "others")
_TOO_LARGE, _UNPROCESSABLE = 413, 422
_TOKEN = re.compile(r"[ -~]+")
_RECORD_ERRORS = (400, _TOO_LARGE, _UNPROCESSABLE)


class HttpsLink:
    """Link that posts batches of records to a gateway.

    The link has three queues: for live frames, for late frames (the backlog), and for all other records. For each
    queue, at most one request is open at a time, so that the records of a queue keep their order.
    """

    def __init__(self, config: LinkConfig, agent: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._config, self._agent, self._transport = config, agent, transport
        self._token = Token(config.token_file)
        self._client: httpx.AsyncClient | None = None
        self._queues: dict[str, deque[QueuedRecord]] = {}
        self._more: dict[str, asyncio.Event] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._lost: LinkLost | None = None
        self._batch_sizes = {name: BatchSize() for name in _LANES}
        self.clock = ClockOffset()  # never measured: a gateway reports whole seconds only

    @property
    def address(self) -> str:
        """The gateway's address."""
        return str(mask_secrets(self._config.url))

    async def open(self) -> None:
        """Connect to the gateway and check that the gateway is ready.

        Raise LinkLost if the gateway is unreachable or not ready, or ConfigError if a certificate or token file is
        unusable.
        """
        self._lost = None
        for batch_size in self._batch_sizes.values():
            batch_size.begin()
        self._client = httpx.AsyncClient(
            base_url=self._config.url,
            verify=tls(self._config),
            timeout=httpx.Timeout(REQUEST_S, connect=CONNECT_S),
            transport=self._transport,
            headers={"Accept-Encoding": "identity"},  # no compressed bodies, which may expand to huge ones
        )
        response = await self._ask("GET", _READY)
        if response.status != httpx.codes.OK:
            raise _lost(response)
        self._queues = {name: deque() for name in _LANES}
        self._more = {name: asyncio.Event() for name in self._queues}
        self._workers = [asyncio.create_task(self._work(name)) for name in self._queues]

    async def send(self, record: OutboundRecord) -> asyncio.Future[None]:
        """Add a record to the queue for live frames, late frames or other records. Raise LinkLost."""
        if self._lost or not self._queues:
            raise self._lost or LinkLost(f"the link to {self.address} is not open")
        queued = QueuedRecord(record, asyncio.get_running_loop().create_future())
        name = "late" if record.late else "live" if record.topic.startswith("frames") else "others"
        self._queues[name].append(queued)
        self._more[name].set()
        return queued.done

    async def publish(self, record: OutboundRecord) -> None:
        """Queue a record that may get lost, such as a heartbeat.

        Drop the record if ``MAX_PUBLISHED`` records are already queued.
        """
        with contextlib.suppress(LinkLost):
            if len(self._queues.get("others", ())) < MAX_PUBLISHED:
                (await self.send(record)).add_done_callback(_retrieve_exception)

    async def close(self) -> None:
        """Fail all queued records with LinkLost, and close the connections."""
        self._fail(LinkLost(f"the link to {self.address} is closed"))
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers, self._queues = [], {}
        client, self._client = self._client, None
        if client:
            await client.aclose()

    async def _work(self, name: str) -> None:
        queue, more, batch_size = self._queues[name], self._more[name], self._batch_sizes[name]
        try:
            while True:
                if not queue:
                    more.clear()
                    await more.wait()
                await self._post(batch_of(queue, batch_size.bytes), batch_size)
        except Exception as error:  # after any error, the queue has no worker
            self._fail(error if isinstance(error, LinkLost) else LinkLost(f"{self.address}: {error}"))

    async def _post(self, batch: Sequence[QueuedRecord], batch_size: BatchSize) -> None:
        """Post a batch, in several requests if necessary, until the gateway has accepted or refused each record.

        If an error interrupts the batch, fail the remaining records with LinkLost and raise the error.
        """
        left = list(batch)
        try:
            while left:
                left = await self._post_once(left, batch_size)
        except Exception as error:
            for queued in left:
                queued.fail(LinkLost(str(error), getattr(error, "retry_after_s", 0.0)))
            raise

    async def _post_once(self, batch: list[QueuedRecord], batch_size: BatchSize) -> list[QueuedRecord]:
        """Post a batch to the gateway in one request.

        Return the records that the gateway has neither accepted nor refused, and that must be posted again.
        """
        records = [queued.record for queued in batch]
        size = sum(record.size for record in records)
        body = [{"topic": r.topic, "key": r.key, "headers": dict(r.headers), "value": r.value} for r in records]
        headers = {
            "Content-Type": "application/msgpack",
            "Sightline-Agent": self._agent,
            "Idempotency-Key": idempotency_key(self._agent, records),
        }
        try:
            response = await self._ask("POST", _RECORDS, msgpack.packb(body), headers)
        except BaseException:  # also when the sender cancels the request
            batch_size.unanswered(size)
            raise
        batch_size.answered(size)
        if response.status == httpx.codes.OK:
            for queued in batch:
                queued.succeed()
            return []
        if response.status not in _RECORD_ERRORS:
            raise _lost(response)
        return await self._without_refused(batch, response, batch_size)

    async def _without_refused(
        self, batch: list[QueuedRecord], response: GatewayResponse, batch_size: BatchSize
    ) -> list[QueuedRecord]:
        refused = response.refused(len(batch))
        if len(batch) == 1 and not refused:
            refused = {0: f"{response.status} {response.text}"}
        for index, reason in refused.items():
            batch[index].fail(RecordRefused(reason))
        left = [queued for index, queued in enumerate(batch) if index not in refused]
        if not refused:  # the gateway does not name the faulty record
            for queued in left:
                await self._post([queued], batch_size)
            return []
        return left

    async def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> GatewayResponse:
        if self._client is None:
            raise LinkLost(f"the link to {self.address} is not open")
        headers = {**(headers or {}), **self._token.header()}
        limit_s = READY_S if body is None else REQUEST_S
        try:
            async with asyncio.timeout(limit_s):
                async with self._client.stream(method, path, content=body, headers=headers) as response:
                    return await read_response(response)
        except TimeoutError:
            raise LinkLost(f"{self.address}: {method} {path} took longer than {limit_s:.0f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise LinkLost(f"{self.address}: {error!r}") from error

    def _fail(self, error: LinkLost) -> None:
        self._lost = self._lost or error
        for queue in self._queues.values():
            while queue:
                queue.popleft().fail(error)


def tls(config: LinkConfig) -> ssl.SSLContext:
    """Return the TLS context for a gateway.

    The context includes the agent's client certificate if the site file configures one. Raise ConfigError.
    """
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ValueError) as error:
        raise ConfigError("site file", "link.ca_file", str(config.ca_file), f"PEM certificates ({error})") from None
    if config.cert_file:
        try:
            context.load_cert_chain(config.cert_file, config.key_file)
        except (OSError, ValueError) as error:
            expected = f"a PEM certificate with its key, or the key in link.key_file ({error})"
            raise ConfigError("site file", "link.cert_file", str(config.cert_file), expected) from None
    return context


class Token:
    """Bearer token that is read from a file.

    The file is read again when it changes, so that an operator can replace the token while the agent runs.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen: tuple[int, int] | None = None
        self._token = ""

    def header(self) -> dict[str, str]:
        """Return the Authorization header, or an empty dictionary if no token file is configured.

        Raise ConfigError.
        """
        if self._file is None:
            return {}
        try:
            found = self._file.stat()
            if (found.st_mtime_ns, found.st_ino) != self._seen:
                self._token = _read_token(self._file)
                self._seen = (found.st_mtime_ns, found.st_ino)
        except (OSError, ValueError) as error:
            expected = f"a text file with the token ({error})"
            raise ConfigError("site file", "link.token_file", str(self._file), expected) from None
        return {"Authorization": f"Bearer {self._token}"}


def _read_token(file: Path) -> str:
    """Return the token in a file.

    Raise OSError if the file cannot be read, or ValueError if the token is invalid; the error's text does not contain
    the token.
    """
    token = decode_text(file.read_bytes()).strip()
    if not token or not _TOKEN.fullmatch(token):  # the error of the HTTP client would quote the token
        raise ValueError("expected the token as one line of printable ASCII characters")
    return token


def _lost(response: GatewayResponse) -> LinkLost:
    return LinkLost(f"{mask_secrets(response.url)}: {response.status} {response.text}", response.retry_after_s)


def _retrieve_exception(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()

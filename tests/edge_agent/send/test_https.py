"""Tests of the HTTPS link against a scripted gateway."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import email.utils
import gzip
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest

from edge_agent.exceptions import LinkLost, RecordRefused
from edge_agent.send import https
from edge_agent.send.batches import MAX_BATCH_RECORDS
from edge_agent.send.https import MAX_PUBLISHED, HttpsLink
from edge_agent.send.link import OutboundRecord
from edge_agent.send.response import MAX_RETRY_AFTER_S
from edge_agent.send.sender import ACK_TIMEOUT_S, PATIENT_TRIES
from ingest.exceptions import ConfigError
from ingest.site import LinkConfig

Responder = Callable[[httpx.Request, list[dict[str, Any]]], httpx.Response]


class Gateway:
    """A gateway that records its requests."""

    def __init__(self) -> None:
        self.answer: Responder = lambda request, records: httpx.Response(200)
        self.batches: list[list[str]] = []
        self.requests: list[httpx.Request] = []
        self.free = asyncio.Event()
        self.free.set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path == "/v1/ready":
            return httpx.Response(200)
        await self.free.wait()
        records = msgpack.unpackb(request.content)
        self.batches.append([record["value"].decode() for record in records])
        return self.answer(request, records)


def outbound(value: str, row_id: int = 1, *, topic: str = "frames", late: bool = False) -> OutboundRecord:
    return OutboundRecord(topic, "gate", value.encode(), {"h": b"\x00\xff"}, row_id, late)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("secret-1\n")
    return file


@pytest.fixture
async def link(gateway: Gateway, token: Path) -> AsyncIterator[HttpsLink]:
    config = LinkConfig(kind="https", url="https://gateway.example", token_file=token)
    link = HttpsLink(config, "agent-1", httpx.MockTransport(gateway))
    await link.open()
    yield link
    await link.close()


async def test_queued_records_are_posted_in_batches_in_order(link: HttpsLink, gateway: Gateway) -> None:
    gateway.free.clear()
    first = await link.send(outbound("0"))
    while not len(gateway.requests) > 1:
        await asyncio.sleep(0)
    rest = [await link.send(outbound(str(n), n)) for n in range(1, 100)]
    gateway.free.set()
    await asyncio.gather(first, *rest)
    assert gateway.batches[0] == ["0"]
    assert [value for batch in gateway.batches for value in batch] == [str(n) for n in range(100)]
    assert max(map(len, gateway.batches)) == MAX_BATCH_RECORDS
    request = gateway.requests[1]
    assert request.headers["authorization"] == "Bearer secret-1"
    assert request.headers["sightline-agent"] == "agent-1"
    (record,) = msgpack.unpackb(request.content)
    assert record == {"topic": "frames", "key": "gate", "headers": {"h": b"\x00\xff"}, "value": b"0"}


async def test_a_live_frame_is_posted_while_a_request_with_backlog_frames_has_no_response_yet(
    link: HttpsLink, gateway: Gateway
) -> None:
    held = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if b"late" in request.content:
            await held.wait()
        return httpx.Response(200)

    link._client._transport = httpx.MockTransport(answer)  # type: ignore[union-attr]
    late = await link.send(outbound("late", late=True))
    await (await link.send(outbound("live")))
    assert not late.done()
    held.set()
    await late


async def test_records_named_in_a_422_response_are_refused_and_all_other_records_are_posted_again(
    link: HttpsLink, gateway: Gateway
) -> None:
    def answer(request: httpx.Request, records: list[dict[str, Any]]) -> httpx.Response:
        bad = [{"index": i, "reason": "too large"} for i, r in enumerate(records) if r["value"] == b"bad"]
        return httpx.Response(422, json={"refused": bad}) if bad else httpx.Response(200)

    gateway.answer = answer
    gateway.free.clear()
    sent = [await link.send(outbound(value, n)) for n, value in enumerate(["x", "a", "bad", "b"])]
    gateway.free.set()
    answers = await asyncio.gather(*sent, return_exceptions=True)
    assert [type(a) for a in answers] == [type(None), type(None), RecordRefused, type(None)]
    assert "too large" in str(answers[2])
    assert [b for b in gateway.batches if "bad" not in b][-1][-1] == "b"
    keys = [r.headers["idempotency-key"] for r in gateway.requests if r.method == "POST"]
    assert len(set(keys)) == len(keys)  # the remaining records are another batch


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_records_are_posted_one_by_one_if_the_gateway_names_no_faulty_record(
    link: HttpsLink, gateway: Gateway, status: int
) -> None:
    gateway.answer = lambda request, records: httpx.Response(
        status if any(r["value"] == b"bad" for r in records) else 200, text="no"
    )
    gateway.free.clear()
    sent = [await link.send(outbound(value, n)) for n, value in enumerate(["x", "a", "bad", "b"])]
    gateway.free.set()
    answers = await asyncio.gather(*sent, return_exceptions=True)
    assert [isinstance(a, RecordRefused) for a in answers] == [False, False, True, False]
    assert str(answers[2]) == f"{status} no"


@pytest.mark.parametrize("status", [401, 403, 404, 500, 502])
async def test_an_error_response_of_the_gateway_other_than_a_refusal_closes_the_link(
    link: HttpsLink, gateway: Gateway, status: int
) -> None:
    gateway.answer = lambda request, records: httpx.Response(status, text="why")
    with pytest.raises(LinkLost, match=f"{status} why"):
        await (await link.send(outbound("a")))
    with pytest.raises(LinkLost):
        await link.send(outbound("b"))


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_gateway_sets_the_pause_before_the_next_try(
    link: HttpsLink, gateway: Gateway, status: int
) -> None:
    gateway.answer = lambda request, records: httpx.Response(status, headers={"Retry-After": "30"})
    with pytest.raises(LinkLost) as error:
        await (await link.send(outbound("a")))
    assert error.value.retry_after_s == 30.0


@pytest.mark.parametrize(("value", "least", "most"), [("date", 25.0, 31.0), ("soon", 0.0, 0.0)])
async def test_the_gateway_header_retry_after_may_be_a_date_and_is_ignored_if_invalid(
    link: HttpsLink, gateway: Gateway, value: str, least: float, most: float
) -> None:
    at = email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30), usegmt=True)
    headers = {"Retry-After": at if value == "date" else value}
    gateway.answer = lambda request, records: httpx.Response(503, headers=headers)
    with pytest.raises(LinkLost) as error:
        await (await link.send(outbound("a")))
    assert least <= error.value.retry_after_s <= most


@pytest.mark.parametrize(
    ("value", "waits_s"),
    [
        ("99999999999", MAX_RETRY_AFTER_S),
        ("9" * 400, 0.0),
        ("-30", 0.0),
        ("nan", 0.0),
        ("\u00b2", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 -0000", MAX_RETRY_AFTER_S),
        ("Mon, 01 Jan 0001 00:00:00 -0000", 0.0),
    ],
)
async def test_a_gateway_header_retry_after_outside_its_range_is_limited(
    token: Path, value: str, waits_s: float
) -> None:
    busy = httpx.Response(503, headers=[(b"Retry-After", value.encode("latin-1"))])
    config = LinkConfig(kind="https", url="https://gateway.example", token_file=token)
    link = HttpsLink(config, "agent-1", httpx.MockTransport(lambda request: busy))
    with pytest.raises(LinkLost) as error:
        await link.open()
    assert error.value.retry_after_s == waits_s
    await link.close()


class Endless(httpx.AsyncByteStream):
    """A body that never ends: slowly byte by byte, or as fast as it is read."""

    def __init__(self, *, drips: bool) -> None:
        self.drips, self.given = drips, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.given < 1 << 30:
            self.given += 1 if self.drips else 65_536
            yield b"x" if self.drips else bytes(65_536)
            await asyncio.sleep(0.001 if self.drips else 0)


@pytest.mark.parametrize("status", [200, 503])
async def test_an_endless_gateway_response_is_read_only_up_to_the_size_limit(token: Path, status: int) -> None:
    body = Endless(drips=False)
    config = LinkConfig(kind="https", url="https://gateway.example", token_file=token)
    link = HttpsLink(config, "agent-1", httpx.MockTransport(lambda request: httpx.Response(status, stream=body)))
    with contextlib.nullcontext() if status == httpx.codes.OK else pytest.raises(LinkLost, match="503"):
        await link.open()
    assert body.given < 1 << 20
    await link.close()


async def test_the_body_of_a_compressed_gateway_response_is_ignored(link: HttpsLink, gateway: Gateway) -> None:
    bomb = gzip.compress(b'{"refused": [{"index": 0, "reason": "no"}]}' + b" " * 1_000_000)

    class Packed(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield bomb

    gateway.answer = lambda request, records: httpx.Response(
        422, stream=Packed(), headers={"Content-Encoding": "gzip"}
    )
    with pytest.raises(RecordRefused, match="422"):  # without the text of the compressed body
        await (await link.send(outbound("bad")))


async def test_a_gateway_response_that_arrives_byte_by_byte_ends_at_the_time_limit(
    token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "READY_S", 0.05)
    slow = httpx.MockTransport(lambda request: httpx.Response(200, stream=Endless(drips=True)))
    link = HttpsLink(LinkConfig(kind="https", url="https://gateway.example", token_file=token), "agent-1", slow)
    with pytest.raises(LinkLost, match="GET /v1/ready took longer than"):
        async with asyncio.timeout(60):
            await link.open()
    await link.close()


@pytest.mark.parametrize("body", [b'{"refused": [{"index": Infinity}]}', b"[" * 50_000, b'{"refused": 3}', b"\xff"])
async def test_after_an_invalid_422_response_only_the_faulty_record_counts_as_refused(
    link: HttpsLink, gateway: Gateway, body: bytes
) -> None:
    gateway.answer = lambda request, records: httpx.Response(
        422 if any(r["value"] == b"bad" for r in records) else 200, content=body
    )
    gateway.free.clear()
    sent = [await link.send(outbound(value, n)) for n, value in enumerate(["x", "a", "bad", "b"])]
    gateway.free.set()
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*sent, return_exceptions=True)
    assert [isinstance(a, RecordRefused) for a in answers] == [False, False, True, False]


async def test_batches_without_a_response_are_halved_until_a_batch_fits_a_slow_uplink(
    link: HttpsLink, gateway: Gateway
) -> None:
    tried: list[httpx.Request] = []

    async def slow(request: httpx.Request) -> httpx.Response:
        tried.extend([request] * (request.method == "POST"))
        if len(request.content) > 100_000:
            raise httpx.WriteTimeout("slow")
        return await gateway(request)

    lost = 0
    for _ in range(12):
        await link.close()
        link._transport = httpx.MockTransport(slow)
        await link.open()
        sent = [await link.send(outbound("x" * 20_000, n)) for n in range(30)]
        lost += any(isinstance(a, LinkLost) for a in await asyncio.gather(*sent, return_exceptions=True))
    assert 4 <= lost <= 9  # the first repeat keeps its size: the gateway may know its key
    first, again = (r.headers["idempotency-key"] for r in tried[:2])
    assert first == again
    assert sum(map(len, gateway.batches)) >= 30


async def test_the_timeout_of_an_https_request_is_at_least_the_longest_acknowledgement_timeout(
    link: HttpsLink, gateway: Gateway
) -> None:
    await (await link.send(outbound("a")))
    given = gateway.requests[-1].extensions["timeout"]
    assert min(given["write"], given["read"]) >= PATIENT_TRIES * ACK_TIMEOUT_S


async def test_responses_to_heartbeats_do_not_stop_the_halving_of_batches(link: HttpsLink, gateway: Gateway) -> None:
    beats = 0

    async def slow(request: httpx.Request) -> httpx.Response:
        nonlocal beats
        if len(request.content) > 100_000:
            while not beats:
                await asyncio.sleep(0)
            raise httpx.WriteTimeout("slow")
        beats += request.method == "POST"
        return await gateway(request)

    lost = 0
    for _ in range(8):
        await link.close()
        link._transport = httpx.MockTransport(slow)
        await link.open()
        beats = 0
        await link.publish(outbound("beat", topic="status"))
        sent = [await link.send(outbound("x" * 20_000, n)) for n in range(4, 30)]
        lost += any(isinstance(a, LinkLost) for a in await asyncio.gather(*sent, return_exceptions=True))
    assert 3 <= lost <= 6


@pytest.mark.parametrize("text", ["secret one\n# the old one", "s\u00e9cret", "secret\nsecret", ""])
async def test_the_error_for_an_unusable_token_names_the_file_but_not_the_token(token: Path, text: str) -> None:
    token.write_text(text)  # noqa: ASYNC240
    link = HttpsLink(LinkConfig(kind="https", url="https://localhost:1", token_file=token), "agent-1")
    with pytest.raises(ConfigError, match=r"link\.token_file = .*token") as error:
        await link.open()
    assert "cret" not in str(error.value).replace(str(token), "")
    await link.close()


async def test_a_password_in_the_gateway_address_is_masked(token: Path) -> None:
    config = LinkConfig(kind="https", url="https://agent:hunter2@gateway.example", token_file=token)
    link = HttpsLink(config, "agent-1", httpx.MockTransport(lambda request: httpx.Response(500)))
    with pytest.raises(LinkLost) as error:
        await link.open()
    assert "hunter2" not in f"{error.value} {link.address}"
    await link.close()


async def test_only_repeated_requests_of_a_batch_have_the_same_idempotency_key(
    gateway: Gateway, link: HttpsLink
) -> None:
    async def key_of(*parcels: OutboundRecord) -> str:
        before = len(gateway.requests)
        gateway.free.clear()
        sent = [await link.send(p) for p in parcels]
        gateway.free.set()
        await asyncio.gather(*sent)
        return str(gateway.requests[before].headers["idempotency-key"])

    key = await key_of(outbound("a", 7))
    assert key.startswith("agent-1/7/1/")
    assert await key_of(outbound("a", 7)) == key
    assert await key_of(outbound("b", 7)) != key  # a new spool counts from 1 again


async def test_a_changed_token_file_of_the_gateway_is_read_again(
    link: HttpsLink, gateway: Gateway, token: Path
) -> None:
    await (await link.send(outbound("a")))
    new = token.with_suffix(".new")
    new.write_text("secret-2")
    new.replace(token)
    await (await link.send(outbound("b")))
    assert [r.headers["authorization"] for r in gateway.requests[-2:]] == ["Bearer secret-1", "Bearer secret-2"]
    token.unlink()  # noqa: ASYNC240
    with pytest.raises(LinkLost, match="a text file with the token"):
        await (await link.send(outbound("c")))


async def test_the_number_of_queued_heartbeats_to_the_gateway_is_limited(link: HttpsLink, gateway: Gateway) -> None:
    gateway.free.clear()
    for _ in range(100):
        await link.publish(outbound("beat", topic="status"))
        await asyncio.sleep(0)
    gateway.free.set()
    await (await link.send(outbound("last", topic="status")))
    assert sum(batch.count("beat") for batch in gateway.batches) <= MAX_PUBLISHED + 2


async def test_opening_a_link_to_a_gateway_that_is_not_ready_raises_link_lost(token: Path) -> None:
    config = LinkConfig(kind="https", url="https://gateway.example", token_file=token)
    link = HttpsLink(config, "agent-1", httpx.MockTransport(lambda request: httpx.Response(503)))
    with pytest.raises(LinkLost, match="503"):
        await link.open()
    await link.close()


@pytest.mark.parametrize("setting", ["ca_file", "cert_file"])
async def test_the_error_for_an_unusable_certificate_names_its_setting_and_file(tmp_path: Path, setting: str) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    link = HttpsLink(LinkConfig(kind="https", url="https://g", **{setting: tmp_path / "bad.pem"}), "agent-1")
    with pytest.raises(ConfigError, match=rf"link\.{setting} = .*bad\.pem"):
        await link.open()
    await link.close()


def test_an_https_link_needs_an_https_address() -> None:
    with pytest.raises(ValueError, match="expected an address https://"):
        LinkConfig(kind="https", url="http://gateway")
    assert json.loads(LinkConfig().model_dump_json())["kind"] == "kafka"

"""Tests of deliveries by e-mail to an SMTP server on loopback."""

from __future__ import annotations

import asyncio
import base64
import email
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from ingest.contract.records import Alert
from ingest.site import ReceiverConfig
from stream.alerts.alert import make_alert
from stream.delivery.clients.guard import DeliveryPolicy
from stream.delivery.clients.mail import MAX_REPLY_BYTES, MailDeliverer
from stream.delivery.clients.service import make_deliverer
from stream.delivery.schedule import AttemptResult
from tests.peers.certificates import Authority
from tests.stream.alerts.test_alerts import event

USER, PASSWORD = "guard", "p w"


class SmtpPeer:
    """A mail server that keeps the messages, with STARTTLS and login if it has a certificate."""

    def __init__(self, context: ssl.SSLContext | None, *, greeting: bytes = b"220 ready") -> None:
        self.messages: list[Message] = []
        self.logins: list[str] = []
        self.encrypted: list[bool] = []
        self._context, self._greeting = context, greeting

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._greeting + b"\r\n")
        while line := (await reader.readline()).decode().strip():
            encrypted = writer.get_extra_info("ssl_object") is not None
            verb = line.split()[0].upper()
            if verb == "EHLO":
                await self._greet(writer)
            elif verb == "STARTTLS":
                assert self._context
                writer.write(b"220 go\r\n")
                await writer.start_tls(self._context)
            elif verb == "AUTH":
                self.logins.append(base64.b64decode(line.split()[2]).decode())
                writer.write(b"235 ok\r\n")
            elif verb == "RCPT" and "nobody" in line:
                writer.write(b"550 unknown\r\n")
            elif verb == "DATA":
                writer.write(b"354 go\r\n")
                self.messages.append(email.message_from_bytes(await reader.readuntil(b"\r\n.\r\n")))
                self.encrypted.append(encrypted)
                writer.write(b"250 ok\r\n")
            elif verb == "QUIT":
                writer.write(b"421 broken\r\n")  # after the message, nothing matters
            else:
                writer.write(b"250 ok\r\n")

    async def _greet(self, writer: asyncio.StreamWriter) -> None:
        encrypted = writer.get_extra_info("ssl_object") is not None
        offers = ["AUTH PLAIN"] if encrypted else (["STARTTLS"] if self._context else [])
        writer.write("".join(f"250-{one}\r\n" for one in ["here", *offers]).encode() + b"250 8BITMIME\r\n")


@asynccontextmanager
async def mail_server(peer: SmtpPeer, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve during the block, and yield host and port."""
    server = await asyncio.start_server(peer.serve, "127.0.0.1", ssl=context)
    async with server:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"


def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    authority = Authority(tmp_path)
    signed = authority.sign("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.certificate, signed.key)
    return authority.file, context


def config(tmp_path: Path, url: str, **fields: Any) -> ReceiverConfig:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    usual = {"name": "r", "type": "email", "url": url, "sender": "sightline@example.org", "allow_private": True}
    return ReceiverConfig.model_validate({**usual, "to": ["guard@example.org"], "timeout_s": 20.0} | fields)


async def attempt(receiver: ReceiverConfig, policy: DeliveryPolicy | None = None, **data: Any) -> AttemptResult:
    deliverer = make_deliverer(receiver, policy)
    try:
        return await deliverer.deliver(alert(**data), time.time())
    finally:
        await deliverer.close()


def alert(**data: Any) -> Alert:
    made = make_alert(event(), ())
    return made.model_copy(update={"data": made.data.model_copy(update=data)})


async def test_an_alert_is_sent_by_mail_and_a_repeated_alert_has_the_same_message_id(tmp_path: Path) -> None:
    peer = SmtpPeer(None)
    async with mail_server(peer) as place:
        receiver = config(tmp_path, f"smtp://{place}", to=["guard@example.org", "nobody@example.org"])
        results = [await attempt(receiver, summary="ein Auto\r\nBcc: evil@example.org ü") for _ in range(2)]
    assert [result.status for result in results] == [250, 250]
    assert results[0].reason == "refused: nobody@example.org"
    first, second = peer.messages
    assert first["Message-ID"] == second["Message-ID"] == f"<{alert().id}@sightline.invalid>"
    assert (first["To"], first["Bcc"]) == ("guard@example.org, nobody@example.org", None)
    body = first.get_payload(decode=True)
    assert isinstance(body, bytes)
    assert "rule: line" in body.decode()


async def test_the_password_is_sent_only_over_tls(tmp_path: Path) -> None:
    ca_file, context = certificate(tmp_path)
    own = {"user": USER, "secret_file": tmp_path / "password", "ca_file": ca_file}
    upgraded, wrapped, plain = SmtpPeer(context), SmtpPeer(context), SmtpPeer(None)
    async with mail_server(upgraded) as place:
        assert (await attempt(config(tmp_path, f"smtp://{place}", **own))).status == 250
    async with mail_server(wrapped, context) as place:
        assert (await attempt(config(tmp_path, f"smtps://{place}", **own))).status == 250
        untrusted = await attempt(config(tmp_path, f"smtps://{place}"))
    async with mail_server(plain) as place:
        refused = await attempt(config(tmp_path, f"smtp://{place}", **own))
    assert upgraded.logins == wrapped.logins == [f"\0{USER}\0{PASSWORD}"]
    assert upgraded.encrypted == wrapped.encrypted == [True]
    assert "no STARTTLS" in refused.reason
    assert plain.logins == plain.messages == []
    assert (untrusted.status, "certificate" in untrusted.reason.lower()) == (None, True)


async def test_failures_of_a_mail_server_give_a_result_with_its_reply(tmp_path: Path) -> None:
    busy = SmtpPeer(None, greeting=b"421 busy")
    async with mail_server(busy) as place:
        assert (await attempt(config(tmp_path, f"smtp://{place}"))).status == 421
    async with mail_server(SmtpPeer(None)) as place:
        unknown = await attempt(config(tmp_path, f"smtp://{place}", to=["nobody@example.org"]))
        private = await attempt(config(tmp_path, f"smtp://{place}", allow_private=False))
        policy = DeliveryPolicy.of([], https_only=True)
        unencrypted = await attempt(config(tmp_path, f"smtp://{place}"), policy)
    assert (unknown.status, "all recipients are refused" in unknown.reason) == (550, True)
    assert "private" in private.reason
    assert "--https-only" in unencrypted.reason
    closed = await attempt(config(tmp_path, "smtp://127.0.0.1:9"))
    assert (closed.status, bool(closed.reason)) == (None, True)


@pytest.mark.parametrize("greeting", [b"250 ok", b"hello", b"999999 no"])
async def test_a_wrong_greeting_of_a_mail_server_is_no_success(tmp_path: Path, greeting: bytes) -> None:
    peer = SmtpPeer(None, greeting=greeting)
    async with mail_server(peer) as place:
        result = await attempt(config(tmp_path, f"smtp://{place}"))
    assert not result.is_success
    assert result.reason
    assert peer.messages == []


async def test_the_connection_to_a_mail_server_that_replies_without_end_is_closed(tmp_path: Path) -> None:
    endless = SmtpPeer(None, greeting=b"\r\n".join([b"220-" + b"x" * 1000] * (2 * MAX_REPLY_BYTES // 1000)))
    async with mail_server(endless) as place:
        result = await attempt(config(tmp_path, f"smtp://{place}"))
    assert (result.status, "more than 1048576 bytes" in result.reason) == (None, True)


async def test_a_mail_server_that_replies_slowly_after_starttls_occupies_no_thread(tmp_path: Path) -> None:
    class SlowPeer(SmtpPeer):
        async def _greet(self, writer: asyncio.StreamWriter) -> None:
            while writer.get_extra_info("ssl_object"):
                writer.write(b"250-wait\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
            await super()._greet(writer)

    ca_file, context = certificate(tmp_path)
    async with mail_server(SlowPeer(context)) as place:
        deliverer = MailDeliverer(config(tmp_path, f"smtp://{place}", ca_file=ca_file, timeout_s=1.0))
        assert (await deliverer.deliver(alert(), time.time())).status is None
        async with asyncio.timeout(20):
            await asyncio.to_thread(deliverer._threads.shutdown, wait=True)
        await deliverer.close()


async def test_a_delivery_to_a_mail_server_that_does_not_answer_fails_at_the_time_limit(tmp_path: Path) -> None:
    silent = SmtpPeer(None, greeting=b"220-wait")  # the greeting has no end
    async with mail_server(silent) as place:
        result = await attempt(config(tmp_path, f"smtp://{place}", timeout_s=0.3))
    assert result == AttemptResult(None, "no answer of the mail server within 0.3 s")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"url": "https://mail/"}, "smtp:// or smtps://"),
        ({"sender": ""}, "sender and to"),
        ({"to": []}, "sender and to"),
        ({"to": ["guard"]}, "a mail address"),
        ({"to": ["guard@example.org\nBcc: x@y"]}, "a mail address"),
        ({"user": "guard"}, "secret_file as well"),
        ({"type": "ntfy"}, "http:// or https://"),
    ],
)
def test_an_incomplete_receiver_of_mail_is_refused(tmp_path: Path, fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        config(tmp_path, fields.pop("url", "smtp://mail"), **fields)

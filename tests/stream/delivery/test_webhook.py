"""Tests of webhooks: signatures, and receivers with malformed or endless responses."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import WebhookVerificationError

from ingest.contract.codec import encode_json
from ingest.contract.records import Alert
from ingest.site import ReceiverConfig
from stream.alerts.alert import make_alert
from stream.delivery.clients.receiver import Inbox, make_app
from stream.delivery.clients.signature import WebhookVerifier, new_secret, sign
from stream.delivery.clients.webhook import WebhookDeliverer, signed_headers
from stream.delivery.schedule import AttemptResult
from tests.peers.receiver import Reaction, answer, application, receiving, repeat, silence
from tests.stream.alerts.test_alerts import event

SECRETS = ("whsec_" + "a" * 32, "whsec_" + "b" * 32)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HANG_S = 0.2
"""Time limit of attempts that cannot succeed."""


def alert() -> Alert:
    return make_alert(event(), ())


@pytest.fixture
def receiver(tmp_path: Path) -> ReceiverConfig:
    (tmp_path / "secret").write_text(f"{SECRETS[0]}\n")
    return ReceiverConfig(
        name="r", url="http://receiver/", secret_file=tmp_path / "secret", timeout_s=20, allow_private=True
    )


async def attempt(receiver: ReceiverConfig, react: Reaction, timeout_s: float = 20.0) -> AttemptResult:
    async with receiving(react) as peer:
        deliverer = WebhookDeliverer(receiver.model_copy(update={"url": peer.url, "timeout_s": timeout_s}))
        try:
            return await deliverer.deliver(alert(), time.time())
        finally:
            await deliverer.close()


class TestSignature:
    async def post(self, receiver: ReceiverConfig, secret: str, seen: list[dict[str, object]]) -> AttemptResult:
        return await attempt(receiver, application(make_app(secret, Inbox(None, seen.append))))

    async def test_a_signed_webhook_alert_passes_verification(self, receiver: ReceiverConfig) -> None:
        seen: list[dict[str, object]] = []
        assert await self.post(receiver, SECRETS[0], seen) == AttemptResult(204)
        assert [entry["id"] for entry in seen] == [alert().id]

    async def test_an_alert_signed_with_another_secret_is_refused(self, receiver: ReceiverConfig) -> None:
        seen: list[dict[str, object]] = []
        assert (await self.post(receiver, SECRETS[1], seen)).status == 401
        assert seen == []

    async def test_during_a_secret_rotation_a_webhook_message_verifies_with_both_secrets(
        self, receiver: ReceiverConfig
    ) -> None:
        receiver.secret_file.write_text("\n".join(SECRETS))
        for secret in SECRETS:
            assert (await self.post(receiver, secret, [])).status == 204

    async def test_an_alert_may_be_signed_with_ed25519_beside_a_shared_secret(self, receiver: ReceiverConfig) -> None:
        private, public = new_secret(ed25519=True)
        receiver.secret_file.write_text(f"{private}\n{SECRETS[0]}\n")
        for secret, status in ((public, 204), (SECRETS[0], 204), (new_secret(ed25519=True)[1], 401)):
            assert (await self.post(receiver, secret, [])).status == status

    def test_an_ed25519_signature_covers_the_id_the_time_and_the_body(self) -> None:
        private, public = new_secret(ed25519=True)
        now_s = int(time.time())
        signature = sign(private, "m", now_s, b"x")
        good = {"webhook-id": "m", "webhook-timestamp": str(now_s), "webhook-signature": signature}
        verifier = WebhookVerifier(public)
        verifier.require(good, b"x")
        for bad in (
            {"webhook-id": "n"},
            {"webhook-timestamp": str(now_s - 1)},
            {"webhook-timestamp": "soon"},
            {"webhook-signature": "v1a,AAAA v1a v1a,ü"},
            {"webhook-signature": signature.replace("v1a,", "v1,")},
        ):
            with pytest.raises(WebhookVerificationError):
                verifier.require(good | bad, b"x")
        with pytest.raises(WebhookVerificationError):
            verifier.require(good, b"y")
        old = {"webhook-timestamp": "1", "webhook-signature": sign(private, "m", 1, b"x")}
        with pytest.raises(WebhookVerificationError, match="too old"):
            verifier.require(good | old, b"x")

    def test_an_ed25519_key_may_be_a_seed_or_a_seed_with_its_public_key(self) -> None:
        """The key pair is that of RFC 8032, §7.1, test 2."""
        seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
        public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        for key in (seed, seed + public):
            signature = sign(f"whsk_{base64.b64encode(key).decode()}", "m", 1, b"x")
            Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(signature[4:]), b"m.1.x")

    async def test_a_missing_webhook_secret_gives_a_failed_delivery_result(self, receiver: ReceiverConfig) -> None:
        receiver.secret_file.unlink()
        result = await self.post(receiver, SECRETS[0], [])
        assert result.status is None
        assert "secret_file" in result.reason

    @pytest.mark.parametrize(
        "secret", [b"hello", b"whsec_", "whsec_ü".encode(), b"\xff\xfe", b"whsk_YWJj", b"whsk_?"]
    )
    async def test_an_invalid_webhook_secret_gives_a_failed_delivery_result(
        self, receiver: ReceiverConfig, secret: bytes
    ) -> None:
        receiver.secret_file.write_bytes(secret)
        result = await self.post(receiver, SECRETS[0], [])
        assert result.status is None
        assert "secret_file" in result.reason

    async def test_the_webhook_receiver_refuses_an_old_message(self, receiver: ReceiverConfig) -> None:
        body = encode_json(alert())
        headers = signed_headers("msg_1", body, 1_000_000_000.0, receiver)
        transport = httpx.ASGITransport(make_app(SECRETS[0], Inbox(None, lambda _: None)))
        async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as client:
            assert (await client.post("/", content=body, headers=headers)).status_code == 401


class TestResponses:
    @pytest.mark.parametrize(
        "response",
        [
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nabc",
            b"HTTP/1.1 202 Accepted\r\ncontent-length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno chunk",
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnone",
            b"HTTP/1.1 200 OK\r\nno header at all\x00\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nabc",
            b"HTTP/1.1 201 ",
            CONTINUE + b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ],
    )
    async def test_a_webhook_response_with_2xx_status_is_a_success_whatever_follows_the_status_line(
        self, receiver: ReceiverConfig, response: bytes
    ) -> None:
        if not response.endswith(b"\n"):
            response += b"\n"
        result = await attempt(receiver, answer(response))
        assert result.status in range(200, 300)

    @pytest.mark.parametrize("body", [b"x" * 1024, b"x"])
    async def test_a_2xx_webhook_response_with_an_endless_body_is_a_success(
        self, receiver: ReceiverConfig, body: bytes
    ) -> None:
        head = b"HTTP/1.1 200 OK\r\n\r\n"
        assert await attempt(receiver, repeat(head, body, 0.0 if len(body) > 1 else 0.01)) == AttemptResult(200)

    async def test_a_2xx_webhook_response_with_endless_headers_is_a_success(self, receiver: ReceiverConfig) -> None:
        assert await attempt(receiver, repeat(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n")) == AttemptResult(200)

    @pytest.mark.parametrize(
        ("react", "reason"),
        [
            (repeat(b"", CONTINUE), "informational"),
            (repeat(b"", b"x" * 1024), "Limit"),
            (answer(b"SSH-2.0-OpenSSH\r\n"), "expected an HTTP/1 status line"),
            (answer(b"HTTP/1.1 999 No\r\n\r\n"), "expected an HTTP/1 status line"),
            (answer(b"HTTP/1.1 20"), "closed before the status line"),
            (answer(b""), "closed before the status line"),
        ],
    )
    async def test_a_webhook_response_without_a_status_is_a_failed_delivery(
        self, receiver: ReceiverConfig, react: Reaction, reason: str
    ) -> None:
        result = await attempt(receiver, react)
        assert result.status is None
        assert reason in result.reason

    @pytest.mark.parametrize("react", [silence, repeat(b"", CONTINUE, 0.02), repeat(b"HTTP/1.1 2", b"0", 0.02)])
    async def test_one_time_limit_covers_a_whole_webhook_delivery_attempt(
        self, receiver: ReceiverConfig, react: Reaction
    ) -> None:
        assert await attempt(receiver, react, HANG_S) == AttemptResult(None, f"no status within {HANG_S} s")

    async def test_the_header_retry_after_of_a_failed_delivery_is_read(self, receiver: ReceiverConfig) -> None:
        busy = b"HTTP/1.1 429 Too Many\r\nserver: x\r\nRetry-After: 60\r\n\r\n"
        assert await attempt(receiver, answer(busy)) == AttemptResult(429, retry_after="60")

    async def test_a_failed_delivery_with_endless_response_headers_keeps_its_status(
        self, receiver: ReceiverConfig
    ) -> None:
        assert (await attempt(receiver, repeat(b"HTTP/1.1 503 Busy\r\n", b"a: b\r\n"))).status == 503

    async def test_hostile_webhook_receivers_do_not_block_the_event_loop(self, receiver: ReceiverConfig) -> None:
        """Each attempt at a hostile receiver ends after a bounded number of lines, so the good receiver gets all its
        posts."""
        async with (
            receiving(repeat(b"", CONTINUE * 1000)) as bad,
            receiving(answer(b"HTTP/1.1 204 \r\n\r\n")) as good,
        ):
            hostile = WebhookDeliverer(receiver.model_copy(update={"url": bad.url}))
            decent = WebhookDeliverer(receiver.model_copy(update={"url": good.url}))
            attempts = [hostile.deliver(alert(), time.time()) for _ in range(8)]
            attempts += [decent.deliver(alert(), time.time()) for _ in range(8)]
            results = await asyncio.gather(*attempts)
            await hostile.close()
            await decent.close()
        assert [result.status for result in results] == [None] * 8 + [204] * 8

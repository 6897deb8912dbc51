"""Tests of connections to receivers: refused addresses, redirects, certificates, proxies, secrets in addresses."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ingest.exceptions import ConfigError
from ingest.site import ReceiverConfig
from stream.alerts.alert import make_alert
from stream.delivery.clients.guard import DeliveryPolicy
from stream.delivery.clients.webhook import WebhookDeliverer
from stream.delivery.schedule import AttemptResult
from tests.peers.certificates import Authority
from tests.peers.receiver import PostReceiver, answer, receiving
from tests.stream.alerts.test_alerts import event

ACCEPT = answer(b"HTTP/1.1 204 \r\n\r\n")


def config(tmp_path: Path, **fields: Any) -> ReceiverConfig:
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + "a" * 32)
    usual = {"name": "r", "url": "http://receiver/", "secret_file": secret, "allow_private": True, "timeout_s": 20}
    return ReceiverConfig.model_validate(usual | fields)


async def attempt(receiver: ReceiverConfig, policy: DeliveryPolicy | None = None) -> AttemptResult:
    deliverer = WebhookDeliverer(receiver, policy)
    try:
        return await deliverer.deliver(make_alert(event(), ()), time.time())
    finally:
        await deliverer.close()


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "2002:0a00:0001::",
        ],
    )
    def test_a_private_address_needs_allow_private(self, address: str) -> None:
        policy = DeliveryPolicy()
        assert "allow_private" in policy.address_refusal(address, allow_private=False)
        assert policy.address_refusal(address, allow_private=True) == ""

    @pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1", "ff02::1"])
    def test_link_local_and_multicast_addresses_are_always_refused(self, address: str) -> None:
        assert "link-local" in DeliveryPolicy().address_refusal(address, allow_private=True)

    @pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1"])
    def test_public_addresses_are_accepted_unless_they_are_denied(self, address: str) -> None:
        assert DeliveryPolicy().address_refusal(address, allow_private=False) == ""
        denied = DeliveryPolicy.of(["93.184.0.0/16", "2606::/16"], https_only=False)
        assert "--deny" in denied.address_refusal(address, allow_private=True)

    @pytest.mark.parametrize("deny", ["64:ff9b::/96", "93.184.0.0/16"])
    def test_an_address_that_embeds_an_ipv4_address_is_denied_in_both_forms(self, deny: str) -> None:
        denied = DeliveryPolicy.of([deny], https_only=False)
        assert "--deny" in denied.address_refusal("64:ff9b::93.184.216.34", allow_private=True)

    @pytest.mark.parametrize("deny", ["10.0.0.0/33", "10.0.0", "10.0.0.1/x", "fe80::g"])
    def test_an_invalid_network_in_the_deny_list_is_refused(self, deny: str) -> None:
        with pytest.raises(ConfigError, match="--deny"):
            DeliveryPolicy.of([deny], https_only=False)

    async def test_a_receiver_on_this_machine_gets_nothing_without_allow_private(self, tmp_path: Path) -> None:
        async with receiving(ACCEPT) as peer:
            result = await attempt(config(tmp_path, url=peer.url, allow_private=False))
        assert result.status is None
        assert "address 127.0.0.1 is private: set allow_private = true" in result.reason
        assert peer.posts == []

    async def test_the_name_of_a_receiver_is_resolved_once_and_its_refused_addresses_are_skipped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A DNS server answers first with a good address, and with a private one if it is asked again."""
        asked: list[str] = []

        def resolve(host: str, port: int, **_: Any) -> list[Any]:
            asked.append(host)
            good = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port)), *good]

        async with receiving(ACCEPT) as peer:
            real = socket.getaddrinfo
            monkeypatch.setattr(
                socket,
                "getaddrinfo",
                lambda host, *a, **k: (resolve if host == "hooks.test" else real)(host, *a, **k),
            )
            result = await attempt(config(tmp_path, url=peer.url.replace("127.0.0.1", "hooks.test")))
        assert (result.status, asked) == (204, ["hooks.test"])
        assert peer.posts[0].headers["host"].startswith("hooks.test:")

    async def test_the_dispatcher_options_https_only_and_deny_overrule_the_address_of_a_receiver(
        self, tmp_path: Path
    ) -> None:
        async with receiving(ACCEPT) as peer:
            receiver = config(tmp_path, url=peer.url)
            refused = [
                await attempt(receiver, DeliveryPolicy.of([], https_only=True)),
                await attempt(receiver, DeliveryPolicy.of(["127.0.0.0/8"], https_only=False)),
                await attempt(
                    config(tmp_path, url=peer.url.replace("127.0.0.1", "localhost")),
                    DeliveryPolicy.of(["local*"], https_only=False),
                ),
            ]
        assert [result.status for result in refused] == [None] * 3
        assert "--https-only" in refused[0].reason
        assert "--deny 127.0.0.0/8" in refused[1].reason
        assert "--deny local*" in refused[2].reason
        assert peer.posts == []

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, tmp_path: Path, status: int) -> None:
        async with receiving(ACCEPT) as inner:
            to_inner = f"HTTP/1.1 {status} Moved\r\nlocation: {inner.url}\r\n\r\n"
            async with receiving(answer(to_inner.encode())) as peer:
                result = await attempt(config(tmp_path, url=peer.url))
        assert result.status == status
        host = inner.url.removesuffix("/hook")
        assert result.reason.endswith(f"redirects are not followed, enter the new address of the receiver at {host}")
        assert inner.posts == []

    @pytest.mark.parametrize("location", ["https://u:s3cret@hooks.test/s3cret?s3cret", "/s3cret", "s3cret", "//"])
    async def test_the_path_of_a_redirect_is_not_in_the_receipt(self, tmp_path: Path, location: str) -> None:
        async with receiving(answer(f"HTTP/1.1 301 Moved\r\nlocation: {location}\r\n\r\n".encode())) as peer:
            result = await attempt(config(tmp_path, url=peer.url))
        assert result.status == 301
        assert "s3cret" not in result.reason
        assert ("at https://hooks.test" in result.reason) == location.startswith("https:")


@asynccontextmanager
async def receiving_tls(context: ssl.SSLContext) -> AsyncIterator[PostReceiver]:
    peer = PostReceiver(ACCEPT)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", ssl=context)
    peer.url = f"https://localhost:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield peer
    finally:
        server.close()
        await peer.stop()
        await server.wait_closed()


class TestCertificates:
    def context(self, authority: Authority, *, need_client: bool = False) -> ssl.SSLContext:
        signed = authority.sign("server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(signed.certificate, signed.key)
        if need_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(authority.file)
        return context

    async def test_a_receiver_with_its_own_certificate_authority_needs_ca_file(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        async with receiving_tls(self.context(authority)) as peer:
            refused = await attempt(config(tmp_path, url=peer.url))
            accepted = await attempt(config(tmp_path, url=peer.url, ca_file=authority.file))
        assert refused.status is None
        assert "certificate is refused" in refused.reason
        assert "Set ca_file" in refused.reason
        assert accepted.status == 204
        assert len(peer.posts) == 1

    async def test_a_receiver_may_require_a_client_certificate(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        client = authority.sign("client")
        own = {"cert_file": client.certificate, "key_file": client.key, "ca_file": authority.file}
        async with receiving_tls(self.context(authority, need_client=True)) as peer:
            without = await attempt(config(tmp_path, url=peer.url, ca_file=authority.file))
            assert (await attempt(config(tmp_path, url=peer.url, **own))).status == 204
        assert without.status is None
        assert len(peer.posts) == 1

    @pytest.mark.parametrize("key", ["ca_file", "cert_file"])
    async def test_unreadable_certificates_give_a_failed_delivery_result(self, tmp_path: Path, key: str) -> None:
        (tmp_path / "bad.pem").write_text("no certificate")
        for name in ("bad.pem", "missing.pem"):
            result = await attempt(config(tmp_path, url="https://127.0.0.1:9/", **{key: tmp_path / name}))
            assert result.status is None
            assert key in result.reason


class ConnectProxy:
    """An HTTP proxy that supports the method CONNECT and requires a login."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connected\r\nvia: test\r\n\r\n") -> None:
        self.targets: list[str] = []
        self._answer = answer
        self._pipes: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = head.split()[1]
        login = base64.b64encode(b"user:p w").decode()
        if f"proxy-authorization: Basic {login}" not in head:
            writer.write(b"HTTP/1.1 407 Login\r\n\r\n")
            writer.close()
            return
        self.targets.append(target)
        host, _, port = target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(self._answer)
        await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()


class TestProxy:
    async def test_alerts_go_through_the_proxy_of_a_receiver(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PROXY_PASSWORD", "p%20w")
        authority, proxy = Authority(tmp_path), ConnectProxy()
        server = await asyncio.start_server(proxy.serve, "127.0.0.1")
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, receiving_tls(TestCertificates().context(authority)) as peer:
            usual = {"url": peer.url, "ca_file": authority.file}
            with_login = f"http://user:${{PROXY_PASSWORD}}@{place}"
            assert (await attempt(config(tmp_path, **usual, proxy=with_login))).status == 204
            refused = await attempt(config(tmp_path, **usual, proxy=f"http://{place}"))
            private = await attempt(config(tmp_path, **usual, proxy=with_login, allow_private=False))
            hidden = config(tmp_path, url="http://169.254.169.254/", proxy=with_login)
            metadata = await attempt(hidden)
        assert proxy.targets == [peer.url.removeprefix("https://").removesuffix("/hook")]
        assert "the proxy answered b'HTTP/1.1 407 Login" in refused.reason
        assert "address 127.0.0.1 is private" in private.reason
        assert "link-local" in metadata.reason

    @pytest.mark.parametrize("more", [b"\r\nHTTP/1.1 204 \r\n\r\n", b"via: x\r\n" * 200])
    async def test_a_proxy_cannot_answer_in_place_of_the_receiver(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: bytes
    ) -> None:
        monkeypatch.setenv("PROXY_PASSWORD", "p%20w")
        authority, proxy = Authority(tmp_path), ConnectProxy(b"HTTP/1.1 200 \r\n" + more)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1")
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, receiving_tls(TestCertificates().context(authority)) as peer:
            with_login = f"http://user:${{PROXY_PASSWORD}}@{place}"
            result = await attempt(config(tmp_path, url=peer.url, ca_file=authority.file, proxy=with_login))
        assert (result.status, "the proxy sent" in result.reason) == (None, True)

    async def test_a_proxy_with_a_denied_name_is_refused(self, tmp_path: Path) -> None:
        proxy = ConnectProxy()
        server = await asyncio.start_server(proxy.serve, "127.0.0.1")
        async with server:
            place = f"localhost:{server.sockets[0].getsockname()[1]}"
            receiver = config(tmp_path, url="https://192.0.2.1/", proxy=f"http://{place}")
            result = await attempt(receiver, DeliveryPolicy.of(["local*"], https_only=False))
        assert "--deny local*" in result.reason


class TestSecretsInAddresses:
    async def test_secrets_in_the_address_of_a_receiver_are_read_from_environment_variables_and_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOOK_TOKEN", "s3cret")
        async with receiving(ACCEPT) as peer:
            (tmp_path / "url").write_text(f"{peer.url}\n")
            assert (
                await attempt(config(tmp_path, url=peer.url + "/${HOOK_TOKEN}?token=${HOOK_TOKEN}"))
            ).status == 204
            assert (await attempt(config(tmp_path, url="", url_file=tmp_path / "url"))).status == 204
        assert len(peer.posts) == 2
        monkeypatch.delenv("HOOK_TOKEN")
        missing = await attempt(config(tmp_path, url="http://127.0.0.1:9/${HOOK_TOKEN}"))
        assert "the environment variable HOOK_TOKEN" in missing.reason

    async def test_an_invalid_secret_address_is_not_quoted_in_the_receipt(self, tmp_path: Path) -> None:
        for text in ("ftp://host/s3cret", "http://host:s3cret/", "s3cret", "http://[::1/s3cret", ""):
            (tmp_path / "url").write_text(text)
            result = await attempt(config(tmp_path, url="", url_file=tmp_path / "url"))
            assert result.status is None
            assert result.reason
            assert "s3cret" not in result.reason

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"url": "https://h/?token=abc"}, "expected no secret after"),
            ({"url": "https://h/?a=b&api_key=abc"}, "expected no secret after"),
            ({"url": "https://user:pass@h/"}, "without a user or password"),
            ({"url": "", "url_file": None}, "either url or url_file"),
            ({"url_file": "f"}, "either url or url_file"),
            ({"proxy": "http://user:pass@proxy:3128"}, "a placeholder for the password"),
            ({"proxy": "socks5://proxy:3128"}, "http://"),
            ({"key_file": "k"}, "cert_file as well"),
        ],
    )
    def test_a_literal_secret_or_an_incomplete_address_is_refused(
        self, tmp_path: Path, fields: dict[str, Any], expected: str
    ) -> None:
        with pytest.raises(ValueError, match=expected):
            config(tmp_path, **fields)

"""Tests of the console's HTTP server and of its command."""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from console.app import make_app
from console.context import ConsoleContext, ConsoleOptions
from console.server import ServerOptions, listen, parse_listen, serve
from deploy.cli.app import app
from ingest.exceptions import ConfigError
from tests.peers.certificates import Authority


def test_the_address_to_listen_on_is_checked() -> None:
    assert parse_listen("127.0.0.1:8090") == ("127.0.0.1", 8090)
    assert parse_listen("[::1]:0") == ("::1", 0)
    for text in ("8090", ":8090", "localhost:", "localhost:x", "localhost:70000"):
        with pytest.raises(ConfigError, match="expected HOST:PORT"):
            parse_listen(text)


async def test_the_server_serves_pages_until_it_is_stopped(context: ConsoleContext) -> None:
    stop = asyncio.Event()
    with listen("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(serve(make_app(context), listener, ServerOptions(), stop))
        port = listener.getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            response = await client.get("/sign-in", headers={"X-Forwarded-For": "198.51.100.9"})
        assert response.status_code == 200
        assert "server" not in response.headers
        stop.set()
        await serving


async def test_over_https_cookies_are_bound_to_the_host_and_browsers_stay_on_https(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    signed = authority.sign("localhost")
    context, stop = ConsoleContext(tmp_path / "state", ConsoleOptions(https=True)), asyncio.Event()
    with listen("127.0.0.1", 0) as listener:
        options = ServerOptions(signed.certificate, signed.key)
        serving = asyncio.create_task(serve(make_app(context), listener, options, stop))
        trust = ssl.create_default_context(cafile=authority.file)
        async with httpx.AsyncClient(verify=trust) as client:
            response = await client.get(f"https://localhost:{listener.getsockname()[1]}/sign-in")
        stop.set()
        await serving
    context.close()
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-sightline-start=")
    assert "Secure" in cookie
    assert "max-age" in response.headers["strict-transport-security"]


async def test_an_unusable_certificate_is_refused(tmp_path: Path, context: ConsoleContext) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    with listen("127.0.0.1", 0) as listener, pytest.raises(ConfigError, match="--certificate"):
        await serve(make_app(context), listener, ServerOptions(empty, empty), asyncio.Event())


async def test_only_named_proxies_set_the_address_of_a_request(context: ConsoleContext) -> None:
    for proxies, expected in (("", "127.0.0.1"), ("127.0.0.1", "198.51.100.9")):
        stop = asyncio.Event()
        with listen("127.0.0.1", 0) as listener:
            serving = asyncio.create_task(serve(make_app(context), listener, ServerOptions(proxies=proxies), stop))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/sign-in"
            async with httpx.AsyncClient(headers={"X-Forwarded-For": "198.51.100.9"}) as client:
                html = (await client.get(url)).text
                token = re.search(r'name="csrf" value="([^"]+)"', html)
                assert token
                await client.post(url, data={"csrf": token.group(1), "name": "ada", "password": "wrong"})
            stop.set()
            await serving
        assert context.trail.page(action="sign_in_failed")[0].address == expected


def test_the_command_refuses_wrong_options_and_taken_ports(tmp_path: Path) -> None:
    runner, data = CliRunner(), f"--data={tmp_path}"
    result = runner.invoke(app, ["console", data, "--listen=here"])
    assert (result.exit_code, "expected HOST:PORT" in result.stderr) == (2, True)
    result = runner.invoke(app, ["console", data, f"--certificate={tmp_path}/c.pem"])
    assert (result.exit_code, "--certificate and --key together" in result.stderr) == (2, True)
    assert "--key = ''" in result.stderr
    for address in ("192.0.2.1:0", "a..b:0", f"{'a' * 70}:0"):  # an address of no machine, and no names of machines
        result = runner.invoke(app, ["console", data, f"--listen={address}"])
        assert (result.exit_code, f"--listen = {address!r}" in result.stderr) == (2, True), result.stderr
    with listen("127.0.0.1", 0) as listener:
        result = runner.invoke(app, ["console", data, f"--listen=127.0.0.1:{listener.getsockname()[1]}"])
    assert (result.exit_code, "expected a free port" in result.stderr) == (2, True)


def test_the_command_prints_a_new_one_time_password(tmp_path: Path) -> None:
    runner, arguments = CliRunner(), ["console", f"--data={tmp_path}", "--reset-password", "admin"]
    result = runner.invoke(app, arguments)
    assert (result.exit_code, "does not exist" in result.stderr) == (2, True)
    context = ConsoleContext(tmp_path)
    first = context.add_first_admin()
    context.close()
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith("one-time password of admin: ")
    assert first not in result.stdout

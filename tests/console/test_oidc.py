"""Tests of the sign-in at an OpenID Connect provider, which signs its tokens for real."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from console.access.oidc import OidcClient, OidcOptions, parse_rights, require_address, rights_of
from console.access.roles import Limits, Role
from console.context import ConsoleContext
from console.exceptions import Forbidden, Unavailable
from ingest.exceptions import ConfigError
from ingest.runtime.clock import ManualClock
from tests.console.conftest import ADDRESS, Browser

Open = Callable[..., Browser]
ISSUER, CLIENT, SECRET = "https://login.example/realm", "console", "the secret of the client"
RIGHTS = tuple(parse_rights(one) for one in ("staff=viewer@north", "guards=operator@north,south", "it=admin"))


class Provider(httpx.AsyncBaseTransport):
    """An OpenID Connect provider with the authorization code flow and PKCE."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.rotate()
        self.claims: dict[str, Any] = {"sub": "17", "preferred_username": "Ann Lee", "groups": ["guards"]}
        self.header: dict[str, Any] = {}
        self.signing: Any = None
        self.is_down = False
        self._asked: dict[str, dict[str, str]] = {}

    def rotate(self) -> None:
        """Replace the key."""
        self.key = ECKey.generate_key("P-256", auto_kid=True)

    def authorize(self, address: str) -> dict[str, str]:
        """Authenticate the person, and return the query of the address to which the browser is sent back."""
        query = dict(parse_qsl(urlsplit(address).query))
        assert address.startswith(f"{ISSUER}/authorize?")
        assert (query["client_id"], query["redirect_uri"]) == (CLIENT, f"{ADDRESS}/sign-in/oidc/done")
        code = f"code-{len(self._asked)}"
        self._asked[code] = query
        return {"code": code, "state": query["state"]}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of the console."""
        if self.is_down:
            raise httpx.ConnectError("connection refused")
        path = str(request.url).removeprefix(ISSUER)
        if path == "/.well-known/openid-configuration":
            places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
            return httpx.Response(200, json={"issuer": ISSUER} | {k: f"{ISSUER}/{v}" for k, v in places.items()})
        if path == "/jwks":
            return httpx.Response(200, json={"keys": [self.key.as_dict(private=False)]})
        assert path == "/token"
        assert request.headers["authorization"] == httpx.BasicAuth(CLIENT, SECRET)._auth_header
        form = dict(parse_qsl((await request.aread()).decode()))
        query = self._asked.pop(form["code"])
        proof = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if proof.decode() != query["code_challenge"]:
            return httpx.Response(400, json={"error": "invalid_grant"})
        now = self._clock.now_ns() // 1_000_000_000
        claims = {"iss": ISSUER, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": query["nonce"], **self.claims}
        header = {"alg": "ES256", "kid": self.key.kid, **self.header}
        token = jwt.encode(header, claims, self.signing or self.key, algorithms=["ES256", "HS256"])
        return httpx.Response(200, json={"id_token": token, "token_type": "Bearer", "access_token": "x"})


@pytest.fixture
def provider(context: ConsoleContext, clock: ManualClock) -> Provider:
    """Return the provider of the console."""
    made = Provider(clock)
    context.oidc = OidcClient(OidcOptions(ISSUER, CLIENT, SECRET, ADDRESS, RIGHTS), clock, made)
    return made


async def sign_in(one: Browser, provider: Provider, **changed: str) -> httpx.Response:
    begun = await one.get("/sign-in/oidc?next=/events")
    assert begun.status_code == 303
    return await one.get("/sign-in/oidc/done", params={**provider.authorize(begun.headers["location"]), **changed})


async def test_a_person_signs_in_at_the_openid_provider_with_the_rights_of_a_group(
    browser: Open, context: ConsoleContext, provider: Provider
) -> None:
    one = browser()
    assert "Sign in at login.example" in await one.load("/sign-in")
    response = await sign_in(one, provider)
    assert (response.status_code, response.headers["location"]) == (303, "/events")
    assert (await one.get("/events")).status_code == 200
    user = context.users.named("ann-lee")
    assert user
    assert (user.role, user.limits) == (Role.OPERATOR, Limits(sites=frozenset({"north", "south"})))
    assert ("signed_in", "ann-lee", "oidc") in {(e.action, e.user, e.via) for e in context.trail.page()}

    provider.claims["groups"] = ["staff"]  # the next sign-in takes the new rights
    await sign_in(browser(), provider)
    assert context.users.get(user.id).role is Role.VIEWER
    assert (await browser().sign_in("ann-lee", f"oidc:{user.password}")).status_code == 401


async def test_a_person_at_the_openid_provider_whose_name_is_taken_gets_another_account(
    browser: Open, context: ConsoleContext, provider: Provider
) -> None:
    provider.claims |= {"preferred_username": "ada", "groups": ["staff"]}
    assert (await sign_in(browser(), provider)).status_code == 303
    ada = context.users.named("ada")
    assert ada
    assert ada.role is Role.ADMIN
    assert [user.role for user in context.users.all() if user.name.startswith("ada+")] == [Role.VIEWER]


async def test_the_console_refuses_to_reset_the_password_of_a_disabled_openid_user_who_stays_disabled(
    browser: Open, context: ConsoleContext, provider: Provider
) -> None:
    await sign_in(browser(), provider)
    user = context.users.named("ann-lee")
    assert user
    context.users.set_rights(user.id, user.role, user.limits, enabled=False)
    admin = browser()
    await admin.sign_in("ada")
    await admin.load("/users")
    refused = await admin.submit(f"/users/{user.id}/reset")
    assert (refused.status_code, "change the password there" in refused.text) == (422, True)
    response = await sign_in(browser(), provider)
    assert (response.status_code, "switched off" in response.text) == (403, True)
    assert context.users.get(user.id).password == user.password


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"groups": ["others"]}, "none of your groups"),
        ({"groups": "guards2"}, "none of your groups"),
        ({"groups": None}, "none of your groups"),
        ({"groups": 7}, "none of your groups"),
        ({"aud": "another client"}, "not valid"),
        ({"iss": "https://other.example"}, "not valid"),
        ({"exp": 1}, "not valid"),
        ({"nonce": "another sign-in"}, "not valid"),
        ({"sub": ""}, "not valid"),
    ],
)
async def test_id_tokens_for_another_purpose_or_of_a_person_without_rights_are_refused(
    browser: Open, provider: Provider, claims: dict[str, Any], reason: str
) -> None:
    provider.claims |= claims
    one = browser()
    response = await sign_in(one, provider)
    assert (response.status_code, reason in response.text) == (403, True)
    assert (await one.get("/events")).status_code == 303


async def test_an_id_token_is_accepted_after_its_provider_rotates_keys_and_refused_with_a_forged_signature(
    browser: Open, provider: Provider
) -> None:
    assert (await sign_in(browser(), provider)).status_code == 303
    provider.rotate()
    assert (await sign_in(browser(), provider)).status_code == 303
    provider.signing = ECKey.generate_key("P-256")
    assert (await sign_in(browser(), provider)).status_code == 403
    provider.signing, provider.header = OctKey.import_key(SECRET * 2), {"alg": "HS256"}
    assert (await sign_in(browser(), provider)).status_code == 403


async def test_an_openid_sign_in_can_be_finished_only_once_in_time_and_by_the_browser_that_began_it(
    browser: Open, provider: Provider, clock: ManualClock
) -> None:
    one, other = browser(), browser()
    begun = await one.get("/sign-in/oidc")
    query = provider.authorize(begun.headers["location"])
    assert (await other.get("/sign-in/oidc/done", params=query)).status_code == 403
    assert (await one.get("/sign-in/oidc/done", params=query)).status_code == 403  # the state is used up
    assert (await sign_in(one, provider, state="another")).status_code == 403
    begun = await one.get("/sign-in/oidc")
    clock.advance(601.0)
    late = await one.get("/sign-in/oidc/done", params=provider.authorize(begun.headers["location"]))
    assert (late.status_code, "took too long" in late.text) == (403, True)
    assert (await one.get("/sign-in/oidc/done?error=access_denied")).status_code == 403


async def test_a_flood_of_sign_ins_from_one_address_does_not_drop_those_of_another(clock: ManualClock) -> None:
    provider = Provider(clock)
    client = OidcClient(OidcOptions(ISSUER, CLIENT, SECRET, ADDRESS, RIGHTS), clock, provider)
    address, kept = await client.begin("/events", "192.0.2.1")
    first = provider.authorize((await client.begin("/", "192.0.2.2"))[0])
    for _ in range(1000):
        await client.begin("/", "192.0.2.2")
    query = provider.authorize(address)
    person, target = await client.finish(query["state"], kept, query["code"])
    assert (person.name, target) == ("ann-lee", "/events")
    with pytest.raises(Forbidden, match="begin again"):
        await client.finish(first["state"], first["state"], first["code"])


async def test_an_openid_provider_without_a_token_endpoint_is_reported(
    browser: Open, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = provider.handle_async_request

    async def incomplete(request: httpx.Request) -> httpx.Response:
        found = (await answer(request)).json()
        found.pop("token_endpoint", None)
        return httpx.Response(200, json=found)

    monkeypatch.setattr(provider, "handle_async_request", incomplete)
    response = await browser().get("/sign-in/oidc")
    assert (response.status_code, "token_endpoint" in response.text) == (503, True)


async def test_passwords_work_while_the_openid_provider_cannot_be_reached(
    browser: Open, context: ConsoleContext, provider: Provider
) -> None:
    provider.is_down = True
    one = browser()
    response = await one.get("/sign-in/oidc")
    assert (response.status_code, "cannot be reached" in response.text) == (503, True)
    assert (await one.sign_in("ada")).status_code == 303
    context.oidc = None
    assert (await browser().get("/sign-in/oidc")).status_code == 404


async def test_many_sign_ins_during_an_outage_of_the_openid_provider_ask_it_once_in_five_seconds(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, asked = Provider(clock), 0
    answer = provider.handle_async_request

    async def counted(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return await answer(request)

    monkeypatch.setattr(provider, "handle_async_request", counted)
    client = OidcClient(OidcOptions(ISSUER, CLIENT, SECRET, ADDRESS, RIGHTS), clock, provider)
    provider.is_down = True
    found = await asyncio.gather(*(client.begin("/", "192.0.2.1") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(one, Unavailable) and "cannot be reached" in str(one) for one in found)
    assert asked == 1
    provider.is_down = False
    clock.advance(5.1)
    assert (await client.begin("/", "192.0.2.1"))[0].startswith(ISSUER)


def test_a_person_has_the_rights_of_the_groups_with_the_highest_role() -> None:
    assert rights_of(["staff", "guards"], RIGHTS) == (Role.OPERATOR, Limits(sites=frozenset({"north", "south"})))
    assert rights_of(["it", "guards"], RIGHTS) == (Role.ADMIN, Limits(everywhere=True))
    assert rights_of([], RIGHTS) is None


@pytest.mark.parametrize("text", ["staff", "staff=boss", "=viewer", "staff=viewer@", "staff=viewer@,"])
def test_an_invalid_option_for_the_rights_of_a_group_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="GROUP=ROLE"):
        parse_rights(text)


def test_the_address_of_the_openid_provider_must_be_https_unless_it_is_loopback() -> None:
    assert require_address("--address", "http://127.0.0.1:9/") == "http://127.0.0.1:9"
    for address in ("http://login.example", "login.example", "https://a?b=c"):
        with pytest.raises(ConfigError, match="https://"):
            require_address("--oidc-issuer", address)

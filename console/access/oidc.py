"""Sign-in at an OpenID Connect provider: authorization code flow with PKCE (OpenID Connect Core 1.0, RFC 7636)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from console.access.roles import Limits, Role
from console.exceptions import Forbidden, Unavailable
from ingest.exceptions import ConfigError
from ingest.runtime.clock import Clock

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
"""Signature algorithms that the console accepts for ID tokens. Symmetric algorithms and `none` are refused."""
PENDING_S = 600.0
"""Time in seconds that a person has to sign in at the OpenID Connect provider."""
_MAX_PENDING = 1000
MAX_PENDING_OF_ADDRESS = 50
"""Maximum number of unfinished sign-ins of one address. If there are more, the oldest of this address is dropped, so
that nobody can drop the sign-ins of other addresses."""
_METADATA_S, _FAILED_S = 3600.0, 5.0
_LEEWAY_S = 60
_TIMEOUT_S = 10.0
_UNUSABLE = re.compile(r"[^a-z0-9._@+-]")
"""Characters that the name of a console user cannot have."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class GroupRights:
    """The role and the limits in the console of the members of a group at the OpenID Connect provider."""

    group: str
    role: Role
    limits: Limits


@dataclass(frozen=True, slots=True)
class OidcOptions:
    """Settings of the OpenID Connect provider. ``address`` is the address of the console as browsers use it."""

    issuer: str
    client_id: str
    client_secret: str
    address: str
    rights: tuple[GroupRights, ...]
    groups_claim: str = "groups"


@dataclass(frozen=True, slots=True)
class ProvenPerson:
    """A person whom the OpenID Connect provider has authenticated. ``subject`` identifies the person for ever, while
    ``name`` may change."""

    subject: str
    name: str
    role: Role
    limits: Limits


@dataclass(frozen=True, slots=True)
class _Pending:
    nonce: str
    verifier: str
    target: str
    source: str
    until_s: float


@dataclass
class _Provider:
    metadata: dict[str, Any] = field(default_factory=dict)
    keys: KeySet | None = None
    until_s: float = 0.0


def parse_rights(text: str) -> GroupRights:
    """Return the rights of a group from a text ``GROUP=ROLE`` or ``GROUP=ROLE@SITE,SITE``. Raise ConfigError."""
    group, _, rest = text.rpartition("=")
    role, _, sites = rest.partition("@")
    names = frozenset(site.strip() for site in sites.split(",") if site.strip())
    if not group or role not in list(Role) or ("@" in rest and not names):
        raise ConfigError(
            "console", "--oidc-role", text, "GROUP=ROLE or GROUP=ROLE@SITE,SITE, as in ops=operator@north"
        )
    return GroupRights(group, Role(role), Limits(everywhere=not names, sites=names))


def require_address(option: str, address: str) -> str:
    """Return ``address`` without a slash at its end. Raise ConfigError unless the address uses HTTPS or is a loopback
    address."""
    parts = urlsplit(address)
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not secure or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError("console", option, address, "an address that begins with https://")
    return address.rstrip("/")


def rights_of(groups: Iterable[str], rights: Iterable[GroupRights]) -> tuple[Role, Limits] | None:
    """Return the highest role that ``groups`` give a person, and the sites of all groups that give this role.

    Return None if none of the groups has rights.
    """
    names = set(groups)
    found = [one for one in rights if one.group in names]
    if not found:
        return None
    role = max((one.role for one in found), key=lambda each: each.rank)
    own = [one.limits for one in found if one.role is role]
    sites = frozenset(site for limits in own for site in limits.sites)
    return role, Limits(everywhere=any(one.everywhere for one in own), sites=sites)


class OidcClient:
    """Signs people in at one OpenID Connect provider. ``transport`` replaces the network in tests."""

    def __init__(self, options: OidcOptions, clock: Clock, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.options, self._clock, self._transport = options, clock, transport
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._provider = _Provider()
        self._reading = asyncio.Lock()
        self._failure, self._failed_until_s = "", 0.0

    @property
    def redirect_uri(self) -> str:
        """The console's address to which the OpenID Connect provider sends the browser after the sign-in."""
        return f"{self.options.address}/sign-in/oidc/done"

    async def begin(self, target: str, source: str) -> tuple[str, str]:
        """Return the provider's address to which the browser is sent for a sign-in, and the ``state`` that the
        browser must keep. After the sign-in, the browser goes to ``target``. ``source`` is the address from which the
        request comes. Raise Unavailable."""
        metadata = (await self._known()).metadata
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        own = [one for one, pending in self._pending.items() if pending.source == source]
        if len(own) >= MAX_PENDING_OF_ADDRESS:
            del self._pending[own[0]]
        self._pending[state] = _Pending(nonce, verifier, target, source, self._clock.monotonic() + PENDING_S)
        while len(self._pending) > _MAX_PENDING:
            self._pending.popitem(last=False)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self.options.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid profile email",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address: str = metadata["authorization_endpoint"]
        return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}", state

    async def finish(self, state: str, kept: str, code: str) -> tuple[ProvenPerson, str]:
        """Return the person who has signed in at the provider, and the page to show. ``kept`` is the ``state`` that
        the browser has kept since ``begin``.

        Raise Forbidden for a sign-in that this browser did not begin, for an invalid ID token, and for a person
        without rights. Raise Unavailable.
        """
        pending = self._pending.pop(state, None)
        same = secrets.compare_digest(state.encode(errors="replace"), kept.encode(errors="replace"))
        if pending is None or not same or pending.until_s < self._clock.monotonic():
            raise Forbidden("this sign-in was not begun here, or took too long: begin again")
        token = await self._token(code, pending.verifier)
        return self._person(await self._claims(token, pending.nonce)), pending.target

    async def _token(self, code: str, verifier: str) -> str:
        metadata = (await self._known()).metadata
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": verifier,
        }
        auth = httpx.BasicAuth(self.options.client_id, self.options.client_secret)
        found = await self._request("POST", metadata["token_endpoint"], data=form, auth=auth)
        token = found.get("id_token")
        if not isinstance(token, str):
            raise Forbidden("the provider gave no ID token: expected the scope openid for this client")
        return token

    async def _claims(self, token: str, nonce: str) -> dict[str, Any]:
        """Check the signature and the claims of an ID token, and return the claims."""
        keys = (await self._known()).keys
        for is_last in (False, True):
            try:
                claims = jwt.decode(token, keys or KeySet([]), algorithms=list(ALGORITHMS)).claims
                break
            except (InvalidKeyIdError, ValueError) as error:
                if is_last:
                    raise Forbidden(f"the ID token is not valid: {error}") from None
                keys = (await self._known(again=True)).keys  # the provider has changed its keys
            except JoseError as error:
                raise Forbidden(f"the ID token is not valid: {error}") from None
        registry = jwt.JWTClaimsRegistry(
            now=self._clock.now_ns() // 1_000_000_000,
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": self._provider.metadata["issuer"]},
            aud={"essential": True, "value": self.options.client_id},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            registry.validate(claims)
        except JoseError as error:
            raise Forbidden(f"the ID token is not valid: {error}") from None
        return dict(claims)

    def _person(self, claims: Mapping[str, Any]) -> ProvenPerson:
        groups = claims.get(self.options.groups_claim, [])
        listed = groups if isinstance(groups, list) else [groups]
        found = rights_of((one for one in listed if isinstance(one, str)), self.options.rights)
        if found is None:
            raise Forbidden("none of your groups at the provider has rights here: ask an admin for a group")
        subject = hashlib.sha256(f"{claims['iss']} {claims['sub']}".encode()).hexdigest()
        name = str(claims.get("preferred_username") or claims.get("email") or "")
        usable = _UNUSABLE.sub("-", name.lower()).lstrip("._@+-")[:64]
        return ProvenPerson(subject, usable or subject[:16], *found)

    async def _known(self, *, again: bool = False) -> _Provider:
        """Return the provider's metadata and keys, which are read at most once an hour unless ``again`` is true.

        After a failure, they are not read for ``_FAILED_S`` seconds, because anybody can begin a sign-in. Raise
        Unavailable.
        """
        async with self._reading:
            if again or self._provider.until_s <= self._clock.monotonic():
                if self._failed_until_s > self._clock.monotonic():
                    raise Unavailable(self._failure)
                try:
                    self._provider = await self._read()
                except Unavailable as error:
                    self._failure, self._failed_until_s = str(error), self._clock.monotonic() + _FAILED_S
                    raise
            return self._provider

    async def _read(self) -> _Provider:
        metadata = await self._request("GET", f"{self.options.issuer}/.well-known/openid-configuration")
        if str(metadata.get("issuer", "")).rstrip("/") != self.options.issuer:
            named = str(metadata.get("issuer"))[:200]
            raise Unavailable(f"the provider calls itself {named!r}: expected {self.options.issuer}")
        for name in ("authorization_endpoint", "token_endpoint"):
            if not isinstance(metadata.get(name), str):
                raise Unavailable(f"the provider's metadata lack {name}: expected an address")
        try:
            keys = KeySet.import_key_set(await self._request("GET", str(metadata["jwks_uri"])))  # type: ignore[arg-type]
        except (JoseError, KeyError, ValueError, TypeError) as error:
            raise Unavailable(f"the keys of the provider cannot be read: {error}") from None
        return _Provider(metadata, keys, self._clock.monotonic() + _METADATA_S)

    async def _request(self, method: str, address: str, **options: Any) -> dict[str, Any]:
        """Send a request to the provider, and return the JSON object of the response. Raise Unavailable."""
        try:
            async with httpx.AsyncClient(transport=self._transport, timeout=_TIMEOUT_S) as client:
                response = await client.request(method, address, **options)
                response.raise_for_status()
                found = response.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise Unavailable(f"the sign-in provider cannot be reached: {str(error)[:200]}") from None
        if not isinstance(found, dict):
            raise Unavailable("the sign-in provider gave no JSON object")
        return found

"""Objects that all pages of one console share."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastapi.requests import HTTPConnection

from console.access.attempts import SignInLimiter, network
from console.access.oidc import OidcClient, OidcOptions
from console.access.passwords import Passwords, one_time_password
from console.access.roles import Identity, Limits, Role
from console.editor.history import ChangeHistory
from console.editor.trials import RuleTrials
from console.evidence import EvidenceFiles
from console.exceptions import NotFound
from console.ledger.reading import LedgerReading
from console.live.feed import Feed, MakeLog
from console.state.audit import AuditTrail
from console.state.database import Database
from console.state.sessions import Sessions
from console.state.tokens import Tokens
from console.state.users import FIRST_ADMIN, Users
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import Clock, SystemClock
from ingest.site.topic.signature import ConfigSigner
from stream.evidence.store import EvidenceStore

VIEW_S = 600.0
"""Time in seconds in which the audit trail gets only one entry when a user looks at the same camera or picture
several times. A page with fifty pictures that is loaded every minute would otherwise fill the audit trail."""
_MAX_ENTERED = 10_000


@dataclass(frozen=True, slots=True)
class ConsoleOptions:
    """Options of a console.

    With ``https``, browsers reach the console over HTTPS, perhaps through a proxy. ``kafka_env`` has the environment
    variables from which child processes read the settings of Kafka. ``signer`` signs changes of the configuration.
    ``oidc`` has the settings of the OpenID Connect provider at which people may sign in.
    """

    https: bool = False
    kafka_env: Mapping[str, str] = field(default_factory=dict)
    signer: ConfigSigner | None = None
    oidc: OidcOptions | None = None


class ConsoleContext:
    """The state of a console, with its clock and its options."""

    def __init__(
        self,
        folder: Path,
        options: ConsoleOptions | None = None,
        clock: Clock | None = None,
        passwords: Passwords | None = None,
        make_log: MakeLog | None = None,
        evidence: EvidenceStore | None = None,
    ) -> None:
        """Open the state in a folder. Without ``make_log``, live data stays empty. Raise StateUnusable."""
        self.options = options or ConsoleOptions()
        self.clock = clock or SystemClock()
        self.passwords = passwords or Passwords()
        self.database = Database(folder)
        self.users = Users(self.database, self.clock)
        self.sessions = Sessions(self.database, self.clock)
        self.tokens = Tokens(self.database, self.clock)
        self.trail = AuditTrail(self.database, self.clock)
        self.limiter = SignInLimiter(self.clock)
        self.history = ChangeHistory(self.database, self.clock)
        self.trials = RuleTrials(self.options.kafka_env)
        self.ledger = LedgerReading(self.options.kafka_env, self.clock)
        self.feed = Feed(make_log or (lambda _: MemoryLog()), self.clock)
        self.oidc = OidcClient(self.options.oidc, self.clock) if self.options.oidc else None
        self.evidence = EvidenceFiles(evidence, self.clock)
        self.exporting = asyncio.Lock()  # for one archive at a time: each takes gigabytes of disk
        self._entered: OrderedDict[tuple[str, ...], int] = OrderedDict()

    def add_first_admin(self) -> str:
        """Add the first admin and return the one-time password. Return an empty text if there are users already."""
        if self.users.all():
            return ""
        password = one_time_password()
        hashed = self.passwords.hash_now(password)
        self.users.add(FIRST_ADMIN, hashed, Role.ADMIN, Limits(everywhere=True), must_change=True)
        self.trail.add("first_admin_added", "", "", "", FIRST_ADMIN)
        return password

    def reset_password(self, name: str) -> str:
        """Give a user a new one-time password and return it. End the user's sessions. Raise NotFound."""
        user = self.users.named(name)
        if user is None:
            raise NotFound(f"user {name!r} does not exist: expected one of {[u.name for u in self.users.all()]}")
        password = one_time_password()
        self.users.set_password(user.id, self.passwords.hash_now(password), must_change=True)
        self.trail.add("password_reset", "", "command line", "", user.name)
        return password

    def audit(
        self, connection: HTTPConnection, identity: Identity, action: str, subject: str = "", detail: str = ""
    ) -> None:
        """Append an entry about a user's action to the audit trail."""
        self.trail.add(action, identity.name, identity.via, address_of(connection), subject, detail)

    def audit_view(self, connection: HTTPConnection, identity: Identity, action: str, subject: str) -> None:
        """Append an entry about data that a user looked at, at most once in ``VIEW_S`` for the same data."""
        if self._is_due(identity.name, action, subject):
            self.audit(connection, identity, action, subject)

    def audit_limited(self, connection: HTTPConnection, name: str) -> None:
        """Append an entry about an attempt to sign in that was refused because of too many failures, at most once in
        ``VIEW_S`` for the same address. Because of this interval, a flood of attempts to sign in cannot fill the
        disk."""
        address = address_of(connection)
        if self.audit_due("sign_in_limited", address):
            self.trail.add("sign_in_limited", name, "", address)

    def audit_due(self, action: str, address: str) -> bool:
        """Return whether the audit trail gets an entry about an anonymous action from an address: at most one in
        ``VIEW_S`` seconds."""
        return self._is_due("", action, network(address))

    def close(self) -> None:
        """Close the state."""
        self.database.close()

    def _is_due(self, *key: str) -> bool:
        """Return whether the last entry of a key is at least ``VIEW_S`` old, and if so, note a new entry."""
        now_ns = self.clock.now_ns()
        if now_ns - self._entered.get(key, -round(VIEW_S * 1e9)) < VIEW_S * 1e9:
            return False
        self._entered[key] = now_ns
        self._entered.move_to_end(key)
        while len(self._entered) > _MAX_ENTERED:
            self._entered.popitem(last=False)
        return True


def context_of(connection: HTTPConnection) -> ConsoleContext:
    """Return the context of the console that serves a request."""
    found: ConsoleContext = connection.app.state.console
    return found


def address_of(connection: HTTPConnection) -> str:
    """Return the address from which a request comes."""
    return connection.client.host if connection.client else ""

"""Errors of the console. Every error derives from ConsoleError.

ConsoleError
├── NotSignedIn             the request has no valid session or token
├── PasswordExpired         a one-time password must be replaced before any other request
├── Forbidden               the role or the limits of the user do not allow the request
├── ForgedRequest           the request comes from another site, or lacks the token of its form
├── NotFound                the page has no such entry
├── BadInput                a field of a form has an invalid value
├── Conflict                somebody else has changed the entry
├── TooManyAttempts         the sign-in is limited after failures
├── TooManyTrials           as many trials run as are allowed
├── Unavailable             Kafka cannot be reached
└── StateUnusable           the file of users and sessions cannot be used
"""

from __future__ import annotations


class ConsoleError(Exception):
    """Base of every error that the console raises. ``status`` is the status of the HTTP response."""

    status = 500


class NotSignedIn(ConsoleError):
    """The request has no valid session or token."""

    status = 401

    def __init__(self) -> None:
        super().__init__("no valid session or token: expected a sign-in, or a header `Authorization: Bearer TOKEN`")


class PasswordExpired(ConsoleError):
    """The user signed in with a one-time password, which must be replaced before any other request."""

    status = 403

    def __init__(self) -> None:
        super().__init__("the one-time password is used up: choose a new password on the account page")


class Forbidden(ConsoleError):
    """The role or the limits of the user do not allow the request."""

    status = 403


class ForgedRequest(ConsoleError):
    """The request comes from another site, or lacks the token of its form."""

    status = 403

    def __init__(self, reason: str) -> None:
        super().__init__(f"request refused: {reason}. Load the page again and repeat the action")


class NotFound(ConsoleError):
    """The page has no such entry, or the user may not see the entry."""

    status = 404


class BadInput(ConsoleError):
    """A field of a form or a parameter of a request has an invalid value."""

    status = 422


class Conflict(ConsoleError):
    """Somebody else has changed the entry since the page was loaded."""

    status = 409


class TooManyAttempts(ConsoleError):
    """Signing in is blocked for a while after failed attempts. ``wait_s`` is the time until the next attempt, in
    seconds."""

    status = 429

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many failed attempts to sign in: try again in {max(1, round(wait_s))} s")
        self.wait_s = wait_s


class TooManyTrials(ConsoleError):
    """The maximum number of trials of drafts is already running."""

    status = 429

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} trials run already: try again when one of them has ended")


class Unavailable(ConsoleError):
    """Kafka cannot be reached."""

    status = 503


class StateUnusable(ConsoleError):
    """The file of users and sessions cannot be used."""

"""Fields of a submitted form, and the protection of forms against requests from other sites."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qs, urlsplit

from fastapi import Request
from fastapi.requests import HTTPConnection

from console.exceptions import BadInput, ForgedRequest

CSRF_FIELD, CSRF_HEADER = "csrf", "x-csrf-token"
MAX_FIELDS = 1000


class Form:
    """The fields of a form, as texts."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        self._fields = fields

    def text(self, name: str) -> str:
        """Return the value of a field, empty if the form lacks the field."""
        return self._fields.get(name, [""])[0]

    def texts(self, name: str) -> list[str]:
        """Return all values of a field with several values."""
        return self._fields.get(name, [])

    def ticked(self, name: str) -> bool:
        """Return whether a check box is ticked."""
        return name in self._fields

    def number(self, name: str) -> int:
        """Return a whole number, 0 for an empty field. Raise BadInput."""
        text = self.text(name).strip()
        if not text:
            return 0
        if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 15:
            raise BadInput(f"{name} = {text[:40]!r}: expected a whole number")
        return int(text)


async def read_form(request: Request) -> Form:
    """Return the fields of a request's body with the media type of plain forms. Raise BadInput."""
    form = getattr(request.state, "form", None)
    if form is None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await request.body() if kind == "application/x-www-form-urlencoded" else b""
        try:
            form = Form(parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
        except ValueError as error:
            raise BadInput(f"the form cannot be read: {error}") from None
        request.state.form = form
    return form


def require_same_origin(connection: HTTPConnection) -> None:
    """Raise ForgedRequest for a request that another site's page made a browser send."""
    site = connection.headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none"):
        raise ForgedRequest(f"the request comes from another site (Sec-Fetch-Site: {site[:20]})")
    origin = connection.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != connection.headers.get("host", ""):
        raise ForgedRequest(f"the request comes from {origin[:100]!r}")


async def require_token(request: Request, expected: str) -> None:
    """Raise ForgedRequest unless the header or the form of a request has the token of its session."""
    given = request.headers.get(CSRF_HEADER) or (await read_form(request)).text(CSRF_FIELD)
    if not expected or not secrets.compare_digest(given.encode(errors="replace"), expected.encode()):
        raise ForgedRequest("the request lacks the token of its form")

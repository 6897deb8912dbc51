"""A webhook receiver that verifies, shows and stores alerts, for trials and tests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from standardwebhooks.webhooks import WebhookVerificationError

from ingest.runtime.text import decode_text
from stream.delivery.clients.signature import WebhookVerifier


class Inbox:
    """Stores the received alerts in the file ``out``, one JSON line for each alert, and remembers the ids of all
    alerts received so far."""

    def __init__(self, out: Path | None, show: Callable[[dict[str, Any]], None]) -> None:
        self._out, self._show = out, show
        self._seen: set[str] = set()
        if out and out.exists():
            self._seen = set(_ids(out))

    def take(self, message_id: str, alert: dict[str, Any]) -> bool:
        """Store an alert. Return whether the alert's id is new."""
        first = message_id not in self._seen
        self._seen.add(message_id)
        entry = {"received_ns": time.time_ns(), "id": message_id, "first": first, "alert": alert}
        if self._out:
            with self._out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        self._show(entry)
        return first


def _ids(out: Path) -> Iterator[str]:
    """Yield the alert ids in a file.

    Skip a line that was truncated when the process was killed, because the sender repeats the alert of this line.
    """
    for line in out.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(line)["id"]
        except (ValueError, TypeError, KeyError):
            continue


def read_secret(file: Path) -> str:
    """Return the signing secret or public key on the first line of a file.

    Raise OSError if the file cannot be read, ValueError if the line is empty.
    """
    secret = decode_text(file.read_bytes()).partition("\n")[0].strip()
    if not secret:
        raise ValueError("the first line of the file is empty: expected the signing secret")
    return secret


def make_app(secret: str, inbox: Inbox) -> FastAPI:
    """Return the ASGI application that receives webhooks.

    The application answers 204 to a valid signature, and 401 to an invalid signature or an old timestamp.
    """
    app = FastAPI(title="Sightline webhook receiver", openapi_url=None)
    verifier = WebhookVerifier(secret)

    @app.post("/")
    async def receive(request: Request) -> Response:
        body = await request.body()
        try:
            verifier.require(request.headers, body)
            alert = json.loads(body)
        except (WebhookVerificationError, ValueError) as error:
            return Response(f"{error}\n", status_code=401, media_type="text/plain")
        inbox.take(request.headers["webhook-id"], alert)
        return Response(status_code=204)

    return app

"""HTTP server of a service: `/metrics` for Prometheus, `/live` and `/ready` for the supervisor of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from socket import AF_INET, AF_INET6
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

ANSWER_S = 5.0
"""Time limit for the event loop to respond to a health check, in seconds. The limit is generous: no service blocks
its event loop for as long as one second."""
STARTING = "the service is starting"


class Health:
    """Tells whether a service is live and ready.

    Threads of the HTTP server call ``dead_reason`` and ``unready_reason``. A service is live while its event loop
    responds. A service is ready while the function passed to ``ready_when`` returns an empty text; a text that is not
    empty is the reason why the service is not ready. The event loop calls the function passed to ``ready_when``.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unready: Callable[[], str] = lambda: STARTING
        self._broker_unready: Callable[[], str] = lambda: ""

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the event loop whose responses show that the service is live."""
        self._loop = loop

    def ready_when(self, unready_reason: Callable[[], str]) -> None:
        """Set the function that returns why the service is not ready, or an empty text if the service is ready."""
        self._unready = unready_reason

    def broker_ready_when(self, unready_reason: Callable[[], str]) -> None:
        """Set the function that returns why Kafka is unavailable, or an empty text if Kafka answers. A service is
        not ready while Kafka is unavailable."""
        self._broker_unready = unready_reason

    def dead_reason(self, answer_s: float = ANSWER_S) -> str:
        """Return why the service is not live, an empty text if it is live.

        Block until the event loop responds, at most ``answer_s``.
        """
        return self._ask(lambda: "", answer_s)

    def unready_reason(self, answer_s: float = ANSWER_S) -> str:
        """Return why the service is not ready, an empty text if it is ready.

        Block until the event loop responds, at most ``answer_s``.
        """
        return self._ask(lambda: self._broker_unready() or self._unready(), answer_s)

    def _ask(self, question: Callable[[], str], answer_s: float) -> str:
        answer: Future[str] = Future()

        def reply() -> None:
            try:
                answer.set_result(question())
            except Exception as error:
                answer.set_result(f"the check failed: {error!r}")

        if self._loop is None:
            return STARTING
        try:
            self._loop.call_soon_threadsafe(reply)
            return answer.result(answer_s)
        except TimeoutError:
            return f"the event loop has not responded for {answer_s:g} s"
        except RuntimeError:
            return "the service has ended"


def serve(host: str, port: int, registry: CollectorRegistry, health: Health) -> WSGIServer:
    """Return an HTTP server for the given address, which handles each request in its own thread.

    The caller must call the server's method ``serve_forever``. Raise OSError if the port is taken.
    """

    class FamilyServer(ThreadingWSGIServer):
        """HTTP server with the address family of the host: IPv6 or IPv4."""

        address_family = AF_INET6 if ":" in host else AF_INET

    return make_server(host, port, _app(registry, health), FamilyServer, handler_class=_SilentHandler)


def _app(registry: CollectorRegistry, health: Health) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    metrics = make_wsgi_app(registry)
    checks = {"/live": health.dead_reason, "/ready": health.unready_reason}

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        check = checks.get(environ["PATH_INFO"])
        if check is None:
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        reason = check()
        status = "503 Service Unavailable" if reason else "200 OK"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{reason or 'ok'}\n".encode()]

    return app


class _SilentHandler(WSGIRequestHandler):
    """Handler that does not log requests."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name of the base class)
        """Log nothing."""

"""Random requests to all operations of the HTTP API, as its OpenAPI description has them: no response is an error of
the console."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from console.app import make_app
from console.context import ConsoleContext
from ingest.kafka.memorylog import MemoryLog
from tests.console.conftest import ADDRESS
from tests.console.records import alert, configure, event, frame, receipt, result, status, write

REQUESTS = 12
"""Number of requests to each operation."""
ENDLESS = "/api/stream"
TEXTS = (
    *(
        "",
        " ",
        "gate",
        "yard",
        "event-1",
        "msg_event-1",
        "..",
        "../../etc/passwd",
        "%2e%2e",
        "\x00",
        "\ud7ff\uffff",
        "🎥" * 40,
    ),
    *("'; DROP TABLE users; --", "<script>alert(1)</script>", "1e400", "-1", "NaN", "null", "a" * 3000, "{}", "[]"),
    *(
        "2023-11-14T22:13:22",
        "9999-12-31T23:59:59.999999999Z",
        "0001-01-01",
        "1-x",
        "0,0;9,9",
        "nan,1;2,3",
        "1,1;1e9,2",
    ),
)
NUMBERS = (0, 1, -1, 24, 500, 501, 2**31, 2**63, -(2**63), 10**30, 0.5, -1e308, 1e308)
OTHERS: tuple[Any, ...] = (None, True, [], {}, [[]], {"": {}}, "x", 1.5)


class Requests:
    """Draws requests to the operations of an OpenAPI description."""

    def __init__(self, described: Mapping[str, Any], seed: int) -> None:
        self._schemas, self._random = described["components"]["schemas"], random.Random(seed)

    def value(self, schema: Mapping[str, Any], depth: int = 0) -> Any:
        """Return a value that a schema allows, or in one of four cases any value."""
        if self._random.random() < 0.25 or depth > 5:
            return self._random.choice((*OTHERS, *TEXTS, *NUMBERS))
        if "$ref" in schema:
            return self.value(self._schemas[schema["$ref"].rpartition("/")[2]], depth + 1)
        for name in ("anyOf", "oneOf", "allOf"):
            if name in schema:
                return self.value(self._random.choice(schema[name]), depth + 1)
        if "enum" in schema or "const" in schema:
            return self._random.choice(schema.get("enum") or [schema["const"]])
        kind = schema.get("type")
        if kind == "object":
            fields = schema.get("properties", {})
            kept = [name for name in fields if self._random.random() < 0.9]
            return {name: self.value(fields[name], depth + 1) for name in kept}
        if kind == "array":
            return [self.value(schema.get("items", {}), depth + 1) for _ in range(self._random.randrange(4))]
        if kind == "boolean":
            return self._random.random() < 0.5
        return self._random.choice(NUMBERS if kind in ("integer", "number") else TEXTS)

    def request(self, method: str, path: str, operation: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a request to an operation."""
        query, headers = {}, {}
        for one in operation.get("parameters", ()):
            value = self.value(one["schema"])
            text = value if isinstance(value, str) else json.dumps(value)
            if one["in"] == "path":
                path = path.replace(f"{{{one['name']}}}", quote(text, safe="") or "x")
            elif one["in"] == "header":
                headers[one["name"]] = text.encode("ascii", "ignore").decode().replace("\x00", "")
            else:
                query[one["name"]] = text
        found: dict[str, Any] = {"method": method.upper(), "url": path, "params": query, "headers": headers}
        body = operation.get("requestBody")
        if body and "application/json" in body["content"]:
            schema = body["content"]["application/json"]["schema"]
            found["content"] = json.dumps(self.value(schema)).encode()
            headers["content-type"] = "application/json"
        return found


@pytest.mark.parametrize("seed", [1, 2])
async def test_random_requests_to_the_api_cause_no_internal_error(
    context: ConsoleContext, log: MemoryLog, seed: int
) -> None:
    await configure(log)
    raised = alert(event(1))
    records = (event(1), event(2, "yard"), event(3, None), raised, receipt(raised, "dead"), frame("gate", 0))
    await write(log, *records, result("gate", 0), status("gate"))
    await context.feed.catch_up(log)
    context.ledger.at_ns = context.clock.now_ns()  # no process computes the ledger
    context.trials._env["SIGHTLINE_KAFKA"] = "127.0.0.1:9"
    ada = context.users.named("ada")
    assert ada
    identity = context.sessions.identity(context.sessions.open(ada.id, "", ""))
    assert identity
    token = context.tokens.add(identity, "fuzz", ada.role, 1)
    app = make_app(context)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.9", 1))
    failed, answered = [], set()
    async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        described = (await client.get("/api/openapi.json")).json()
        requests = Requests(described, seed)
        for path, operations in described["paths"].items():
            for method, operation in operations.items():
                for _ in range(REQUESTS if path != ENDLESS else 0):
                    order = requests.request(method, path, operation)
                    response = await client.request(**order)
                    answered.add(response.status_code)
                    if response.status_code >= 500 and response.status_code != 503:
                        failed.append((response.status_code, order))
    await context.trials.close()
    assert failed == []
    assert {200, 404, 422} <= answered

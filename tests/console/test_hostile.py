"""Hostile paths and parameters of all pages and of the API, and the list of attacks in the docs."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from console.app import make_app
from console.context import ConsoleContext
from ingest.kafka.memorylog import MemoryLog
from tests.console.conftest import Browser
from tests.console.records import alert, configure, event, frame, receipt, status, write
from tests.paths import ROOT

VALUES = (
    *(
        "",
        "0",
        "-1",
        "1e9",
        "9" * 40,
        "\0",
        "😀",
        "%",
        "../../etc/passwd",
        "<script>",
        "' OR 1=1 --",
        "NaN",
        "٣",
        " ",
    ),
    *("null", "[]", "{}", "2026-01-01T00:00:00Z", "0001-01-01", "9999-12-31T23:59:59-14:00", "a" * 300, "1-", "1-x"),
    *("gate", "event-1", "msg_event-1", "1"),
)
TRIES = 3


def get_routes(routes: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield path and query parameters of each route for GET, except the endless stream of news."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from get_routes(route.original_router.routes)
        elif "GET" in (getattr(route, "methods", None) or ()) and not route.path.endswith("/stream"):
            yield route.path, list(inspect.signature(route.endpoint).parameters)


async def test_no_path_or_parameter_makes_a_page_fail(
    browser: Callable[..., Browser], context: ConsoleContext, log: MemoryLog
) -> None:
    await configure(log)
    raised = alert(event(1))
    await write(log, event(1), event(2, None), raised, receipt(raised, "dead"), status("gate"), frame("gate", 0))
    await context.feed.catch_up(log)
    one, chance = browser(), random.Random(7)
    await one.sign_in("ada")
    routes = list(get_routes(make_app(context).app.routes))
    assert {"/events/{number}", "/api/events", "/wall/{name}"} <= {path for path, _ in routes}
    for path, parameters in routes:
        for _ in range(TRIES):
            parts = [quote(chance.choice(VALUES), safe="") if "{" in part else part for part in path.split("/")]
            query = {name: chance.choice(VALUES) for name in parameters if chance.random() < 0.5}
            response = await one.get("/".join(parts), params=query)  # an exception of the page fails this test
            assert response.status_code < 500, (path, parts, query)
    assert (await one.get("/account")).status_code == 200


def test_each_attack_in_the_docs_names_an_existing_test() -> None:
    rows = [row for row in (ROOT / "docs/reference/console-security.md").read_text().splitlines() if "`test_" in row]
    sources = "".join(file.read_text() for file in (ROOT / "tests/console").rglob("*.py"))
    missing = [row for row in rows if not re.search(rf"def {row.split('`')[-2]}\(", sources)]
    assert len(rows) > 20
    assert missing == []

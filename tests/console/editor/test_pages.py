"""Tests of the pages and the HTTP API of the editor: rights, errors, saving, undoing and trials."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from console.context import ConsoleContext
from console.editor.request import DraftReport
from console.editor.trials import MAX_RUNNING, RuleTrial
from ingest.kafka.memorylog import MemoryLog
from ingest.site import CameraConfig, PipelineConfig, Site
from ingest.site.topic.changes import site_changes
from ingest.site.topic.store import publish, read
from stream.analyse.rules.line import LineRule
from stream.rules import validated
from tests.console.conftest import Browser

GATE = CameraConfig(name="gate", site="north", source="rtsp://10.0.0.1/a")
DOCK = CameraConfig(name="dock", site="south", source="rtsp://10.0.0.2/a")
PIPELINE = PipelineConfig(name="p", model="m", width=64, height=64, sites=("north",))
LINE = LineRule(name="in", camera="gate", pipeline="p", start=(0.1, 0.5), end=(0.9, 0.5), sites=("north",))
MOVED = {"type": "line", "pipeline": "p", "start": [0.2, 0.5], "end": [0.9, 0.5]}
API = "/api/cameras/gate/configuration"


@pytest.fixture
async def operator(
    context: ConsoleContext, log: MemoryLog, browser: Callable[..., Browser]
) -> AsyncIterator[Browser]:
    """Return the browser of otto, who is an operator of the site north."""
    await publish(log, (GATE, DOCK, PIPELINE, LINE))
    await context.feed.catch_up(log)
    one = browser()
    await one.sign_in("otto")
    one.headers["X-CSRF-Token"] = one.csrf
    yield one
    await context.trials.close()


async def order(browser: Browser, rules: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Return the order to save rules, from the entries as the browser has loaded them."""
    found = (await browser.get(API)).json()
    versions = {f"rule/{rule['name']}": rule["version"] for rule in found["rules"]}
    return {"draft": {"rules": rules, "versions": {**versions, "camera/gate": found["version"]}, **values}}


async def saved(context: ConsoleContext, log: MemoryLog, response: httpx.Response) -> list[str]:
    """Return the saved keys, after the console has read the config topic again."""
    assert response.status_code == 200, response.text
    await context.feed.catch_up(log)
    return list(response.json()["keys"])


async def test_the_page_lists_the_visible_cameras_and_loads_the_script_of_the_editor(operator: Browser) -> None:
    assert 'href="/editor/gate"' in await operator.load("/editor")
    assert "dock" not in await operator.load("/editor")
    html = await operator.load("/editor/gate")
    assert "/static/editor.js" in html
    assert 'data-camera="gate"' in html


async def test_a_camera_that_the_user_may_not_see_is_not_found(operator: Browser) -> None:
    for path in ("/editor/dock", "/api/cameras/dock/configuration", "/api/cameras/dock/picture", "/editor/none"):
        assert (await operator.get(path)).status_code == 404
    assert (await operator.put("/api/cameras/dock/configuration", json={"draft": {}})).status_code == 404
    assert (await operator.post("/api/cameras/dock/trials", json={"draft": {}})).status_code == 404
    assert (await operator.get("/api/sites/south/file")).status_code == 404


async def test_a_viewer_cannot_open_the_editor(operator: Browser, browser: Callable[..., Browser]) -> None:
    viewer = browser()
    await viewer.sign_in("vera")
    assert (await viewer.get("/editor/gate")).status_code == 403
    assert (await viewer.get(API)).status_code == 403


async def test_a_request_without_the_token_of_the_session_saves_nothing(operator: Browser, log: MemoryLog) -> None:
    body = await order(operator, {"in": None})
    del operator.headers["X-CSRF-Token"]
    assert (await operator.put(API, json=body)).status_code == 403
    assert "rule/in" in (await read(log)).entries


async def test_a_moved_line_is_saved_listed_in_the_history_and_can_be_undone(
    operator: Browser, context: ConsoleContext, log: MemoryLog
) -> None:
    body = {**await order(operator, {"in": MOVED}), "comment": "further left <b>"}
    assert await saved(context, log, await operator.put(API, json=body)) == ["rule/in"]
    rule = validated((await read(log)).entries["rule/in"])
    assert isinstance(rule, LineRule)
    assert (rule.start, rule.sites) == ((0.2, 0.5), ("north",))
    html = await operator.load("/editor/gate")
    assert "changed start" in html
    assert "further left &lt;b&gt;" in html
    (change,) = (await operator.get("/api/cameras/gate/changes")).json()
    assert (change["user"], change["key"]) == ("otto", "rule/in")
    assert await saved(context, log, await operator.post(f"/api/changes/{change['id']}/undo")) == ["rule/in"]
    undone = validated((await read(log)).entries["rule/in"])
    assert isinstance(undone, LineRule)
    assert undone.start == (0.1, 0.5)
    assert [entry.action for entry in context.trail.page()].count("configuration_changed") == 2


async def test_the_editor_refuses_to_save_a_wrong_value_or_a_rule_that_somebody_else_changed_meanwhile(
    operator: Browser, context: ConsoleContext, log: MemoryLog
) -> None:
    wrong = await operator.put(API, json=await order(operator, {"in": {**MOVED, "start": [7, 0]}}))
    assert (wrong.status_code, "rule/in.start.0 = 7" in wrong.json()["detail"]) == (422, True)
    body = await order(operator, {"in": MOVED})
    await saved(context, log, await operator.put(API, json=body))
    outdated = await operator.put(API, json={**body, "draft": {**body["draft"], "rules": {"in": None}}})
    assert (outdated.status_code, "changed by somebody else" in outdated.json()["detail"]) == (409, True)


async def test_applying_the_exported_site_file_changes_nothing(
    operator: Browser, context: ConsoleContext, log: MemoryLog
) -> None:
    mask = [[0.0, 0.0], [0.5, 0.0], [0.5, 0.1]]
    body = await order(operator, {"in": MOVED}, redact_masks=[mask])
    await saved(context, log, await operator.put(API, json=body))
    file = (await operator.get("/api/sites/north/file")).text
    site = Site.model_validate(tomllib.loads(file))
    site = site.model_copy(update={"rules": tuple(validated(rule) for rule in site.rules)})
    found = site_changes(site, (await read(log, validate=validated)).entries)
    assert (found.written, found.removed) == ((), [])


async def test_a_trial_of_rules_and_its_pictures_are_visible_only_to_the_user_who_started_it(
    operator: Browser, context: ConsoleContext, browser: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def finished(trial: RuleTrial, _request: object) -> None:
        (trial.folder / "0.jpg").write_bytes(b"\xff\xd8 picture")
        trial.report = DraftReport(results=3, failed=0, rules=[], warnings=[])

    monkeypatch.setattr(context.trials, "_run", finished)
    started = await operator.post("/api/cameras/gate/trials", json=await order(operator, {"in": MOVED}))
    assert started.status_code == 202
    path = f"/api/trials/{started.json()['id']}"
    assert (await operator.get(path)).json()["report"]["results"] == 3
    assert (await operator.get(f"{path}/pictures/0")).content == b"\xff\xd8 picture"
    assert (await operator.get(f"{path}/pictures/1")).status_code == 404
    assert (await operator.get(f"{path}/pictures/..%2F0")).status_code in (404, 422)
    other = browser()
    await other.sign_in("ada")
    assert (await other.get(path)).status_code == 404
    assert (await other.get(f"{path}/pictures/0")).status_code == 404


async def test_the_number_of_trials_of_rules_that_run_at_once_is_limited(
    operator: Browser, context: ConsoleContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(_trial: RuleTrial, _request: object) -> None:
        return None

    monkeypatch.setattr(context.trials, "_run", endless)
    body = await order(operator, {"in": MOVED})
    statuses = [(await operator.post("/api/cameras/gate/trials", json=body)).status_code for _ in range(3)]
    assert statuses == [202, 202, 429]


async def test_a_trial_of_rules_without_kafka_ends_with_the_reason(
    operator: Browser, context: ConsoleContext, tmp_path: Path
) -> None:
    context.trials._env["SIGHTLINE_KAFKA"] = "127.0.0.1:9"
    started = await operator.post("/api/cameras/gate/trials", json=await order(operator, {"in": MOVED}))
    await context.trials.settled()
    status = (await operator.get(f"/api/trials/{started.json()['id']}")).json()
    assert (status["state"], "no Kafka at 127.0.0.1:9" in status["problem"]) == ("failed", True)


async def test_a_trial_of_rules_whose_process_cannot_start_has_failed(
    operator: Browser, context: ConsoleContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    for _ in range(MAX_RUNNING + 1):
        begun = await operator.post("/api/cameras/gate/trials", json={"draft": {}})
        assert begun.status_code == 202
        await context.trials.settled()
        found = (await operator.get(f"/api/trials/{begun.json()['id']}")).json()
        assert (found["state"], "could not be started" in found["problem"]) == ("failed", True)


LINE_JSON = '"type": "line", "start": [0, 0], "end": [1, 1]'
GROUND_JSON = '"corners": [[0.2, 0.9], [0.8, 0.9], [0.6, 0.4], [0.4, 0.4]], "length_m": 1'


@pytest.mark.parametrize(
    "draft",
    [
        f'{{"rules": {{"new": {{{LINE_JSON}, "pipeline": "p", "\\ud800": 1}}}}}}',
        f'{{"rules": {{"new": {{{LINE_JSON}, "pipeline": "p", "cooldown_s": Infinity}}}}}}',
        f'{{"rules": {{"new": {{{LINE_JSON}, "pipeline": "p", "labels": ["\\ud800"]}}}}}}',
        f'{{"ground": {{{GROUND_JSON}, "width_m": Infinity}}}}',
        '{"redact_masks": [[[NaN, 0], [1, 0], [1, 1]]]}',
    ],
    ids=["key", "infinity", "text", "width", "mask"],
)
async def test_values_that_json_or_utf_8_cannot_hold_are_refused(operator: Browser, draft: str) -> None:
    body = f'{{"draft": {draft}}}'
    response = await operator.put(API, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text

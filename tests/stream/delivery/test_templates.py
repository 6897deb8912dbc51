"""Tests of messages for chat and incident services, as a receiver on loopback gets them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ingest.contract.records import Alert, Evidence
from ingest.site import ReceiverConfig
from stream.alerts.alert import make_alert
from stream.delivery.clients.service import make_deliverer
from stream.delivery.clients.templates import MAX_SUMMARY_CHARS, TEMPLATES
from tests.peers.receiver import answer, receiving
from tests.stream.alerts.test_alerts import event

PICTURE = Evidence(name="p", url="https://pictures/p.jpg", sha256="0", media_type="image/jpeg")


def alert(**data: Any) -> Alert:
    made = make_alert(event(), (PICTURE,))
    usual = {"severity": "critical", "summary": "car <@U1> & <b>crossed</b> ü", "place": "yard", "site": "north"}
    return made.model_copy(update={"data": made.data.model_copy(update=usual | data)})


async def delivered(
    tmp_path: Path, kind: str, about: Alert, path: str = "/hook/s3cret"
) -> tuple[Any, dict[str, str]]:
    """Deliver an alert to a receiver of a type, and return the received JSON and headers."""
    async with receiving(answer(b"HTTP/1.1 202 \r\n\r\n")) as peer:
        (tmp_path / "url").write_text(peer.url.removesuffix("/hook") + path)
        (tmp_path / "key").write_text("k3y\n")
        fields: dict[str, Any] = {"name": "r", "type": kind, "url_file": tmp_path / "url", "allow_private": True}
        if kind in ("pagerduty", "ntfy", "alertmanager"):
            fields["secret_file"] = tmp_path / "key"
        deliverer = make_deliverer(ReceiverConfig.model_validate(fields))
        result = await deliverer.deliver(about, time.time())
        await deliverer.close()
    assert result.status == 202
    (post,) = peer.posts
    assert post.headers["content-type"] == "application/json"
    assert post.headers["webhook-id"] == about.id
    return json.loads(post.body), post.headers


async def test_a_slack_message_escapes_mentions_and_shows_the_severity(tmp_path: Path) -> None:
    content, _ = await delivered(tmp_path, "slack", alert())
    assert content["text"] == "critical: car &lt;@U1&gt; &amp; &lt;b&gt;crossed&lt;/b&gt; ü"
    (attachment,) = content["attachments"]
    assert attachment["color"] == "#dc2626"
    facts = attachment["blocks"][1]["elements"][0]["text"]
    assert "*place:* yard" in facts
    assert "https://pictures/p.jpg" in facts


async def test_a_teams_message_is_an_adaptive_card_with_facts(tmp_path: Path) -> None:
    content, _ = await delivered(tmp_path, "teams", alert(severity="info"))
    (attachment,) = content["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    title, facts = attachment["content"]["body"]
    assert (title["color"], facts["facts"][0]) == ("Accent", {"title": "site", "value": "north"})


async def test_a_discord_message_mentions_nobody(tmp_path: Path) -> None:
    content, _ = await delivered(tmp_path, "discord", alert(summary="@everyone" + "x" * 5000))
    assert content["allowed_mentions"] == {"parse": []}
    assert len(content["embeds"][0]["title"]) == 256
    assert all(field["value"] for field in content["embeds"][0]["fields"])


async def test_an_ntfy_message_names_the_topic_of_the_address_and_carries_the_token(tmp_path: Path) -> None:
    content, headers = await delivered(tmp_path, "ntfy", alert(), "/proxied/gate")
    assert (content["topic"], content["priority"]) == ("gate", 5)
    assert content["tags"] == ["critical", "yard", "car"]
    assert headers["authorization"] == "Bearer k3y"


@pytest.mark.parametrize(("change", "action"), [("begin", "trigger"), ("update", "trigger"), ("end", "resolve")])
async def test_the_end_of_an_incident_resolves_its_alert_at_pagerduty(
    tmp_path: Path, change: str, action: str
) -> None:
    about = alert(change=change)
    content, _ = await delivered(tmp_path, "pagerduty", about)
    assert (content["routing_key"], content["event_action"]) == ("k3y", action)
    assert content["dedup_key"] == about.data.incident
    assert content["payload"]["severity"] == "critical"
    assert len(content["payload"]["summary"]) <= 1024


async def test_the_end_of_an_incident_ends_its_alert_at_alertmanager(tmp_path: Path) -> None:
    for change in ("begin", "end"):
        (content,), headers = await delivered(tmp_path, "alertmanager", alert(change=change))
        assert content["labels"]["alertname"] == alert().data.rule
        assert (content["endsAt"] == content["startsAt"]) == (change == "end")
        assert headers["authorization"] == "Bearer k3y"


@pytest.mark.parametrize("kind", TEMPLATES)
async def test_a_message_has_a_bounded_size_and_no_empty_value(tmp_path: Path, kind: str) -> None:
    bare = alert(summary="x" * 2000, place=None, site="", label="", camera=None, sensor="hall", evidence=())
    content, _ = await delivered(tmp_path, kind, bare)
    text = json.dumps(content)
    assert text.count("x" * MAX_SUMMARY_CHARS) <= 3
    assert len(text) < 8192
    assert '""' not in text.replace('"group": ""', "")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"type": "slack", "url": "https://hooks.slack.com/services/T/B/secret"}, "address of a slack webhook is a"),
        ({"type": "teams", "url_file": "u", "secret_file": "s"}, "expected no secret_file"),
        ({"type": "pagerduty"}, "expected secret_file"),
        ({"type": "webhook", "url": "https://h/"}, "expected secret_file"),
        ({"type": "ntfy"}, "either url or url_file"),
        ({"type": "pagerduty", "secret_file": "s", "url": "https://h/", "url_file": "u"}, "either url or url_file"),
    ],
)
def test_a_receiver_with_missing_or_excess_settings_for_its_type_is_refused(
    fields: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        ReceiverConfig.model_validate({"name": "r", **fields})


def test_receivers_with_exactly_the_required_settings_for_their_types_are_accepted() -> None:
    for fields in (
        {"type": "slack", "url": "https://hooks.slack.com/services/${SLACK_PATH}"},
        {"type": "pagerduty", "secret_file": "s"},
        {"type": "ntfy", "url": "https://ntfy.sh/gate"},
    ):
        ReceiverConfig.model_validate({"name": "r", **fields})

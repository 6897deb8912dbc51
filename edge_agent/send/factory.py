"""Factory of links to Kafka or to a gateway."""

from __future__ import annotations

from collections.abc import Mapping

from edge_agent.send.https import HttpsLink
from edge_agent.send.kafkalink import KafkaLink, RefreshPins
from edge_agent.send.link import Link
from ingest.kafka.settings import KafkaSettings
from ingest.site import LinkConfig


def make_link(
    config: LinkConfig,
    settings: KafkaSettings,
    agent: str,
    pins: Mapping[str, int],
    refresh_pins: RefreshPins | None = None,
) -> Link:
    """Return the link that a site configures. ``agent`` names the sender; ``pins`` map cameras to partitions."""
    return HttpsLink(config, agent) if config.kind == "https" else KafkaLink(settings, agent, pins, refresh_pins)

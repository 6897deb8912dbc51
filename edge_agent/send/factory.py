"""Factory of the link over which the agent sends records to Kafka or to a gateway."""

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
    """Return the link that a site configures.

    ``agent`` is the name of this agent; ``pins`` map a camera's name to its partition.
    """
    return HttpsLink(config, agent) if config.kind == "https" else KafkaLink(settings, agent, pins, refresh_pins)

"""Tests of TLS, mutual TLS and SASL with a real broker; all clients use the same settings."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.exceptions import LinkLost
from edge_agent.send.kafkalink import KafkaLink
from edge_agent.send.link import OutboundRecord
from ingest.contract.topics import FRAMES, RESULTS
from ingest.exceptions import ConfigError, LogUnavailable
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import Deadline
from tests.peers.certificates import Authority
from tests.peers.securedbroker import PASSWORD, USER, SecuredBroker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(480)]


@pytest.fixture(scope="module")
def broker(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    folder = tmp_path_factory.mktemp("secured")
    broker = SecuredBroker(home, folder)
    (folder / "password").write_text(f"{PASSWORD}\n")
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)


def settings_of(broker: SecuredBroker, folder: Path, how: str, prefix: str = "x.") -> KafkaSettings:
    """Return the settings of a client from environment variables, as an operator writes them."""
    listener = {"tls": "TLS", "mutual": "MUTUAL"}.get(how, "SASL")
    env = {
        "SIGHTLINE_KAFKA": broker.address(listener),
        "SIGHTLINE_KAFKA_PREFIX": prefix,
        "SIGHTLINE_KAFKA_SECURITY": "SASL_SSL" if listener == "SASL" else "SSL",
        "SIGHTLINE_KAFKA_CA_FILE": str(broker.authority.file),
    }
    if how == "mutual":
        env |= {
            "SIGHTLINE_KAFKA_CERT_FILE": str(broker.client.certificate),
            "SIGHTLINE_KAFKA_KEY_FILE": str(broker.client.key),
        }
    if listener == "SASL":
        env |= {
            "SIGHTLINE_KAFKA_SASL_MECHANISM": how,
            "SIGHTLINE_KAFKA_USERNAME": USER,
            "SIGHTLINE_KAFKA_PASSWORD_FILE": str(folder / "password"),
        }
    settings = KafkaSettings.from_env(env)
    assert KafkaSettings.from_env(settings.to_env()) == settings  # a child process gets the same settings
    return settings


@pytest.fixture
def folder(broker: SecuredBroker) -> Path:
    return broker.authority.file.parent


@pytest.mark.parametrize("how", ["tls", "mutual", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_all_kafka_clients_can_connect_with_each_kind_of_security(
    broker: SecuredBroker, folder: Path, prefix: str, how: str
) -> None:
    settings = settings_of(broker, folder, how, prefix)
    await topicadmin.create(settings, partitions=2)  # the admin client
    link = KafkaLink(settings, "agent-test", {})
    await link.open()
    await (await link.send(OutboundRecord(FRAMES, "gate", b"a frame", {}, 1)))  # the producer
    await link.close()
    async with KafkaLog(settings, "test") as log:
        found = [
            record.value
            for partition, end in (await log.ends(FRAMES)).items()
            async for record in log.read(FRAMES, partition, 0, end)  # the consumer
        ]
        assert found == [b"a frame"]
        writer = await log.writer("node-0")  # the transactional producer, and the group's coordinator
        await writer.write([Outgoing(RESULTS, 0, b"a result")], "engines", {TopicPartition(FRAMES, 0): 1})
        deadline = Deadline.after(60.0)
        while (
            await log.committed("engines", TopicPartition(FRAMES, 0)) != 1
        ):  # commit markers are written after the response
            assert not deadline.passed
            await asyncio.sleep(0.02)


async def refused(settings: KafkaSettings) -> str:
    link = KafkaLink(settings, "agent-test", {})
    try:
        with pytest.raises(LinkLost) as error:
            await link.open()
    finally:
        await link.close()
    with pytest.raises(LogUnavailable):
        await KafkaLog(settings, "test").ends(FRAMES)
    return str(error.value)


async def test_a_wrong_kafka_password_is_refused_and_a_corrected_password_file_is_read(
    broker: SecuredBroker, folder: Path, tmp_path: Path, prefix: str
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong")
    settings = settings_of(broker, folder, "SCRAM-SHA-512", prefix)
    settings = settings.model_copy(update={"password_file": password})
    assert "Kafka" in await refused(settings)
    password.write_text(PASSWORD)  # the settings object is unchanged, because each connection reads the secrets again
    await topicadmin.create(settings, partitions=1)
    link = KafkaLink(settings, "agent-test", {})
    await link.open()
    await link.close()


@pytest.mark.parametrize("problem", ["no certificate", "another authority", "another name"])
async def test_an_unknown_certificate_authority_or_client_certificate_is_refused(
    broker: SecuredBroker, folder: Path, tmp_path: Path, problem: str
) -> None:
    settings = settings_of(broker, folder, "mutual")
    change = {
        "no certificate": {"cert_file": None, "key_file": None},
        "another authority": {"ca_file": Authority(tmp_path, "another authority").file},
        "another name": {"bootstrap": broker.address("MUTUAL").replace("localhost", "127.0.0.2")},
    }[problem]
    await refused(settings.model_copy(update=change))


async def test_a_kafka_connection_without_tls_is_refused(broker: SecuredBroker) -> None:
    await refused(KafkaSettings(bootstrap=broker.address("TLS")))


def test_the_error_for_an_unreadable_password_or_ca_file_names_its_variable(tmp_path: Path) -> None:
    settings = KafkaSettings(security="SASL_SSL", password_file=tmp_path / "none", username=USER)
    with pytest.raises(ConfigError, match="SIGHTLINE_KAFKA_PASSWORD_FILE"):
        settings.client("test")
    with pytest.raises(ConfigError, match="SIGHTLINE_KAFKA_CA_FILE"):
        KafkaSettings(security="SSL", ca_file=tmp_path / "none").client("test")

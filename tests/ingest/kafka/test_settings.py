"""Where Kafka is, read from the environment, and the clients made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.exceptions import ConfigError
from ingest.kafka.settings import KafkaSettings

SASL = KafkaSettings(
    bootstrap="kafka:9093",
    prefix="north.",
    security="SASL_SSL",
    sasl_mechanism="PLAIN",
    username="edge",
    password_file=Path("/run/secrets/kafka"),
)


@pytest.mark.parametrize("settings", [KafkaSettings(), SASL])
def test_settings_come_back_from_the_environment(settings: KafkaSettings) -> None:
    assert KafkaSettings.from_env(settings.to_env()) == settings


def test_the_defaults_are_one_broker_on_this_machine() -> None:
    assert KafkaSettings.from_env({}) == KafkaSettings(bootstrap="127.0.0.1:9092", prefix="sightline.")
    assert KafkaSettings().to_env() == {"SIGHTLINE_KAFKA": "127.0.0.1:9092"}


def test_a_wrong_variable_is_told() -> None:
    with pytest.raises(ConfigError, match=r"environment: SIGHTLINE_KAFKA_SECURITY = 'TLS': expected .*'SASL_SSL'"):
        KafkaSettings.from_env({"SIGHTLINE_KAFKA_SECURITY": "TLS"})


def test_the_prefix_stands_before_topics_and_groups() -> None:
    assert SASL.topic("frames") == "north.frames"
    assert SASL.group("engines-batches-0") == "north.engines-batches-0"


def test_the_password_is_read_when_it_is_needed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    settings = SASL.model_copy(update={"password_file": secret})
    for password in ("first", "rotated"):
        secret.write_text(password + "\n")
        assert settings.client("c")["sasl_plain_password"] == password


def test_without_tls_and_sasl_there_is_nothing_of_either() -> None:
    client = KafkaSettings().client("me")
    assert (client["client_id"], client["ssl_context"]) == ("me", None)
    assert not any(name.startswith("sasl") for name in client)


def test_tls_checks_the_broker(tmp_path: Path) -> None:
    context = SASL.ssl_context()
    assert context is not None
    assert context.check_hostname


@pytest.mark.parametrize("address", ["kafka:port", "[::1", "", "a b", "kafka:99999", "kafka:0", "a:1,,b:1"])
def test_an_address_that_no_client_can_read_is_told_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match=r"environment: SIGHTLINE_KAFKA = .*expected HOST\[:PORT\]"):
        KafkaSettings.from_env({"SIGHTLINE_KAFKA": address})


@pytest.mark.parametrize("address", ["kafka", "10.0.0.1:9092", "a.example:9093, b.example:9093", "[fe80::1]:9092"])
def test_addresses_are_hosts_with_or_without_a_port(address: str) -> None:
    assert KafkaSettings.from_env({"SIGHTLINE_KAFKA": address}).bootstrap == address


def test_a_prefix_that_no_topic_may_have_is_told() -> None:
    with pytest.raises(ConfigError, match="SIGHTLINE_KAFKA_PREFIX"):
        KafkaSettings.from_env({"SIGHTLINE_KAFKA_PREFIX": "a/b"})


@pytest.mark.parametrize("text", ["", "\n", None])
def test_a_password_that_is_not_there_is_told_and_not_tried(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(text or "")
    settings = SASL.model_copy(update={"password_file": None if text is None else file, "security": "SASL_PLAINTEXT"})
    with pytest.raises(ConfigError, match=r"SIGHTLINE_KAFKA_PASSWORD_FILE.*expected a text file with the password"):
        settings.client("test")


def test_sasl_without_a_user_is_told(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    settings = SASL.model_copy(update={"username": "", "security": "SASL_PLAINTEXT", "password_file": secret})
    with pytest.raises(ConfigError, match="SIGHTLINE_KAFKA_USERNAME"):
        settings.client("test")

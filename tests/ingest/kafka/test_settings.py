"""Tests of the Kafka settings: environment variables, addresses, TLS and passwords."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.exceptions import ConfigError
from ingest.kafka.settings import LINGER_MS, KafkaSettings, producer

SASL = KafkaSettings(
    bootstrap="kafka:9093",
    prefix="north.",
    security="SASL_SSL",
    sasl_mechanism="PLAIN",
    username="edge",
    password_file=Path("/run/secrets/kafka"),
)


@pytest.mark.parametrize("settings", [KafkaSettings(), SASL])
def test_kafka_settings_survive_a_round_trip_through_environment_variables(settings: KafkaSettings) -> None:
    assert KafkaSettings.from_env(settings.to_env()) == settings


def test_the_default_kafka_address_is_a_broker_on_this_machine() -> None:
    assert KafkaSettings.from_env({}) == KafkaSettings(bootstrap="127.0.0.1:9092", prefix="sightline.")
    assert KafkaSettings().to_env() == {"SIGHTLINE_KAFKA": "127.0.0.1:9092"}


def test_the_error_for_an_invalid_environment_variable_names_the_expected_values() -> None:
    with pytest.raises(ConfigError, match=r"environment: SIGHTLINE_KAFKA_SECURITY = 'TLS': expected .*'SASL_SSL'"):
        KafkaSettings.from_env({"SIGHTLINE_KAFKA_SECURITY": "TLS"})


def test_names_of_topics_and_groups_begin_with_the_configured_prefix() -> None:
    assert SASL.topic("frames") == "north.frames"
    assert SASL.group("engines-batches-0") == "north.engines-batches-0"


def test_a_rotated_kafka_password_is_read_from_its_file_again(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    settings = SASL.model_copy(update={"password_file": secret})
    for password in ("first", "rotated"):
        secret.write_text(password + "\n")
        assert settings.client("c")["sasl_plain_password"] == password


def test_a_plaintext_client_has_no_tls_or_sasl_arguments() -> None:
    client = KafkaSettings().client("me")
    assert (client["client_id"], client["ssl_context"]) == ("me", None)
    assert not any(name.startswith("sasl") for name in client)


def test_a_tls_client_checks_the_host_name_of_the_broker(tmp_path: Path) -> None:
    context = SASL.ssl_context()
    assert context is not None
    assert context.check_hostname


@pytest.mark.parametrize("address", ["kafka:port", "[::1", "", "a b", "kafka:99999", "kafka:0", "a:1,,b:1"])
def test_an_invalid_broker_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"environment: SIGHTLINE_KAFKA = .*expected one or more HOST\[:PORT\]"):
        KafkaSettings.from_env({"SIGHTLINE_KAFKA": address})


@pytest.mark.parametrize("address", ["kafka", "10.0.0.1:9092", "a.example:9093, b.example:9093", "[fe80::1]:9092"])
def test_broker_addresses_are_hosts_with_an_optional_port(address: str) -> None:
    assert KafkaSettings.from_env({"SIGHTLINE_KAFKA": address}).bootstrap == address


def test_a_topic_prefix_with_characters_that_kafka_refuses_is_refused() -> None:
    with pytest.raises(ConfigError, match="SIGHTLINE_KAFKA_PREFIX"):
        KafkaSettings.from_env({"SIGHTLINE_KAFKA_PREFIX": "a/b"})


@pytest.mark.parametrize("text", ["", "\n", None])
def test_a_missing_or_empty_kafka_password_is_an_error_before_connecting(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(text or "")
    settings = SASL.model_copy(update={"password_file": None if text is None else file, "security": "SASL_PLAINTEXT"})
    with pytest.raises(ConfigError, match=r"SIGHTLINE_KAFKA_PASSWORD_FILE.*expected a text file with the password"):
        settings.client("test")


def test_sasl_without_a_user_name_is_an_error(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    settings = SASL.model_copy(update={"username": "", "security": "SASL_PLAINTEXT", "password_file": secret})
    with pytest.raises(ConfigError, match="SIGHTLINE_KAFKA_USERNAME"):
        settings.client("test")


@pytest.mark.parametrize(("transactional_id", "wait_ms"), [("engines", 0), (None, LINGER_MS)])
async def test_a_transactional_producer_sends_records_without_waiting_for_more(
    transactional_id: str | None, wait_ms: int
) -> None:
    made = producer(KafkaSettings(), "test", transactional_id=transactional_id)
    assert made._message_accumulator._linger_time == wait_ms / 1000
    await made.stop()

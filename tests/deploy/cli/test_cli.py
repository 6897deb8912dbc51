"""Tests of the command line: help, errors and JSON output."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from typer.main import get_command
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.common import USAGE_EXIT
from ingest.contract.codec import encode
from ingest.contract.records import FrameRef, Result
from ingest.contract.topics import FRAMES, RESULTS
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Outgoing
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.service import EXIT_AGAIN
from tests.edge_agent.smalldisk import SmallDisk

Invoke = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]
NOWHERE = "127.0.0.1:9"
SITE = """
name = "test"

[[cameras]]
name = "road"
source = "simulated:road"
"""


def every_command() -> Iterator[tuple[str, ...]]:
    def below(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        children = getattr(command, "commands", {})
        for name, child in children.items():
            yield from below(child, (*words, name))
        if not children:
            yield words

    return below(get_command(app), ())


@pytest.mark.parametrize("words", sorted(every_command()), ids=" ".join)
def test_every_command_has_a_help_text(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output
    first_line = result.output.split("Usage", 1)[1].splitlines()[2]
    assert first_line.strip(), result.output


OTHER_MODELS = {"demo", "config check", "import frigate", "engine doctor"}
"""Commands whose ``--models`` asks for something more than usual, so that no environment variable stands for it."""


def test_the_environment_variable_sightline_models_sets_the_option_models_of_each_command() -> None:
    def options(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, object]]:
        for option in getattr(command, "params", ()):
            if "--models" in option.opts:
                yield " ".join(words), option.envvar
        for name, child in getattr(command, "commands", {}).items():
            yield from options(child, (*words, name))

    found = dict(options(get_command(app), ()))
    assert {words for words, variable in found.items() if variable != "SIGHTLINE_MODELS"} == OTHER_MODELS
    assert {"engine", "sense", "train forecast", "models add"} <= found.keys()


def clean(env: dict[str, str]) -> dict[str, str]:
    """Return this process's environment without Sightline's settings, and with the given settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SIGHTLINE")} | env


def invoke(*words: str, **env: str) -> tuple[int, str, str]:
    """Run a command as a process, and return its exit code, standard output and standard error."""
    run = subprocess.run(
        [sys.executable, "-m", "deploy.cli.app", *words],
        env=clean(env),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return run.returncode, run.stdout, run.stderr


def only_error(code: int, output: str, error: str) -> str:
    """Return the only line of output of a command that fails with a usage error."""
    assert (code, output) == (USAGE_EXIT, ""), error
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Invoke]:
    """Return ``invoke`` without a new process, for commands that end before they start a service."""
    policy, umask, structlog_config = asyncio.get_event_loop_policy(), os.umask(0o077), structlog.get_config()
    os.umask(umask)

    def call(*words: str, **env: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            for name in os.environ.keys() - clean(env).keys():
                patch.delenv(name)
            for name, value in env.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                app(words, prog_name="sightline")
        captured = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    yield call
    asyncio.set_event_loop_policy(policy)
    os.umask(umask)
    structlog.configure(**structlog_config)


@pytest.fixture
def refused(call: Invoke) -> Refused:
    """Return a function that runs a command in this process and returns its only line of output, an error."""
    return lambda *words, **env: only_error(*call(*words, **env))


@pytest.mark.parametrize(
    "words",
    [
        ("audit",),
        ("topics", "list"),
        ("topics", "create"),
        ("topics", "verify"),
        ("config", "show"),
        ("deadletter", "list"),
        ("deadletter", "replay"),
        ("results", "tail"),
        ("gate", "report"),
    ],
    ids=" ".join,
)
def test_without_kafka_a_command_explains_how_to_start_a_broker(words: tuple[str, ...], refused: Refused) -> None:
    line = refused(*words, "--kafka", NOWHERE)
    assert f"no Kafka at {NOWHERE}" in line
    assert "sightline kafka start" in line


def test_a_process_without_kafka_prints_one_line_and_exits() -> None:
    assert f"no Kafka at {NOWHERE}" in only_error(*invoke("results", "tail", "--kafka", NOWHERE))


def test_the_error_for_an_unusable_file_names_the_file_and_the_expected_content(
    tmp_path: Path, refused: Refused
) -> None:
    site, data = tmp_path / "site.toml", str(tmp_path / "data")
    assert "expected a readable TOML file" in refused("agent", "run", "--site", str(site), "--data", data)
    site.write_text(SITE)
    line = refused("agent", "run", "--site", str(site), "--data", data, "--only", "gate")
    assert "gate" in line
    assert "road" in line
    site.write_text(SITE + "colour = 3\n")
    assert "colour" in refused("config", "check", str(site))
    assert "model repository" in refused("models", "list", "--models", str(tmp_path / "none"))
    assert "none.mp4" in refused("demo", "--video", str(tmp_path / "none.mp4"))
    assert "a folder that exists" in refused("demo", "--report", str(tmp_path / "none" / "report.json"))


def test_classify_checks_its_picture_paths_before_it_connects_to_kafka(tmp_path: Path, refused: Refused) -> None:
    words = ("classify", "--pipeline", "any", "--kafka", NOWHERE)
    assert "expected a picture or a folder that exists" in refused(*words, str(tmp_path / "none.png"))
    assert "expected a folder with JPEG" in refused(*words, str(tmp_path))
    (tmp_path / "a.png").touch()
    assert f"no Kafka at {NOWHERE}" in refused(*words, str(tmp_path))


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"SIGHTLINE_KAFKA_SECURITY": "TLS"}, "SIGHTLINE_KAFKA_SECURITY"),
        ({"SIGHTLINE_KAFKA_SECURITY": "SSL", "SIGHTLINE_KAFKA_CA_FILE": "/no/ca.pem"}, "a PEM file of certificates"),
        ({"SIGHTLINE_KAFKA_SECURITY": "SSL", "SIGHTLINE_KAFKA_CERT_FILE": "/no/c.pem"}, "a PEM certificate"),
        (
            {"SIGHTLINE_KAFKA_SECURITY": "SASL_PLAINTEXT", "SIGHTLINE_KAFKA_PASSWORD_FILE": "/no/password"},
            "a text file with the password",
        ),
    ],
)
def test_the_error_for_an_unusable_setting_names_the_setting(
    env: dict[str, str], message: str, refused: Refused
) -> None:
    assert message in refused("topics", "list", **env)


def test_an_address_on_the_command_line_is_validated(refused: Refused) -> None:
    assert "HOST[:PORT]" in refused("config", "show", "--kafka", "kafka:port")


@pytest.mark.kafka
async def test_json_output_of_a_command_has_the_same_content_as_the_topics(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    env = {"SIGHTLINE_KAFKA": kafka, "SIGHTLINE_KAFKA_PREFIX": prefix}
    assert invoke("topics", "verify", **env)[0] == USAGE_EXIT
    assert invoke("topics", "create", "--partitions", "2", **env)[0] == 0
    assert invoke("topics", "verify", **env)[0] == 0
    (tmp_path / "site.toml").write_text(SITE)
    assert invoke("config", "apply", str(tmp_path / "site.toml"), **env)[0] == 0
    assert "camera/road" in json.loads(invoke("config", "show", **env)[1])
    result = Result(
        camera="road",
        epoch=1,
        seq=2,
        lane="live",
        pipeline="cars",
        pipelines=("cars",),
        captured_ns=1,
        finished_ns=2,
        width=2,
        height=2,
        source=FrameRef(FRAMES, 0, 0),
        outcome="classified",
    )
    async with KafkaLog(KafkaSettings(bootstrap=kafka, prefix=prefix), "test") as log:
        for value in (b"garbage", encode(result)):
            await log.produce(Outgoing(RESULTS, 0, value))
    code, output, error = invoke("results", "tail", "--from-start", "--count", "1", "--json", **env)
    assert (code, Result.model_validate_json(output)) == (0, result)
    assert "results[0]@0 cannot be read" in error
    (rate,) = json.loads(invoke("gate", "report", "--json", **env)[1])
    assert (rate["camera"], rate["pipeline"], rate["sampled"], rate["rate"]) == ("road", "cars", 0, None)
    code, output, _ = invoke("audit", "--wait", "0", "--json", **env)
    assert (code, json.loads(output)["balanced"]) == (0, True)
    assert json.loads(invoke("deadletter", "list", "--json", **env)[1]) == []
    assert invoke("deadletter", "show", "3", **env)[0] == USAGE_EXIT


def test_a_command_reports_a_read_only_home_folder_in_one_line(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "disk") as disk:
        disk.read_only(True)
        code, out, err = invoke("kafka", "start", SIGHTLINE_HOME=str(disk.folder / "home"))
    expected = f"error: {disk.folder}/home: Read-only file system: expected a writable disk\n"
    assert (code, out, err) == (USAGE_EXIT, "", expected)


@pytest.mark.kafka
def test_a_command_reports_a_full_disk_in_one_line(tmp_path: Path, home: Path) -> None:
    with SmallDisk(tmp_path / "disk") as disk:
        disk.fill()
        code, out, err = invoke("kafka", "start", f"--folder={disk.folder}/node", SIGHTLINE_HOME=str(home))
    assert (code, out, err) == (USAGE_EXIT, "", "error: No space left on device: expected a disk with free space\n")


def test_a_home_folder_that_is_a_file_gives_a_one_line_error(tmp_path: Path, call: Invoke) -> None:
    (tmp_path / "file").touch()
    code, _, err = call("kafka", "start", SIGHTLINE_HOME=str(tmp_path / "file"))
    assert (code, err) == (USAGE_EXIT, f"error: {tmp_path}/file/kafka: Not a directory: expected a folder\n")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"whsec_not base64"])
def test_the_webhook_receiver_command_reports_an_unusable_secret_in_one_line(
    tmp_path: Path, content: bytes, call: Invoke
) -> None:
    (tmp_path / "secret").write_bytes(content)
    code, _, err = call("webhook-receiver", f"--secret-file={tmp_path}/secret")
    assert (code, err.count("\n")) == (USAGE_EXIT, 1)
    assert "expected a file with the signing secret" in err


def test_a_metrics_port_in_use_is_logged_in_one_line(tmp_path: Path) -> None:
    lines = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "deploy.cli.app", "analyse", f"--metrics-port={port}"]
        with subprocess.Popen(
            command, env=clean({"SIGHTLINE_KAFKA": NOWHERE}), stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line)
                if "kafka_unavailable" in line:
                    process.terminate()  # the service waits for Kafka
    assert process.returncode == EXIT_AGAIN
    (line,) = [line for line in lines if "metrics_not_served" in line]
    assert f"127.0.0.1:{port}" in line
    assert "Traceback" not in "".join(lines)

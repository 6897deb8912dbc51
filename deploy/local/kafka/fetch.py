"""Kafka's jars, from Maven Central, once."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.exceptions import FetchFailed, ToolMissing

KAFKA_FILES = Path(__file__).resolve().parents[2] / "kafka"
"""The pom, the template of server.properties and the log4j configuration."""
JAVA_NEEDED = 17
"""Kafka 4's brokers need Java 17 or newer."""
FETCH_TIMEOUT_S = 600.0
"""44 MB over a slow line; Maven itself gives up on a dead one much sooner."""
_INSTALL_JAVA = "apt-get install openjdk-17-jdk-headless"
_INSTALL_MAVEN = "apt-get install maven"
_TAIL_CHARACTERS = 2_000


def kafka_version() -> str:
    """Return the version that the pom pins."""
    root = ET.parse(KAFKA_FILES / "pom.xml").getroot()  # noqa: S314  (our own file)
    return str(root.findtext("{*}properties/{*}kafka.version"))


def libs_folder(home: Path) -> Path:
    """Return where the jars of the pinned version are kept."""
    return home / "kafka" / f"libs-{kafka_version()}"


def fetch(home: Path) -> Path:
    """Fetch the jars unless they are there, and return their folder. Raise ToolMissing or FetchFailed.

    Safe to call from several processes at once: one fetches, the others wait for it.
    """
    libs = libs_folder(home)
    if libs.is_dir():
        return libs
    libs.parent.mkdir(parents=True, exist_ok=True)
    with locked(libs.parent / "fetch.lock"):
        if not libs.is_dir():
            _copy_dependencies(libs)
    return libs


def java() -> str:
    """Return the Java to run. Raise ToolMissing if there is none, or only an old one."""
    found = shutil.which("java")
    if not found:
        raise ToolMissing("java", "is missing", _INSTALL_JAVA)
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    if java_major(said) < JAVA_NEEDED:
        raise ToolMissing("java", f"is older than {JAVA_NEEDED} ({said.splitlines()[:1]})", _INSTALL_JAVA)
    return found


def java_major(said: str) -> int:
    """Return the major version in the output of ``java -version``, 0 if it says none. 1.8 counts as 8."""
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found.group(1)) if found else 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock while the block runs; other processes wait. The lock goes with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy_dependencies(libs: Path) -> None:
    maven = shutil.which("mvn")
    if not maven:
        raise ToolMissing("mvn", "is missing", _INSTALL_MAVEN)
    part = libs.with_name(libs.name + ".part")  # a fetch that was killed leaves no half folder behind
    shutil.rmtree(part, ignore_errors=True)
    pom = KAFKA_FILES / "pom.xml"
    command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={part}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise FetchFailed("mvn", f"nothing within {FETCH_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        raise FetchFailed("mvn", (done.stdout + done.stderr)[-_TAIL_CHARACTERS:])
    part.rename(libs)

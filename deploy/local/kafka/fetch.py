"""Download of Kafka's jars from Maven Central."""

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
"""Folder of Kafka's pom.xml, the template of server.properties, and the log4j configuration."""
JAVA_NEEDED = 17
"""Oldest major version of Java that can run a Kafka 4 broker."""
FETCH_TIMEOUT_S = 600.0
"""Time limit for the download of Kafka's jars, in seconds: 44 MB over a slow connection. If the connection is dead,
Maven itself gives up before this time limit for Kafka's jars."""
_INSTALL_JAVA = "apt-get install openjdk-17-jdk-headless"
_INSTALL_MAVEN = "apt-get install maven"
_TAIL_CHARACTERS = 2_000


def kafka_version() -> str:
    """Return the version of Kafka that pom.xml specifies."""
    root = ET.parse(KAFKA_FILES / "pom.xml").getroot()  # noqa: S314  (our own file)
    return str(root.findtext("{*}properties/{*}kafka.version"))


def libs_folder(home: Path) -> Path:
    """Return the folder for the jars of the Kafka version in pom.xml."""
    return home / "kafka" / f"libs-{kafka_version()}"


def class_archive(home: Path) -> Path:
    """Return the path of the JVM's archive of parsed Kafka classes (class data sharing, which makes a JVM start
    faster)."""
    return home / "kafka" / f"classes-{kafka_version()}.jsa"


def feature_checkpoint(home: Path) -> Path:
    """Return the path of the checkpoint of Kafka's feature versions, which Kafka's format command writes.

    The checkpoint is the same for every node of one version of Kafka.
    """
    return home / "kafka" / f"features-{kafka_version()}.checkpoint"


def fetch(home: Path) -> Path:
    """Download Kafka's jars unless they exist, and return the folder of the jars. Raise ToolMissing or FetchFailed.

    If several processes call this function at once, one process downloads the jars, and the other processes wait for
    the download.
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
    """Return the path of the ``java`` program.

    Raise ToolMissing if ``java`` is missing or older than ``JAVA_NEEDED``.
    """
    found = shutil.which("java")
    if not found:
        raise ToolMissing("java", "is missing", _INSTALL_JAVA)
    version = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    if java_major(version) < JAVA_NEEDED:
        raise ToolMissing("java", f"is older than {JAVA_NEEDED} ({version.splitlines()[:1]})", _INSTALL_JAVA)
    return found


def java_major(version: str) -> int:
    """Return the major version from the output of ``java -version``, or 0 if the output contains no version.

    Version 1.8 counts as 8.
    """
    found = re.search(r'version "(?:1\.)?(\d+)', version)
    return int(found.group(1)) if found else 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file while the body of the ``with`` statement runs.

    Another process that wants the lock waits. The kernel releases the lock if the process that holds the lock dies.
    """
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy_dependencies(libs: Path) -> None:
    maven = shutil.which("mvn")
    if not maven:
        raise ToolMissing("mvn", "is missing", _INSTALL_MAVEN)
    part = libs.with_name(libs.name + ".part")  # a killed download must not leave an incomplete folder
    shutil.rmtree(part, ignore_errors=True)
    pom = KAFKA_FILES / "pom.xml"
    command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={part}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise FetchFailed("mvn", f"the download did not end within {FETCH_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        raise FetchFailed("mvn", (done.stdout + done.stderr)[-_TAIL_CHARACTERS:])
    part.rename(libs)

"""A real S3 server on loopback, s3proxy."""

from __future__ import annotations

import hmac
import shutil
import signal
import socket
import subprocess
import time
from base64 import b64encode
from email.utils import formatdate
from pathlib import Path
from typing import Self

import httpx

from deploy.local.demo.run import free_port
from deploy.local.exceptions import StackError
from ingest.runtime.clock import Deadline

JARS = "s3proxy"
"""Folder of the jars below ``SIGHTLINE_HOME``, which ``make s3proxy`` downloads."""
BUCKET = "bucket"
START_S = 120.0
"""Time limit of a start, in seconds. A JVM starts in two seconds, and slowly on a busy machine."""
_KEY, _SECRET = "sightline", "secret-key"
_POLL_S = 0.05


def is_installed(home: Path) -> bool:
    """Return whether this machine has Java and the jars of s3proxy."""
    return (home / JARS).is_dir() and bool(shutil.which("java"))


class S3Server:
    """s3proxy with one bucket. ``environment`` has the variables by which clients find the server.

    The objects are in memory. With ``durable``, the objects are files below ``folder`` and survive a kill; such a
    server also lists folders as objects, unlike S3.
    """

    def __init__(self, home: Path, folder: Path, *, durable: bool = False) -> None:
        self._jars, self._folder, self._durable = home / JARS, folder, durable
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def start(self) -> None:
        """Start the server with the objects of its last run. Raise StackError if the server does not listen."""
        objects, settings = self._folder / "objects", self._folder / "s3proxy.properties"
        objects.mkdir(parents=True, exist_ok=True)
        values = {
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.endpoint": self.endpoint,
            "s3proxy.identity": _KEY,
            "s3proxy.credential": _SECRET,
            "jclouds.provider": "filesystem" if self._durable else "transient",
            "jclouds.identity": "unused",
            "jclouds.credential": "unused",
            "jclouds.filesystem.basedir": str(objects),
        }
        settings.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
        java = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", "-DLOG_LEVEL=warn"]
        command = [*java, "-cp", f"{self._jars}/*", "org.gaul.s3proxy.Main", "--properties", str(settings)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._await_listening()
        self._make_bucket()

    def kill(self) -> None:
        """Kill the server, if it runs."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the running server, such as SIGSTOP."""
        assert self._process, "the server must run"
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        """Start the server."""
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the server."""
        self.kill()

    def _await_listening(self) -> None:
        deadline = Deadline.after(START_S)
        while self._process and self._process.poll() is None and not deadline.passed:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1.0).close()
            except OSError:
                time.sleep(_POLL_S)
            else:
                return
        raise StackError(f"s3proxy does not listen: {(self._folder / 'log').read_text()[-2000:]}")

    def _make_bucket(self) -> None:
        """Create the bucket, signed by version 2 of AWS signatures, because obstore cannot create buckets."""
        date = formatdate(usegmt=True)
        digest = hmac.digest(_SECRET.encode(), f"PUT\n\n\n{date}\n/{BUCKET}".encode(), "sha1")
        headers = {"Date": date, "Authorization": f"AWS {_KEY}:{b64encode(digest).decode()}"}
        response = httpx.put(f"{self.endpoint}/{BUCKET}", headers=headers, timeout=60.0)
        if response.status_code != httpx.codes.CONFLICT:  # the bucket is there since an earlier start
            response.raise_for_status()

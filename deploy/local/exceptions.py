"""Errors of the local stack: the Kafka broker and the services on one machine.

Every error in this module derives from DeployError.

DeployError
├── ToolMissing         a needed program is not installed, or too old
├── FetchFailed         Maven could not download Kafka's jars
├── PullFailed          a model file could not be downloaded, or is another file
├── PictureUnusable     a file is not a picture
├── BrokerFailed        the broker ended, or did not answer within the deadline
└── StackError          the services of a stack cannot be run as described
"""

from __future__ import annotations

from pathlib import Path


class DeployError(Exception):
    """Base class of all errors of the local stack."""


class ToolMissing(DeployError):
    """A program is not installed or too old. The error message contains the command that installs the program."""

    def __init__(self, tool: str, problem: str, install: str) -> None:
        super().__init__(
            f"{tool} {problem}: install it ({install} on Debian), or set SIGHTLINE_KAFKA to a cluster's address"
        )
        self.tool = tool
        self.install = install


class FetchFailed(DeployError):
    """Maven could not download Kafka's jars."""

    def __init__(self, command: str, output: str) -> None:
        super().__init__(
            f"Kafka's jars could not be downloaded: check the network and Maven's settings, then run "
            f"`sightline kafka fetch` again. Output of {command}:\n{output}"
        )
        self.output = output


class PullFailed(DeployError):
    """A model file could not be downloaded, or its SHA-256 differs from the expected value."""

    def __init__(self, url: str, found: str, expected: str) -> None:
        super().__init__(f"download of {url}: {found}: expected {expected}")


class PictureUnusable(DeployError):
    """A file is not a picture that OpenCV can read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"picture {path}: {reason}: expected a JPEG, PNG or other picture file")


class BrokerFailed(DeployError):
    """The Kafka broker exited, or did not answer in time. ``tail`` contains the last lines of the broker's log."""

    def __init__(self, problem: str, folder: str, tail: str) -> None:
        super().__init__(
            f"{problem}. Its data is in {folder}. If the data is damaged, `sightline kafka clean` removes it. "
            f"End of its log:\n{tail}"
        )
        self.tail = tail


class StackError(DeployError):
    """The services of a stack cannot run, for example because two services have the same name or a service is not
    ready in time."""

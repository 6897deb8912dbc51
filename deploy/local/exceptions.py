"""What can go wrong with the stack on one machine.

DeployError
├── ToolMissing         a program that is needed is not installed, or too old
├── FetchFailed         Maven could not fetch Kafka's jars
├── BrokerFailed        the broker ended, or did not answer within the deadline
└── StackError          the services of a stack cannot be run as described
"""

from __future__ import annotations


class DeployError(Exception):
    """Base of every error of the local stack."""


class ToolMissing(DeployError):
    """A program is not installed, or too old; the text names the line that installs it."""

    def __init__(self, tool: str, problem: str, install: str) -> None:
        super().__init__(
            f"{tool} {problem}; Debian and Ubuntu: {install}; or set SIGHTLINE_KAFKA to a cluster's address"
        )
        self.tool = tool
        self.install = install


class FetchFailed(DeployError):
    """Maven could not fetch Kafka's jars."""

    def __init__(self, command: str, output: str) -> None:
        super().__init__(
            f"Kafka's jars could not be fetched: check the network and Maven's settings, then run "
            f"`sightline kafka fetch` again. {command} said:\n{output}"
        )
        self.output = output


class BrokerFailed(DeployError):
    """The broker ended, or did not answer within the deadline. ``tail`` holds the last lines of its log."""

    def __init__(self, problem: str, folder: str, tail: str) -> None:
        super().__init__(
            f"Kafka in {folder} {problem}; if its data is damaged, `sightline kafka clean` starts afresh. "
            f"Its log ends:\n{tail}"
        )
        self.tail = tail


class StackError(DeployError):
    """The services of a stack cannot be run as described."""

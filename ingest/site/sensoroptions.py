"""The options of each kind of sensor source. Names of files stand for secrets, which are never here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ingest.site.entry import ConfigSection

Baud = Annotated[int, Field(ge=50, le=4_000_000)]
Port = Annotated[int, Field(ge=1, le=65535)]


class SimulatedOptions(ConfigSection):
    """Of ``simulated:KIND``."""

    seed: int = Field(default=0, ge=0)


class HostOptions(ConfigSection):
    """Of ``host:…``."""

    path: Path = Path("/")
    """``disk``: what is free where this is."""
    label: str = ""
    """``temperature``: the one chip or label that is meant; without it, the hottest of all."""


class MqttOptions(ConfigSection):
    """Of ``mqtt:TOPIC``. Sensors with the same broker and user share one connection."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    """0 for 1883, or 8883 with TLS."""
    username: str = ""
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    """PEM certificates to trust; without it, the system's."""
    cert_file: Path | None = None
    key_file: Path | None = None
    field: str = ""
    """Where in a JSON payload the number is: keys and indices joined by dots; without it, ``value``."""
    time_field: str = "time"

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if not self.tls and (self.ca_file or self.cert_file):
            raise ValueError("ca_file and cert_file are for tls = true")
        if self.password_file and not self.username:
            raise ValueError("password_file needs username")
        return self


class LineOptions(ConfigSection):
    """Of whatever says lines: how they are read, and which of their names is this sensor's."""

    format: Literal["lines", "csv"] = "lines"
    header: str = ""
    """``csv``: the names of the columns, for a device that does not say them itself."""
    field: str = ""
    """The name by which the device calls this sensor; without it, the sensor's own."""


class CommandOptions(LineOptions):
    """Of ``command:NAME``. Sensors with the same source, ``argv`` and format share one process."""

    argv: tuple[str, ...] = Field(min_length=1)
    """The program and its arguments; no shell reads them."""


class SerialOptions(LineOptions):
    """Of ``serial:/dev/…``. Sensors of one device share it."""

    baud: Baud = 9600
    bytesize: Literal[5, 6, 7, 8] = 8
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1


class ModbusOptions(ConfigSection):
    """Of ``modbus:HOST[:PORT]`` and ``modbus:/dev/…``. Sensors of one device share one connection."""

    address: int = Field(ge=0, le=65535)
    """Of its register in the protocol, from 0: 40001 in a handbook is mostly 0 here."""
    table: Literal["holding", "input"] = "holding"
    type: Literal["int16", "uint16", "int32", "uint32", "float32"] = "uint16"
    word_order: Literal["big", "little"] = "big"
    """Of the two words of a 32-bit value: ``big`` has the more significant one first."""
    scale: float = 1.0
    offset: float = 0.0
    """The reading is the register's value times ``scale`` plus ``offset``."""
    unit_id: int = Field(default=1, ge=0, le=255)
    timeout_s: float = Field(default=2.0, gt=0.0, le=60.0)
    baud: Baud = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1

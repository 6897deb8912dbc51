"""Options of each kind of sensor source. They hold no secrets, only the names of files with secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ingest.site.entry import ConfigSection

Baud = Annotated[int, Field(ge=50, le=4_000_000)]


class SimulatedOptions(ConfigSection):
    """Options of ``simulated:KIND``."""

    seed: int = Field(default=0, ge=0)


class HostOptions(ConfigSection):
    """Options of ``host:QUANTITY``."""

    path: Path = Path("/")
    """For ``disk``: a path on the file system whose free bytes are measured."""
    label: str = ""
    """For ``temperature``: the chip or label to read; by default the hottest of all."""


class MqttOptions(ConfigSection):
    """Options of ``mqtt:TOPIC``. Sensors with the same broker and user share one connection."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    """TCP port; 0 for 1883, or 8883 with TLS."""
    username: str = ""
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    """Trusted certificates as PEM; by default those of the system."""
    cert_file: Path | None = None
    key_file: Path | None = None
    field: str = ""
    """Path to the number in a JSON payload: keys and indices joined by dots; by default ``value``."""
    time_field: str = "time"

    @model_validator(mode="after")
    def _options_match(self) -> Self:
        if not self.tls and (self.ca_file or self.cert_file):
            raise ValueError("expected tls = true with ca_file or cert_file")
        if self.password_file and not self.username:
            raise ValueError("expected username with password_file")
        return self


class LineOptions(ConfigSection):
    """Options of a source of text lines: their format, and the name of this sensor in them."""

    format: Literal["lines", "csv"] = "lines"
    header: str = ""
    """For ``csv``: the names of the columns, for a device that does not send them itself."""
    field: str = ""
    """Name of this sensor in the device's lines; by default the sensor's own name."""


class CommandOptions(LineOptions):
    """Options of ``command:NAME``. Sensors with the same source, ``argv`` and format share one process."""

    argv: tuple[str, ...] = Field(min_length=1)
    """The program and its arguments. No shell interprets them."""


class SerialOptions(LineOptions):
    """Options of ``serial:/dev/…``. Sensors of one device share it."""

    baud: Baud = 9600
    bytesize: Literal[5, 6, 7, 8] = 8
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1


class ModbusOptions(ConfigSection):
    """Options of ``modbus:HOST[:PORT]`` and ``modbus:/dev/…``. Sensors of one device share one connection."""

    address: int = Field(ge=0, le=65535)
    """Address of the register in the protocol, from 0. A manual's 40001 usually means 0."""
    table: Literal["holding", "input"] = "holding"
    type: Literal["int16", "uint16", "int32", "uint32", "float32"] = "uint16"
    word_order: Literal["big", "little"] = "big"
    """Order of the two words of a 32-bit value: ``big`` has the more significant word first."""
    scale: float = 1.0
    offset: float = 0.0
    """A reading is the register's value times ``scale`` plus ``offset``."""
    unit_id: int = Field(default=1, ge=0, le=255)
    timeout_s: float = Field(default=2.0, gt=0.0, le=60.0)
    baud: Baud = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1

"""Configuration of a sensor: its source, the options of the source, and the quantity, unit and batching of its
readings.

The options of a source hold no secrets, only the names of files with secrets.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from ingest.contract.identity import place_key
from ingest.contract.records.base import Name
from ingest.contract.units import conversion
from ingest.site.agent import SpoolConfig
from ingest.site.entry import ConfigEntry, ConfigSection, PositiveSeconds, Seconds, expectation

Baud = Annotated[int, Field(ge=50, le=4_000_000)]

_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class SimulatedOptions(ConfigSection):
    """Options of a sensor with the source ``simulated:KIND``."""

    seed: int = Field(default=0, ge=0)


class HostOptions(ConfigSection):
    """Options of a sensor with the source ``host:QUANTITY``."""

    path: Path = Path("/")
    """For the source ``host:disk``: a path on the file system whose free bytes are measured."""
    label: str = ""
    """For the source ``host:temperature``: the chip or label to read; by default the hottest sensor of the host."""


class MqttOptions(ConfigSection):
    """Options of a sensor with the source ``mqtt:TOPIC``. Sensors with the same broker and user share one
    connection."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    """TCP port of the broker. If 0, the port is 8883 with TLS and 1883 without TLS."""
    username: str = ""
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    """File with the trusted certificates as PEM; by default the certificates of the operating system."""
    cert_file: Path | None = None
    key_file: Path | None = None
    field: str = ""
    """Path to the number in a JSON payload: keys and indices joined by dots; by default ``value``."""
    time_field: str = "time"

    @model_validator(mode="after")
    def _options_match(self) -> Self:
        if not self.tls and (self.ca_file or self.cert_file):
            raise ValueError("expected tls = true, because ca_file or cert_file is set")
        if self.password_file and not self.username:
            raise ValueError("expected username as well, because password_file is set")
        return self


def csv_separator(header: str) -> str:
    """Return the separator of a CSV header: a semicolon if the header has one outside of quotes, else a comma."""
    return ";" if ";" in _QUOTED.sub("", header) else ","


def csv_cells(line: str, separator: str) -> list[str]:
    """Return the cells of one line of CSV (RFC 4180). Raise csv.Error for a line with malformed quotes."""
    cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True), [])
    return [cell.strip() for cell in cells]


class LineOptions(ConfigSection):
    """Options of a source that sends text lines: the format of the lines, and the name of this sensor in the
    lines."""

    format: Literal["lines", "csv"] = "lines"
    header: str = ""
    """For ``csv``: the names of the columns, for a device that does not send a header line."""
    field: str = ""
    """Name of this sensor in the device's lines; by default the sensor's own name."""

    @field_validator("header")
    @classmethod
    def _header_is_one_line_of_csv(cls, header: str) -> str:
        try:
            if header:
                csv_cells(header, csv_separator(header))
        except csv.Error:
            raise ValueError('expected a header of one line of CSV, such as time,"Hall, north"') from None
        return header


class CommandOptions(LineOptions):
    """Options of a sensor with the source ``command:NAME``. Sensors with the same source, ``argv`` and format share
    one process."""

    argv: tuple[str, ...] = Field(default=(), min_length=1)
    """The program and its arguments. The program is started without a shell. Without ``argv``, the file
    ``agent.toml`` on the agent's device sets the program and its arguments."""


class SerialOptions(LineOptions):
    """Options of a sensor with the source ``serial:/dev/…``. Sensors of one device share one serial port."""

    baud: Baud = 9600
    bytesize: Literal[5, 6, 7, 8] = 8
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1


class ModbusOptions(ConfigSection):
    """Options of a sensor with the source ``modbus:HOST[:PORT]`` or ``modbus:/dev/…``. Sensors of one device share
    one connection."""

    address: int = Field(ge=0, le=65535)
    """Address of the register in the Modbus protocol, counted from 0. The register that a manual calls 40001 usually
    has address 0."""
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


ALLOWED_LATENESS_S = 1.0
"""Time in seconds after a window's end in which late readings still count before the window is evaluated. A sensor's
readings arrive in order, so a reading is late only if the sensor's clock was set back a little, or if the device
sends its own times out of order."""

HOST_QUANTITIES = ("cpu", "memory", "load", "temperature", "disk")

_OPTIONS: dict[str, type[ConfigSection]] = {
    "simulated": SimulatedOptions,
    "host": HostOptions,
    "mqtt": MqttOptions,
    "command": CommandOptions,
    "serial": SerialOptions,
    "modbus": ModbusOptions,
}
_ADDRESS: dict[str, tuple[re.Pattern[str], str]] = {
    "simulated": (re.compile(r".+"), "simulated:temperature"),
    "host": (re.compile("|".join(HOST_QUANTITIES)), f"host: and one of {', '.join(HOST_QUANTITIES)}"),
    # + stands for one whole level, # for all remaining levels (MQTT 3.1.1, 4.7.1)
    "mqtt": (re.compile(r"(?=.)(?:(?:\+|[^+#/]*)/)*(?:\+|#|[^+#/]*)"), "mqtt:TOPIC, where + and # are whole levels"),
    "command": (re.compile(r".+"), "command:NAME"),
    "serial": (re.compile(r"/.+"), "serial:/dev/…"),
    "modbus": (
        re.compile(r"/.+|[^/:\s]+(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?"),
        "modbus:HOST[:PORT] or modbus:/dev/…",
    ),
}


class HampelConfig(ConfigSection):
    """A filter of outliers (Hampel 1974): the median of the last readings, and their deviation from it."""

    readings: int = Field(default=7, ge=3, le=101)
    """Odd number of readings in the filter's window: the present reading, and the readings before it."""
    limit: float = Field(default=3.0, gt=0.0)
    """Largest deviation from the median, in standard deviations as estimated from the median absolute deviation."""
    min_deviation: float = Field(default=0.0, ge=0.0)
    """Deviation that is always accepted, in the unit of the readings. A sensor that repeats one value has a median
    absolute deviation of 0."""

    @field_validator("readings")
    @classmethod
    def _is_odd(cls, readings: int) -> int:
        if readings % 2 == 0:
            raise ValueError(f"expected an odd number of readings, such as {readings + 1}")
        return readings


class SensorConfig(ConfigEntry):
    """Configuration of a sensor. ``source`` is a kind and an address, such as ``mqtt:TOPIC``."""

    KIND: ClassVar[str] = "sensor"

    source: str
    site: str = ""
    place: Name | None = None
    """Place that the sensor shares with cameras and other sensors. Without a place, the sensor's own events form its
    incidents."""
    quantity: str
    unit: str
    rate_hz: float = Field(default=10.0, gt=0.0, le=1000.0)
    """Readings per second that the agent takes from a source that it polls. A source that is not polled sends
    readings at its own rate."""
    low: float = -1e9
    high: float = 1e9
    """Upper limit of the sensor's physical range; ``low`` is the lower limit. Readings outside of the range are
    flagged, and rules ignore flagged readings."""
    convert_to: str | None = None
    """Unit to which readings are converted before rules see them; None for no conversion. ``low`` and ``high`` are in
    ``unit``, the unit of the device."""
    max_rate: float | None = Field(default=None, gt=0.0)
    """Largest possible change per second, in the unit that rules see. A reading is dropped if its value has changed
    by more than ``max_rate`` per second since the previous reading."""
    hampel: HampelConfig | None = None
    lateness_s: PositiveSeconds = ALLOWED_LATENESS_S
    """Time in seconds after a window's end in which late readings still count. If ``lateness_s`` exceeds
    ``ALLOWED_LATENESS_S``, a window is evaluated ``ALLOWED_LATENESS_S`` after its end, and again for each reading
    that arrives later."""
    column_rows: int = Field(default=100, ge=1, le=10_000)
    max_delay_s: Seconds = 2.0
    """Maximum time in seconds that a reading waits for further readings, which are sent in the same record."""
    measure: bool = False
    """Whether the mean of each minute is written to the topic ``measures``, under the name of the sensor. Forecasts
    and the console read these minutes."""
    silent_after_s: Seconds = 0.0
    """Time in seconds without a reading after which the sensor is reported as stalled; 0 for never."""
    options: dict[str, str | int | float | bool | tuple[str, ...]] = {}
    spool: SpoolConfig = SpoolConfig()

    @property
    def full_place(self) -> str:
        """Full name of the sensor's place: ``site/place``, or the sensor's own name without a place."""
        return place_key(self.name, self.site, self.place)

    @property
    def kind(self) -> str:
        """Kind of the source: ``simulated``, ``host``, ``mqtt``, ``command``, ``serial`` or ``modbus``."""
        return self.source.partition(":")[0]

    @property
    def address(self) -> str:
        """The part of ``source`` after the kind, such as a topic, a device or a name."""
        return self.source.partition(":")[2]

    @property
    def rule_unit(self) -> str:
        """The unit of the readings as rules see them."""
        return self.convert_to or self.unit

    @property
    def parsed(self) -> ConfigSection:
        """The options of the source with default values, as an instance of the options class for the source's
        kind."""
        return _OPTIONS[self.kind].model_validate(self.options)

    @model_validator(mode="after")
    def _source_makes_sense(self) -> Self:
        if self.kind not in _OPTIONS or ":" not in self.source:
            known = ", ".join(f"{kind}:" for kind in _OPTIONS)
            raise ValueError(f"expected a source that begins with one of {known}, not {self.source!r}")
        pattern, expected = _ADDRESS[self.kind]
        if not pattern.fullmatch(self.address):
            raise ValueError(f"expected {expected} as source, not {self.source!r}")
        try:
            _ = self.parsed
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(["options", *map(str, first["loc"])])
            raise ValueError(f"expected valid {key}: {expectation(first)}, for source = {self.source!r}") from None
        if self.low > self.high:
            raise ValueError(f"expected low <= high, not low = {self.low:g} and high = {self.high:g}")
        if self.convert_to is not None:
            conversion(self.unit, self.convert_to)
        return self

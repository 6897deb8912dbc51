"""Source of Modbus registers, over TCP or a serial line (RTU)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from edge_agent.exceptions import SensorSilent, SourceUnusable
from edge_agent.sensors.source import Reading, Sink
from edge_agent.sensors.sources.polling import heed_cancellation, poll
from edge_agent.sensors.values import parse_reading
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig
from ingest.site.sensor import ModbusOptions

_PORT = 502
_CODES = {1: "illegal function", 2: "illegal address", 3: "illegal value", 4: "device failure", 6: "device busy"}
"""Exception codes and their meanings, from section 7 of the Modbus application protocol 1.1b3."""

logging.getLogger("pymodbus.logging").disabled = True  # the feed logs an outage once


class ModbusSource:
    """Connection to a Modbus device or bus.

    Only one register is read at a time. Each register is read at the rate of its sensor. If a Modbus unit does not
    answer or refuses a register, only the sensors of that unit or register count as silent.
    """

    def __init__(self, sensors: Sequence[SensorConfig], clock: Clock) -> None:
        self._sensors, self._clock, self._address = sensors, clock, sensors[0].address
        self._options = {sensor.name: cast(ModbusOptions, sensor.parsed) for sensor in sensors}
        self._client: Any = None
        self._line = asyncio.Lock()

    async def run(self, sink: Sink) -> None:
        """Read registers until cancelled.

        Raise SourceUnusable if the device cannot be reached or the connection is lost.
        """
        client = self._client = self._make()
        try:
            if not await client.connect():
                raise SourceUnusable(f"no connection to the Modbus device {self._address}")
            heed_cancellation()
            sink.opened()
            await poll(self._sensors, self._ask, sink, self._clock)
        finally:
            client.close()

    def _make(self) -> Any:
        options = self._options[self._sensors[0].name]
        # the feed reconnects with back-off, and logs it
        common = {"timeout": options.timeout_s, "retries": 0, "reconnect_delay": 0}
        if not self._address.startswith("/"):
            where = urlsplit(f"//{self._address}")
            return AsyncModbusTcpClient(where.hostname or "", port=where.port or _PORT, **common)
        try:
            return AsyncModbusSerialClient(
                self._address, baudrate=options.baud, parity=options.parity, stopbits=options.stopbits, **common
            )
        except RuntimeError as error:
            raise SourceUnusable(f"{self._address}: {error}") from None

    async def _ask(self, sensor: SensorConfig, _: int) -> Reading:
        options, client = self._options[sensor.name], self._client
        kind = client.DATATYPE[options.type.upper()]
        unit = f"{options.unit_id} at {self._address}"
        try:
            answer = await self._answer(options, kind.value[1])
            if answer.isError():
                code = answer.exception_code
                raise SensorSilent(
                    f"Modbus unit {unit} refuses the {options.table} register {options.address}:"
                    f" {_CODES.get(code, code)}"
                )
            if len(answer.registers) != kind.value[1]:
                raise SensorSilent(
                    f"Modbus unit {unit} answers with {len(answer.registers)} registers: expected {kind.value[1]}"
                )
            raw = client.convert_from_registers(answer.registers, kind, word_order=options.word_order)
        except (ModbusException, OSError) as error:
            if not client.connected:
                raise SourceUnusable(f"{self._address}: {error}") from None
            raise SensorSilent(f"Modbus unit {unit} does not answer") from None
        return parse_reading(raw * options.scale + options.offset)

    async def _answer(self, options: ModbusOptions, count: int) -> Any:
        """Read the registers of one sensor.

        Raise ModbusException if no answer arrives. On a serial line, pause for ``timeout_s`` before the error is
        raised, so that no late answer is taken for the answer to the next request. Answers on a serial line carry no
        request number. If the client did not pause, every answer after a late answer could be assigned to the wrong
        request.
        """
        client = self._client
        read = client.read_holding_registers if options.table == "holding" else client.read_input_registers
        async with self._line:
            try:
                return await read(options.address, count=count, device_id=options.unit_id)
            except ModbusException:
                if self._address.startswith("/"):
                    await asyncio.sleep(options.timeout_s)
                raise

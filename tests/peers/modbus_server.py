"""Modbus device as a process: ``python modbus_server.py tcp PORT`` or ``python modbus_server.py rtu DEVICE``.

The holding registers of unit 1 contain, from 0: 215, -5 as int16, 70000 as uint32 and 21.5 as float32. The last two
values take two words each, the more significant word first. The input registers of unit 1 have the same values. Unit
2 does not answer. The process prints ``ready`` when it listens.
"""

from __future__ import annotations

import asyncio
import struct
import sys

from pymodbus import FramerType
from pymodbus.exceptions import NoSuchIdException
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

WORDS = [215, 65531, *struct.unpack(">HH", struct.pack(">I", 70000)), *struct.unpack(">HH", struct.pack(">f", 21.5))]


async def ignore_request(*_: object) -> None:
    """Make the server ignore requests to a unit."""
    raise NoSuchIdException


async def serve(kind: str, where: str) -> None:
    data = SimData(0, values=WORDS, datatype=DataType.REGISTERS)
    device = [SimDevice(1, simdata=[data]), SimDevice(2, simdata=[data], action=ignore_request)]
    if kind == "tcp":
        server = ModbusTcpServer(device, address=("127.0.0.1", int(where)), ignore_missing_devices=True)
    else:
        server = ModbusSerialServer(
            device, framer=FramerType.RTU, port=where, baudrate=115200, ignore_missing_devices=True
        )
    await server.serve_forever(background=True)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:3]))

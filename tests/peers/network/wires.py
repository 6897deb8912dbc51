"""Serial lines without a device: one pty for a test, or two ptys connected to each other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tty
from collections.abc import Iterator


class Line:
    """Serial port at ``path``. Data written with ``say`` can be read from the path."""

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)

    def say(self, data: bytes) -> None:
        os.write(self.master, data)

    def hang_up(self) -> None:
        """Close the port, like an unplugged device."""
        for fd in (self.master, self._slave):
            with contextlib.suppress(OSError):
                os.close(fd)


@contextlib.contextmanager
def wired() -> Iterator[tuple[str, str]]:
    """Yield the paths of two connected serial ports. Needs a running event loop."""
    one, other, loop = Line(), Line(), asyncio.get_running_loop()
    for heard, said in ((one, other), (other, one)):
        loop.add_reader(heard.master, lambda heard=heard, said=said: said.say(os.read(heard.master, 4096)))
    try:
        yield one.path, other.path
    finally:
        for line in (one, other):
            loop.remove_reader(line.master)
            line.hang_up()

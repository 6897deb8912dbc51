"""Fixtures of the tests of engines and of the node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.engines.backends.tensorrt.rig import FakeRig, make_rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[FakeRig]:
    """Return a fake GPU whose plans are in a folder of the test."""
    rig = make_rig(tmp_path / "plans")
    yield rig
    rig.thread.close()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Return a stack for the objects that must be closed at the end of the test."""
    async with AsyncExitStack() as stack:
        yield stack

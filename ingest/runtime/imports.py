"""Import of large packages without those of their dependencies that this project does not use."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType


@contextlib.contextmanager
def without(*names: str, stubs: tuple[ModuleType, ...] = ()) -> Iterator[None]:
    """Make imports of some packages fail while the body of the ``with`` statement runs.

    If a module is in ``stubs``, its import returns the stub instead. A package that is already imported stays as it
    is.
    """
    wanted = {**dict.fromkeys(names), **{stub.__name__: stub for stub in stubs}}
    added = {name: stub for name, stub in wanted.items() if name.partition(".")[0] not in sys.modules}
    sys.modules.update(added)  # type: ignore[arg-type]  # Python refuses to import a module that is None here
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]

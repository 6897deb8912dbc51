"""Tests of imports without unused packages."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from ingest.runtime.imports import without


def test_a_blocked_package_cannot_be_imported_inside_the_with_block_but_can_be_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with without("this"), pytest.raises(ImportError):
        import this  # noqa: F401
    assert "this" not in sys.modules


def test_a_stub_is_imported_only_inside_the_with_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    stub = ModuleType("this")
    with without(stubs=(stub,)):
        import this

        assert this is stub
    assert "this" not in sys.modules


def test_a_package_imported_before_the_with_block_stays_importable_inside_it() -> None:
    with without("sys"):
        import sys as again

        assert again is sys

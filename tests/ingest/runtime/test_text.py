"""Tests of text files from any editor."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest import site
from ingest.exceptions import ConfigError
from ingest.runtime.text import read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_the_byte_order_mark_of_a_text_file_determines_its_encoding(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("Fußgänger\r\n猫\r\n".encode(encoding))
    assert read_text(file).splitlines() == ["Fußgänger", "猫"]


@pytest.mark.parametrize(
    "data", ["Fußgänger".encode("latin-1"), "red".encode("utf-16-le")], ids=["latin-1", "utf-16"]
)
def test_text_without_a_byte_order_mark_must_be_utf8(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "labels.txt").write_bytes(data)
    with pytest.raises(ConfigError, match="UTF-8, or in UTF-16 or UTF-32 with a byte order mark"):
        read_text(tmp_path / "labels.txt")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_site_file_may_have_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "site.toml"
    file.write_bytes('name = "north"'.encode(encoding))
    assert site.load(file).name == "north"

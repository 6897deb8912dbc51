"""Tests of private files and folders, whatever the umask is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from edge_agent.lastgood import LastGood, SavedConfiguration
from edge_agent.spool.space import Reserve
from edge_agent.spool.store import SpoolStore
from ingest.runtime.clock import ManualClock
from ingest.runtime.files import (
    GROUP_FOLDER,
    PRIVATE_FILE,
    make_folder,
    open_private,
    replace_file,
    restrict_umask,
    write_new,
    write_private,
)
from stream.evidence.folder import FolderStore


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """Set a umask that gives all permissions to all users, as some containers do."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(root: Path) -> dict[str, str]:
    """Return the modes of all files and folders below a folder."""
    return {str(path.relative_to(root)): oct(path.stat().st_mode & 0o777) for path in sorted(root.rglob("*"))}


def test_only_the_user_of_an_agent_can_read_its_files(tmp_path: Path) -> None:
    data = tmp_path / "var" / "data"
    store = SpoolStore(data / "spool.db", "agent", clock=ManualClock())
    LastGood(data / "config.json").save(SavedConfiguration())
    assert Reserve(data / "spool.reserve", 4096).fill()
    found = modes(tmp_path)
    store.close()
    assert {found.pop("var"), found.pop("var/data")} == {"0o700"}
    assert {"var/data/spool.db", "var/data/config.json", "var/data/spool.reserve"} <= found.keys()
    assert set(found.values()) == {"0o600"}


def test_an_agent_makes_the_files_of_an_older_version_private(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(0o755)
    (data / "spool.db").touch(0o644)
    (data / "config.new").touch(0o644)
    SpoolStore(data / "spool.db", "agent", clock=ManualClock()).close()
    LastGood(data / "config.json").save(SavedConfiguration())
    assert oct(data.stat().st_mode & 0o777) == "0o700"
    assert {mode for name, mode in modes(data).items() if name in ("spool.db", "config.json")} == {"0o600"}


def test_only_user_and_group_can_read_evidence_files(tmp_path: Path) -> None:
    FolderStore(tmp_path / "evidence").put("gate/2026/a.jpg", b"picture", "image/jpeg")
    found = modes(tmp_path)
    assert found.pop("evidence/gate/2026/a.jpg") == "0o640"
    assert found == {"evidence": "0o750", "evidence/gate": "0o750", "evidence/gate/2026": "0o750"}


def test_other_users_cannot_read_files_created_by_a_command(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["config", "check", str(tmp_path / "none.toml")]).exit_code == 2
    (tmp_path / "any").touch()
    assert modes(tmp_path) == {"any": "0o640"}
    os.umask(0o077)
    restrict_umask()
    assert os.umask(0) == 0o077  # a stricter one stays


def test_a_shared_folder_keeps_its_permissions(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    make_folder(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777
    (tmp_path / "own").mkdir(0o777)
    make_folder(tmp_path / "own", GROUP_FOLDER)
    assert modes(tmp_path) == {"own": "0o750"}


def test_private_files_have_their_permissions_from_their_creation_on(tmp_path: Path) -> None:
    write_private(tmp_path / "a", b"1")
    write_new(tmp_path / "b", b"2", 0o644)
    os.close(open_private(tmp_path / "c"))
    assert modes(tmp_path) == {"a": "0o600", "b": "0o644", "c": "0o600"}
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "b", b"3")
    assert (tmp_path / "b").read_bytes() == b"2"


def test_a_file_is_replaced_with_the_given_permissions(tmp_path: Path) -> None:
    path = tmp_path / "promoted"
    path.write_bytes(b"1\n")
    replace_file(path, b"2\n")
    assert path.read_bytes() == b"2\n"
    replace_file(tmp_path / "key", b"secret", PRIVATE_FILE)
    assert modes(tmp_path) == {"promoted": "0o640", "key": "0o600"}


def test_a_file_that_cannot_be_replaced_keeps_its_content_and_leaves_no_incomplete_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "promoted"
    path.write_bytes(b"1\n")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"2\n")
    assert path.read_bytes() == b"1\n"
    assert [one.name for one in tmp_path.iterdir()] == ["promoted"]


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "promoted", list[bool]()
    plain = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(path.exists())
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    replace_file(path, b"1\n")
    assert synced == [False, True]  # first the file, then the folder with its new name

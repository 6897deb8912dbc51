"""Tests of image folders: each new file is read once, in order, also after a restart."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.exceptions import FrameUnusable, SourceStalled, SourceUnusable
from edge_agent.sources.images import SETTLE_S, ImagesSource, ListedFile, NewFiles
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.source import CapturedFrame
from ingest.runtime.clock import ManualClock


def jpeg(level: int) -> bytes:
    return cv2.imencode(".jpg", np.full((48, 64, 3), level, np.uint8))[1].tobytes()


def make(
    folder: Path,
    clock: ManualClock,
    position: Path | None = None,
    *,
    existing: bool = False,
    recursive: bool = False,
    on_notice: Callable[[str], None] = lambda _: None,
) -> ImagesSource:
    pace = FramePacer(10, clock, wait=clock.advance)
    return ImagesSource(
        folder, 10, clock, position=position, existing=existing, recursive=recursive, on_notice=on_notice, pace=pace
    )


def read_all(source: ImagesSource, tries: int = 30) -> list[CapturedFrame]:
    return [captured for _ in range(tries) if (captured := source.read())]


def levels(found: list[CapturedFrame]) -> list[int]:
    return [round(float(c.image.mean())) for c in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_an_image_folder_skips_existing_files_at_the_first_start_and_reads_new_files(
    folder: Path, clock: ManualClock
) -> None:
    (folder / "old.jpg").write_bytes(jpeg(10))
    source = make(folder, clock)
    source.open()
    assert read_all(source) == []
    for name, level in (("b.jpg", 50), ("a.JPEG", 90), ("notes.txt", 0), (".c.jpg.part", 0), (".d.jpg", 0)):
        (folder / name).write_bytes(jpeg(level))
    assert sorted(levels(read_all(source))) == [50, 90]
    assert read_all(source) == []


def test_an_image_file_is_not_read_while_it_is_being_written(folder: Path, clock: ManualClock) -> None:
    source, data = make(folder, clock), jpeg(120)
    source.open()
    with (folder / "slow.jpg").open("wb") as file:
        for start in range(0, len(data), len(data) // 4):
            file.write(data[start : start + len(data) // 4])
            file.flush()
            assert source.read() is None
            clock.advance(SETTLE_S * 0.4)
            assert source.read() is None
    assert levels(read_all(source)) == [120]


def test_image_files_that_arrive_during_a_downtime_are_read_after_the_restart(
    folder: Path, clock: ManualClock, tmp_path: Path
) -> None:
    position = tmp_path / "state" / "a.json"
    source = make(folder, clock, position)
    source.open()
    (folder / "1.jpg").write_bytes(jpeg(50))
    assert levels(read_all(source)) == [50]
    source.close()
    (folder / "2.jpg").write_bytes(jpeg(100))  # this file arrives while no capture runs
    again = make(folder, clock, position)
    again.open()
    assert levels(read_all(again)) == [100]


def test_the_read_position_of_an_image_folder_is_saved_at_the_first_start(
    folder: Path, clock: ManualClock, tmp_path: Path
) -> None:
    make(folder, clock, tmp_path / "position").open()
    (folder / "1.jpg").write_bytes(jpeg(50))
    again = make(folder, clock, tmp_path / "position")
    again.open()
    assert levels(read_all(again)) == [50]


def test_an_image_file_is_read_again_if_the_capture_was_killed_before_the_next_file(
    folder: Path, clock: ManualClock, tmp_path: Path
) -> None:
    source = make(folder, clock, tmp_path / "position")
    source.open()
    (folder / "1.jpg").write_bytes(jpeg(50))
    while source.read() is None:
        pass
    killed_and_started = make(folder, clock, tmp_path / "position")
    killed_and_started.open()
    assert levels(read_all(killed_and_started)) == [50]


def test_deleted_image_files_are_skipped_and_overwritten_image_files_are_read_again(
    folder: Path, clock: ManualClock
) -> None:
    source = make(folder, clock)
    source.open()
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (folder / name).write_bytes(jpeg(50))
    while (first := source.read()) is None:
        pass
    (folder / "2.jpg").unlink()
    (folder / "1.jpg").write_bytes(jpeg(200))
    assert [*levels([first]), *levels(read_all(source))] == [50, 50, 200]


def test_an_image_file_with_an_old_date_is_read_after_it_is_moved_into_the_folder(
    folder: Path, clock: ManualClock, tmp_path: Path
) -> None:
    source = make(folder, clock)
    source.open()
    (folder / "1.jpg").write_bytes(jpeg(50))
    assert levels(read_all(source)) == [50]
    elsewhere = tmp_path / "0.jpg"
    elsewhere.write_bytes(jpeg(150))
    os.utime(elsewhere, (1, 1))
    elsewhere.rename(folder / "0.jpg")
    assert levels(read_all(source)) == [150]


@pytest.mark.parametrize("data", [b"", b"no picture", jpeg(50)[:-200]], ids=["empty", "text", "cut"])
def test_an_undecodable_image_file_gives_one_unusable_frame(data: bytes, folder: Path, clock: ManualClock) -> None:
    source = make(folder, clock)
    source.open()
    (folder / "1.jpg").write_bytes(data)
    (captured,) = read_all(source)
    for look in (lambda: captured.image, captured.luma):
        with pytest.raises(FrameUnusable):
            look()
    (folder / "2.jpg").write_bytes(jpeg(60))
    assert levels(read_all(source)) == [60]


def test_an_image_folder_is_stalled_if_removed_while_open_and_unusable_if_missing_at_the_start(
    folder: Path, clock: ManualClock
) -> None:
    source = make(folder, clock)
    source.open()
    folder.rmdir()
    with pytest.raises(SourceStalled, match="No such file"):
        source.read()
    with pytest.raises(SourceUnusable, match="expected a folder"):
        source.open()


@pytest.mark.parametrize("left", [b"", b"[17", b"\xff\xfe", b"{}", b"[null, 1]", b"7"])
def test_a_damaged_read_position_of_an_image_folder_is_reported_and_new_files_are_still_read(
    left: bytes, folder: Path, clock: ManualClock, tmp_path: Path
) -> None:
    position = tmp_path / "position"
    notices: list[str] = []
    position.write_bytes(left)
    (folder / "old.jpg").write_bytes(jpeg(10))
    source = make(folder, clock, position, on_notice=notices.append)
    source.open()
    assert read_all(source) == []
    (folder / "new.jpg").write_bytes(jpeg(50))
    assert levels(read_all(source)) == [50]
    assert len(notices) == 1
    assert "the saved position in the image folder is lost" in notices[0]


def test_a_failure_to_save_the_read_position_is_reported_once_and_loses_no_picture(
    folder: Path, clock: ManualClock, tmp_path: Path
) -> None:
    (tmp_path / "state" / "a.new").mkdir(parents=True)  # a folder has the name of the temporary file
    notices: list[str] = []
    source = make(folder, clock, tmp_path / "state" / "a.json", on_notice=notices.append)
    source.open()
    for name, level in (("1.jpg", 50), ("2.jpg", 90)):
        (folder / name).write_bytes(jpeg(level))
    assert sorted(levels(read_all(source))) == [50, 90]
    source.close()
    assert notices == ["the position in the image folder cannot be saved: Is a directory"]
    (tmp_path / "state" / "a.new").rmdir()
    source.open()
    assert (tmp_path / "state" / "a.json").is_file()


def test_image_folder_entries_that_are_not_regular_files_are_skipped(folder: Path, clock: ManualClock) -> None:
    source = make(folder, clock)
    source.open()
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "nowhere.jpg").symlink_to(folder / "none")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.jpg").symlink_to(folder.parent / "elsewhere.jpg")
    (folder.parent / "elsewhere.jpg").write_bytes(jpeg(50))
    assert levels(read_all(source)) == [50]


def test_an_image_file_that_arrives_after_the_clock_was_set_back_is_read() -> None:
    before = ListedFile(9_000, "old", 10, 9_000)
    new = NewFiles(1.0, [before])
    later = ListedFile(2_000, "new", 10, 2_000)
    assert [new.look([before, later], now_s) for now_s in (0.0, 1.0, 2.0)] == [[], [later], []]


def test_sub_folders_of_an_image_folder_are_read_with_the_option_recursive(
    folder: Path, clock: ManualClock, tmp_path: Path
) -> None:
    position = tmp_path / "position"
    source = make(folder, clock, position, recursive=True)
    source.open()
    day, hidden = folder / "2026-11-29" / "12", folder / ".trash"
    for made in (day, hidden, folder / "empty"):
        made.mkdir(parents=True)
        (made / "up").symlink_to(folder)
    (hidden / "1.jpg").write_bytes(jpeg(10))
    (day / "1.jpg").write_bytes(jpeg(50))
    assert levels(read_all(source)) == [50]
    source.close()
    (day / "2.jpg").write_bytes(jpeg(90))
    restarted = make(folder, clock, position, recursive=True)
    restarted.open()
    assert levels(read_all(restarted)) == [90]


def test_without_the_recursive_option_one_notice_says_that_pictures_in_sub_folders_are_not_read(
    folder: Path, clock: ManualClock
) -> None:
    notices: list[str] = []
    source = make(folder, clock, on_notice=notices.append)
    source.open()
    assert read_all(source) == []
    (folder / "2026-11-29").mkdir()
    (folder / "2026-11-29" / "1.jpg").write_bytes(jpeg(50))
    clock.advance(60)
    assert read_all(source) == []
    clock.advance(60)
    assert read_all(source) == []
    (notice,) = notices
    assert "such as 2026-11-29/1.jpg: to read them, set stream.recursive = true" in notice


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=30))
def test_each_version_of_each_image_file_is_returned_once_and_in_order(writes: list[tuple[int, int]]) -> None:
    """The test writes one file after the other, and lists the folder after each write and at the end."""
    new, there, given = NewFiles(1.0), dict[str, ListedFile](), list[ListedFile]()
    for moment, (name, wait) in enumerate(writes, start=1):
        there[str(name)] = ListedFile(moment, str(name), 10, moment)
        for step in range(wait):
            given += new.look(there.values(), moment * 10 + step / 2)
    for step in (0, 2):
        given += new.look(there.values(), 10_000 + step)
    assert len({(file.name, file.modified_ns) for file in given}) == len(given)
    assert {there[file.name] for file in given} <= set(there.values())
    assert {(f.name, f.modified_ns) for f in there.values()} <= {(f.name, f.modified_ns) for f in given}
    assert [f.changed_ns for f in given] == sorted(f.changed_ns for f in given)

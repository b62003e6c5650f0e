"""Torn tails, recovery and rotation."""

import shutil
from pathlib import Path

import pytest

from pdp.audit import verify_segments
from pdp.audit.segments import (
    check_origin,
    list_segments,
    read_frames,
    read_header,
    segment_path,
)
from tests.kit import soak
from tests.kit.audit.logs import ORIGIN, frames_of, ids_of, write_log


def frame_ends(path: Path) -> list[int]:
    _, start = read_header(path)
    return [item.after.byte_offset for item in read_frames(path, start)]


@pytest.mark.soak
def test_a_tail_torn_at_any_byte_is_cut_and_nothing_before_it_is_lost(tmp_path: Path) -> None:
    """F7, F11: after a crash, a prefix of the written bytes is left."""
    ids = write_log(tmp_path / "whole", 1, 1)
    path = segment_path(tmp_path / "whole" / ORIGIN, 1)
    content, (_, start), ends = path.read_bytes(), read_header(path), frame_ends(path)
    later: list[str] = []
    for size in range(start.byte_offset, len(content) + 1, soak.count(1, sample=17)):
        directory = tmp_path / "torn"
        (directory / ORIGIN).mkdir(parents=True)
        segment_path(directory / ORIGIN, 1).write_bytes(content[:size])
        later = write_log(directory, 1)
        kept = sum(end <= size for end in ends)
        assert ids_of(directory / ORIGIN) == ids[:kept] + later, size
        assert verify_segments(directory).whole, size
        shutil.rmtree(directory)


@pytest.mark.parametrize("tail", [bytes(1), bytes(4096), b"\xff" * 100, b"\0\0\1\0" + bytes(300)])
def test_a_tail_of_other_bytes_is_cut(tmp_path: Path, tail: bytes) -> None:
    """F11: a file system may leave zeros or old blocks after the synced bytes."""
    ids = write_log(tmp_path, 3)
    with segment_path(tmp_path / ORIGIN, 1).open("ab") as file:
        file.write(tail)
    ids += write_log(tmp_path, 1)
    assert ids_of(tmp_path / ORIGIN) == ids
    assert verify_segments(tmp_path).whole


def test_a_start_never_appends_to_what_another_process_wrote(tmp_path: Path) -> None:
    ids = write_log(tmp_path, 1) + write_log(tmp_path, 1) + write_log(tmp_path, 1)
    assert [sequence for sequence, _ in list_segments(tmp_path / ORIGIN)] == [1, 2, 3]
    assert ids_of(tmp_path / ORIGIN) == ids
    assert [frame.position for frame in frames_of(tmp_path / ORIGIN)] == [0, 1, 2]


def test_segments_rotate_by_size_and_the_chain_runs_on(tmp_path: Path) -> None:
    ids = write_log(tmp_path, *[1] * 50, segment_bytes=4096)
    paths = [path for _, path in list_segments(tmp_path / ORIGIN)]
    assert len(paths) > 5
    assert all(path.stat().st_size < 4096 + 1024 for path in paths)
    assert ids_of(tmp_path / ORIGIN) == ids
    assert verify_segments(tmp_path).whole


def test_a_segment_that_was_not_finished_is_none(tmp_path: Path) -> None:
    """F7: killed between creating a segment and giving it its name."""
    ids = write_log(tmp_path, 1)
    left = tmp_path / ORIGIN / "0000000002.new"
    left.write_bytes(b"PDP")
    ids += write_log(tmp_path, 1)
    assert ids_of(tmp_path / ORIGIN) == ids
    assert not left.exists()


def test_a_damaged_header_is_kept_and_a_new_log_begins_behind_it(tmp_path: Path) -> None:
    """Yeti2022, one flipped bit and the log is dead."""
    write_log(tmp_path, 1)
    path = segment_path(tmp_path / ORIGIN, 1)
    damaged = bytearray(path.read_bytes())
    damaged[50] ^= 1
    path.write_bytes(damaged)
    write_log(tmp_path, 1)
    assert path.read_bytes() == damaged
    header, _ = read_header(segment_path(tmp_path / ORIGIN, 2))
    assert (header.position, header.previous_bytes) == (0, 0)
    assert [problem.path for problem in verify_segments(tmp_path).problems] == [path]


@pytest.mark.parametrize("origin", ["", ".", "..", "a/b", "a\0", "a\n", "é", "-a", "a" * 129])
def test_an_origin_that_cannot_name_a_directory_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        check_origin(origin)

"""A file: complete lines, rotation by size, nothing torn after a crash or a full disk."""

import json
import resource
from pathlib import Path

import pytest

from pdp.errors import DeliveryFailed
from pdp.siem.destinations.file import FileDestination
from pdp.siem.formats import FORMATS
from tests.kit.siem.records import record

LINE = FORMATS["ocsf"]["decision"]


def destination(path: Path, rotate_bytes: int = 1 << 20, files_max: int = 3) -> FileDestination:
    return FileDestination(path, LINE, rotate_bytes=rotate_bytes, files_max=files_max)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["metadata"]["uid"] for line in path.read_text().splitlines()]


def test_records_are_appended_as_lines_that_others_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = destination(path)
    file.deliver([record(decision_id="1"), record(decision_id="2")])
    file.deliver([record(decision_id="3")])
    assert ids(path) == ["1", "2", "3"]
    assert path.stat().st_mode & 0o007 == 0


def test_a_full_file_is_rotated_and_the_oldest_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = destination(path, rotate_bytes=1)
    for number in range(5):
        file.deliver([record(decision_id=str(number))])
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "events.jsonl",
        "events.jsonl.1",
        "events.jsonl.2",
    ]
    assert ids(path) == ["4"]
    assert ids(tmp_path / "events.jsonl.2") == ["2"]


def test_with_one_file_a_full_one_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = destination(path, rotate_bytes=1, files_max=1)
    file.deliver([record(decision_id="1")])
    file.deliver([record(decision_id="2")])
    assert [each.name for each in tmp_path.iterdir()] == ["events.jsonl"]
    assert ids(path) == ["2"]


def test_a_line_that_a_killed_process_tore_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    destination(path).deliver([record(decision_id="1")])
    with path.open("a") as torn:
        torn.write(LINE(record(decision_id="2"), 1024)[:100_000] * 300)  # longer than one look back
    destination(path).deliver([record(decision_id="2")])
    assert ids(path) == ["1", "2"]


def test_a_file_that_another_program_renamed_is_created_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = destination(path)
    file.deliver([record(decision_id="1")])
    path.rename(tmp_path / "moved")
    file.deliver([record(decision_id="2")])
    assert (ids(tmp_path / "moved"), ids(path)) == (["1"], ["2"])


def test_a_write_that_fails_in_the_middle_leaves_no_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = destination(path)
    file.deliver([record(decision_id="1")])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))
        with pytest.raises(DeliveryFailed):
            file.deliver([record(decision_id="2")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file.deliver([record(decision_id="2")])
    assert ids(path) == ["1", "2"]


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("theirs\n")
    (tmp_path / "events.jsonl").symlink_to(target)
    with pytest.raises(DeliveryFailed):
        destination(tmp_path / "events.jsonl").deliver([record()])
    assert target.read_text() == "theirs\n"

"""The offline check names the first bad record, whatever it is fed."""

import random
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from pdp.audit import verify_segments
from pdp.audit.segments import LENGTH, read_frames, read_header, segment_path
from tests.kit import soak
from tests.kit.audit.logs import ORIGIN, write_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The path of a segment of 40 records, with a successor that names its end."""
    write_log(tmp_path, 20, 20)
    write_log(tmp_path, 1)
    assert verify_segments(tmp_path).records == 41
    assert verify_segments(tmp_path).whole
    return segment_path(tmp_path / ORIGIN, 1)


def split(path: Path) -> tuple[bytes, list[bytes]]:
    content = path.read_bytes()
    _, start = read_header(path)
    edges = [start.byte_offset, *(item.after.byte_offset for item in read_frames(path, start))]
    frames = [content[a:b] for a, b in pairwise(edges)]
    return content[: start.byte_offset], frames


def first_problem(path: Path) -> int | None:
    report = verify_segments(path.parent)
    assert not report.whole
    assert report.problems[0].path == path
    return report.problems[0].position


@pytest.mark.soak
def test_each_flipped_bit_is_found_at_its_record(log: Path) -> None:
    """Yeti2022, a single flipped bit."""
    header, frames = split(log)
    content = header + b"".join(frames)
    starts = [len(header) + sum(map(len, frames[:i])) for i in range(len(frames))]
    for bit in random.Random(1).sample(range(len(content) * 8), soak.count(800, sample=100)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        log.write_bytes(damaged)
        want = None
        if bit // 8 >= len(header):
            want = max(i for i, start in enumerate(starts) if start <= bit // 8)
        assert first_problem(log) == want, bit


@pytest.mark.soak
def test_each_flipped_bit_of_one_frame_is_found(log: Path) -> None:
    """The last frame: no frame follows it."""
    header, frames = split(log)
    last = frames[-1]
    for bit in [*range(37 * 8), *range(37 * 8, len(last) * 8, soak.count(11, sample=53))]:
        damaged = bytearray(last)
        damaged[bit // 8] ^= 1 << bit % 8
        log.write_bytes(header + b"".join(frames[:-1]) + damaged)
        assert first_problem(log) == len(frames) - 1, bit


def test_dropped_duplicated_and_swapped_records_are_found(log: Path) -> None:
    """Oak2022, rows lost on the way; TrustAsia2021, rows that differ."""
    header, frames = split(log)
    for i in range(len(frames) - 1):
        log.write_bytes(header + b"".join(frames[:i] + frames[i + 1 :]))
        assert first_problem(log) == i
        log.write_bytes(header + b"".join(frames[: i + 1] + frames[i:]))
        assert first_problem(log) == i + 1
        log.write_bytes(
            header + b"".join([*frames[:i], frames[i + 1], frames[i], *frames[i + 2 :]])
        )
        assert first_problem(log) == i
    log.write_bytes(header + b"".join(frames[:-1]))
    assert first_problem(log) == len(frames) - 1


def test_a_missing_segment_is_found(tmp_path: Path) -> None:
    write_log(tmp_path, *[1] * 30, segment_bytes=4096)
    segment_path(tmp_path / ORIGIN, 2).unlink()
    assert [p.what for p in verify_segments(tmp_path).problems] == ["segment 2 is missing"]


def test_a_segment_put_in_anothers_place_is_found(tmp_path: Path) -> None:
    """Restore of an old backup."""
    write_log(tmp_path, *[1] * 30, segment_bytes=4096)
    shutil.copyfile(segment_path(tmp_path / ORIGIN, 1), segment_path(tmp_path / ORIGIN, 2))
    assert not verify_segments(tmp_path).whole


GARBAGE = {
    "nothing": b"",
    "one zero": b"\0",
    "zeros": bytes(1 << 20),
    "ones": b"\xff" * (1 << 20),
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "gzip": b"\x1f\x8b\x08" + bytes(100),
    "only magic": b"PDPAUD1\n",
    "huge header": b"PDPAUD1\n" + b"\xff\xff\xff\xff" + bytes(1000),
    "empty header": b"PDPAUD1\n" + bytes(36),
    "deep header": b"PDPAUD1\n" + LENGTH.pack(900_001) + bytes(32) + b"H" + b"[" * 900_000,
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_an_error_and_never_a_crash(tmp_path: Path, content: bytes) -> None:
    """Rekor CVE-2026-23831, CVE-2026-33199 (panics on empty entries)."""
    path = segment_path(tmp_path / ORIGIN, 1)
    path.parent.mkdir()
    path.write_bytes(content)
    assert first_problem(path) is None


@pytest.mark.parametrize("length", [0, 1, 2**20 + 1, 2**20 + 2, 2**31, 2**32 - 1])
def test_a_false_length_is_an_error(log: Path, length: int) -> None:
    """CVE-2026-48702 (a small entry that asks for much memory)."""
    header, frames = split(log)
    log.write_bytes(header + LENGTH.pack(length) + b"".join(frames)[4:])
    assert first_problem(log) == 0


def test_random_bytes_behind_a_good_header_are_an_error(log: Path) -> None:
    header, _ = split(log)
    chance = random.Random(2)
    for _ in range(200):
        log.write_bytes(header + chance.randbytes(chance.randrange(1, 300)))
        assert first_problem(log) == 0


def test_a_segment_that_is_large_needs_little_memory(tmp_path: Path) -> None:
    """Never more than 64 MB, here for 100 MB of frames as long as they may be."""
    write_log(tmp_path, 1)
    path = segment_path(tmp_path / ORIGIN, 1)
    frame = LENGTH.pack(2**20 + 1) + bytes(32) + b"R" + bytes(2**20)
    with path.open("ab") as file:
        for _ in range(100):
            file.write(frame)
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from pdp.audit import verify_segments\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "report = verify_segments(Path(sys.argv[1]))\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(report.problems[0].position, after - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    position, grown = map(int, done.stdout.split())
    assert position == 1
    assert grown * (1024 if sys.platform != "darwin" else 1) < 64 << 20

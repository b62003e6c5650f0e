"""The operating system fails or kills a process that records: strace does it.

A run is a real process that writes real segments; strace kills it, fails its system calls or
makes them hang. Needs strace and the right to trace a process of one's own.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

from pdp.audit import Shipper, SqlDestination, verify_segments
from pdp.audit.segments import list_segments, segment_path
from pdp.database.engine import open_engine
from tests.kit import soak
from tests.kit.audit.logs import ORIGIN, gaps_of, ids_of, occurrences_of, write_log
from tests.kit.audit.shipped import shipped_ids, shipped_occurrences
from tests.kit.audit.straced import Runner, count_calls

CALLS = (
    "write,writev,fdatasync,fsync,openat,close,rename,ftruncate,mkdir,flock,unlink,"
    "read,lseek,newfstatat,getdents64"
)


def prepare(directory: Path) -> list[str]:
    """A log that another process left with a torn tail, and its ids."""
    ids = write_log(directory, 1, 1)
    with segment_path(directory / ORIGIN, 1).open("ab") as file:
        file.write(b"\0\0\1\0torn")
    return ids


@pytest.mark.soak
def test_kill_at_every_system_call_loses_nothing_that_was_acknowledged(
    tmp_path: Path, sqlite_url: str, runner: Runner
) -> None:
    """F7: Tessera's method. Each file system call of the writer, each occurrence, from the
    recovery of a torn log over rotation to the last close."""
    prepare(tmp_path / "count")
    whole = runner.run(tmp_path / "count", f"trace={CALLS}", records=7)
    assert whole.stopped
    assert len(whole.acked) == 7
    calls = count_calls(whole.trace)
    assert calls["fdatasync"] == 7
    assert calls["rename"] >= 1
    engine = open_engine(sqlite_url)
    killed, recovered, counted = 0, [], False
    for name, occurrences in sorted(calls.items()):
        # The last is the one at the end of the log, which differs from those before.
        for occurrence in range(occurrences, 0, -soak.count(1, sample=9)):
            where = f"{name} {occurrence}"
            directory = tmp_path / f"{name}-{occurrence}"
            before = prepare(directory)
            expressions = [f"inject={name}:signal=SIGKILL:when={occurrence}"]
            if name == "writev":
                # The process says what was acknowledged. Killed then, the writer being slow, what
                # was acknowledged too early is missing.
                expressions.append("inject=write,fdatasync:delay_enter=10000")
            run = runner.run(directory, f"trace={name},write,fdatasync", *expressions, records=7)
            assert run.killed or run.stopped, where
            killed += run.killed
            write_log(directory)  # recovers
            ids = ids_of(directory / ORIGIN)
            assert len(set(ids)) == len(ids), where
            occurred = occurrences_of(directory / ORIGIN)
            assert Counter(before + run.acked) <= occurred, where
            assert occurred.total() <= len(before) + len(run.acked) + 1, where
            counted |= occurred.total() > len(ids)
            assert verify_segments(directory).whole, where
            Shipper(directory, SqlDestination(engine)).ship()
            assert shipped_occurrences(engine, ids) == occurred, where
            assert list_segments(directory / ORIGIN) == [], where
            recovered += ids
    assert shipped_ids(engine) == sorted(recovered)
    assert counted
    assert killed >= soak.count(40, sample=6)  # else the runs did not test what they say
    engine.dispose()


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT"])
@pytest.mark.parametrize("call", ["fdatasync", "write"])
def test_a_failed_sync_or_write_is_not_believed_and_the_next_record_is_safe(
    tmp_path: Path, runner: Runner, call: str, error: str
) -> None:
    """F9: one failure. No acknowledgement between it and the new segment."""
    run = runner.run(tmp_path, f"trace={call}", f"inject={call}:error={error}:when=3", records=6)
    assert [outcome.split()[0] for outcome in run.outcomes] == ["ack"] * 2 + ["refused"] + [
        "ack"
    ] * 3
    assert set(run.acked) <= set(ids_of(tmp_path / ORIGIN))
    assert not set(run.refused) & set(ids_of(tmp_path / ORIGIN))
    assert verify_segments(tmp_path).whole


def test_no_sync_is_asked_for_again_after_it_failed(tmp_path: Path, runner: Runner) -> None:
    """F9: a second fsync of the same file may succeed though the pages are lost."""
    run = runner.run(
        tmp_path,
        "trace=fdatasync,fsync,close,ftruncate",
        "inject=fdatasync:error=EIO:when=2",
        records=4,
    )
    lines = run.trace.splitlines()
    failed = next(i for i, line in enumerate(lines) if "EIO" in line)
    descriptor = re.search(r"fdatasync\((\d+)", lines[failed]).group(1)
    behind = [line for line in lines[failed + 1 :] if re.search(rf"\w+\({descriptor}[,)]", line)]
    assert [re.search(r" (\w+)\(", line).group(1) for line in behind[:2]] == ["ftruncate", "close"]
    assert run.outcomes[1] == "refused ready"
    assert len(list_segments(tmp_path / ORIGIN)) >= 2
    assert run.refused[0] not in ids_of(tmp_path / ORIGIN)


def test_while_no_segment_can_be_made_nothing_is_acknowledged(
    tmp_path: Path, runner: Runner
) -> None:
    """F8, F9: every sync fails for a while; within a second after it works it is used again."""
    run = runner.run(
        tmp_path,
        "trace=fsync",
        "inject=fsync:error=ENOSPC:when=4..8",  # the first three are those of the start
        records=20,
        pause=0.1,
    )
    first = run.outcomes.index("refused not-ready")
    last = len(run.outcomes) - 1 - run.outcomes[::-1].index("refused not-ready")
    assert 0.1 * (last - first) < 1.0
    assert run.outcomes[-1] == "ack ready"
    assert set(run.acked) <= set(ids_of(tmp_path / ORIGIN))
    assert not set(run.refused) & set(ids_of(tmp_path / ORIGIN))
    assert verify_segments(tmp_path).whole


def test_a_sync_that_hangs_refuses_in_time(tmp_path: Path, runner: Runner) -> None:
    """F10: no answer after 250 ms. Refused records may be in the log, acknowledged ones are."""
    run = runner.run(
        tmp_path,
        "trace=fdatasync",
        "inject=fdatasync:delay_enter=1500000:when=3",
        records=8,
        pause=0.1,
    )
    assert run.outcomes[2].startswith("refused")
    assert run.outcomes[-1] == "ack ready"
    assert all(0.2 <= s < 1.0 for s, o in zip(run.seconds, run.outcomes, strict=True) if "ref" in o)
    assert set(run.acked) <= set(ids_of(tmp_path / ORIGIN))
    assert gaps_of(tmp_path / ORIGIN) == []


def test_each_byte_was_synced_before_it_was_acknowledged(tmp_path: Path, runner: Runner) -> None:
    """F11: power loss. The trace shows for each record: write, fdatasync of the same file, and
    only then the acknowledgement; and for each segment: sync, rename, sync of the directory."""
    run = runner.run(tmp_path, "trace=write,writev,fdatasync,fsync,rename", records=9)
    assert run.stopped
    unsynced: set[str] = set()
    unnamed = False
    acknowledged = 0
    for line in run.trace.splitlines():
        call = re.search(r"^\d+ +(\w+)\((.*)", line)
        if call is None:
            continue
        name, arguments = call.groups()
        descriptor = re.match(r"\d*", arguments).group()
        if name == "writev" and '"ack' in arguments:
            assert not unsynced
            assert not unnamed
            acknowledged += 1
        elif name == "write":
            unsynced.add(descriptor)
        elif name in ("fdatasync", "fsync"):
            unnamed = unnamed and descriptor in unsynced  # else it is the directory's
            unsynced.discard(descriptor)
        elif name == "rename":
            assert not unsynced
            unnamed = True
    assert acknowledged == 9

"""Audit logs on disk: written for a test, and read back."""

from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pdp.audit import DecisionRecord, Recorder, decode
from pdp.audit.counts import count_of
from pdp.audit.segments import (
    KIND_GAP,
    KIND_RECORD,
    Damage,
    Frame,
    list_segments,
    read_frames,
    read_header,
    valid_bytes,
)
from tests.kit.audit.records import decision_record
from tests.kit.waiting import run

ORIGIN = "one"


def write_log(
    directory: Path, *batches: int, segment_bytes: int = 16 << 20, **changes: Any
) -> list[str]:
    """Records batches of so many denials under ORIGIN, with the fields that `changes` names; the
    ids in order."""
    recorder = Recorder(directory, ORIGIN, segment_bytes=segment_bytes)
    recorder.start()
    ids: list[str] = []
    # How long a denial may wait for a busy disk is not what these logs are for.
    with patch("pdp.audit.recorder.WAIT_SECONDS_MAX", 30):
        for size in batches:
            records = [decision_record(**changes) for _ in range(size)]
            run(recorder.record(records))
            ids += [record.decision_id for record in records]
    recorder.stop()
    return ids


def frames_of(directory: Path) -> list[Frame]:
    """Everything that is part of the log of one origin; fails on damage within."""
    frames: list[Frame] = []
    paths = [path for _, path in list_segments(directory)]
    for path, after in zip(paths, [*paths[1:], None], strict=True):
        header, start = read_header(path)
        end = valid_bytes(header, after)
        for item in read_frames(path, start, end):
            if isinstance(item, Damage):
                assert end is None, item  # only a torn tail
            else:
                frames.append(item)
    return frames


def records_of(directory: Path) -> list[DecisionRecord]:
    return [decode(frame.payload) for frame in frames_of(directory) if frame.kind == KIND_RECORD]


def ids_of(directory: Path) -> list[str]:
    return [record.decision_id for record in records_of(directory)]


def gaps_of(directory: Path) -> list[bytes]:
    payloads = [frame.payload for frame in frames_of(directory) if frame.kind == KIND_GAP]
    return [payload for payload in payloads if count_of(payload) is None]


def occurrences_of(directory: Path) -> Counter[str]:
    """How many decisions the log counts for each id."""
    found = Counter(ids_of(directory))
    for frame in frames_of(directory):
        count = count_of(frame.payload) if frame.kind == KIND_GAP else None
        if count is not None:
            found[count.decision_id] = count.occurrences
    return found

"""Segment files: the log of one recorder, in order.

    segment = magic, header frame, frame...
    frame   = length: u32 big-endian | digest: 32 bytes | kind: 1 byte | payload
    kind    = R: a record | G: how many records were dropped, or how often one has occurred

`length` counts kind and payload; `digest` is SHA-256 over the digest of the frame before, kind and
payload. The chain runs on from segment to segment: a header holds the last digest of the segment
before it and how many bytes of that one are believed. What stands after those bytes (a batch whose
sync failed, a write that a crash tore) was acknowledged to nobody and is not part of the log.
"""

import hashlib
import json
import os
import re
import struct
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from pdp.audit.locks import lock
from pdp.audit.records import RECORD_BYTES_MAX

MAGIC: Final = b"PDPAUD1\n"
DIGEST_BYTES: Final = 32
NO_DIGEST: Final = bytes(DIGEST_BYTES)
KIND_HEADER: Final = b"H"
KIND_RECORD: Final = b"R"
KIND_GAP: Final = b"G"
KINDS: Final = frozenset((KIND_RECORD, KIND_GAP))
"""Of the frames behind a header."""
LENGTH: Final = struct.Struct(">I")
FRAME_OVERHEAD: Final = LENGTH.size + DIGEST_BYTES
_SUFFIX: Final = ".segment"
_NAME: Final = re.compile(r"\d{10}\.segment\Z", re.ASCII)
_ORIGIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")


class Log(NamedTuple):
    """Names one log: what one process after another has written in one directory."""

    origin: str
    log_id: str
    """A new one where a directory starts empty: two logs of one origin never mix."""


class DamagedSegmentError(Exception):
    """A segment whose header cannot be read: nothing in it can be placed."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first frame of a segment."""

    origin: str
    log_id: str
    sequence: int
    position: int
    """Of the segment's first frame after the header, counted over the whole log."""
    previous_digest: bytes
    previous_bytes: int
    """How much of the segment before this one is part of the log; 0: there is none."""

    @property
    def log(self) -> Log:
        return Log(self.origin, self.log_id)


@dataclass(frozen=True, slots=True)
class Place:
    """A place between two frames: where a reader may go on."""

    sequence: int
    byte_offset: int
    position: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame whose digest holds."""

    kind: bytes
    payload: bytes
    position: int
    after: Place
    previous: bytes
    """The digest that this one's continues."""

    @property
    def before(self) -> Place:
        length = FRAME_OVERHEAD + len(self.kind) + len(self.payload)
        after = self.after
        return Place(after.sequence, after.byte_offset - length, self.position, self.previous)


@dataclass(frozen=True, slots=True)
class Damage:
    """From here bytes do not hold; a reader goes on with the next frame that does, if any."""

    position: int
    byte_offset: int
    what: str


def check_origin(origin: str) -> str:
    """The origin, if it can name a directory. Raises ValueError."""
    if not _ORIGIN.match(origin):
        raise ValueError("an audit origin is 1 to 128 letters, digits, '.', '_' and '-'")
    return origin


def segment_path(directory: Path, sequence: int) -> Path:
    return directory / f"{sequence:010d}{_SUFFIX}"


def list_segments(directory: Path) -> list[tuple[int, Path]]:
    """The segments of one origin, oldest first. Raises OSError."""
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries if _NAME.match(entry.name))
    return [(int(name[: -len(_SUFFIX)]), directory / name) for name in names]


def new_log_id() -> str:
    return uuid.uuid4().hex


def encode_frame(previous: bytes, kind: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """A frame's bytes and its digest."""
    body = kind + payload
    digest = hashlib.sha256(previous + body).digest()
    return LENGTH.pack(len(body)) + digest + body, digest


def next_frame(before: Place, kind: bytes, payload: bytes) -> Frame:
    """The frame that holds this at this place."""
    content, digest = encode_frame(before.digest, kind, payload)
    offset = before.byte_offset + len(content)
    after = Place(before.sequence, offset, before.position + 1, digest)
    return Frame(kind, payload, before.position, after, before.digest)


def encode_header(header: Header) -> tuple[bytes, bytes]:
    """The first bytes of a segment, and the digest that its chain starts with."""
    payload = json.dumps(
        {
            "log_id": header.log_id,
            "origin": header.origin,
            "position": header.position,
            "previous_bytes": header.previous_bytes,
            "previous_digest": header.previous_digest.hex(),
            "sequence": header.sequence,
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode("ascii")
    frame, digest = encode_frame(header.previous_digest, KIND_HEADER, payload)
    return MAGIC + frame, digest


def read_header(path: Path) -> tuple[Header, Place]:
    """The header of a segment and the place after it. Raises DamagedSegmentError, OSError."""
    with path.open("rb") as file:
        return _read_header(file)


def _read_header(file: BinaryIO) -> tuple[Header, Place]:
    if file.read(len(MAGIC)) != MAGIC:
        raise DamagedSegmentError("the file does not start as a segment")
    raw = _read_frame(file)
    if isinstance(raw, str):
        raise DamagedSegmentError(f"the header: {raw}")
    digest, body = raw
    try:
        data = json.loads(body[1:])
        header = Header(
            origin=str(data["origin"]),
            log_id=str(data["log_id"]),
            sequence=int(data["sequence"]),
            position=int(data["position"]),
            previous_digest=bytes.fromhex(data["previous_digest"]),
            previous_bytes=int(data["previous_bytes"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise DamagedSegmentError("the header is not one") from None
    if body[:1] != KIND_HEADER or _digest(header.previous_digest, body) != digest:
        raise DamagedSegmentError("the header's digest does not hold")
    return header, Place(header.sequence, file.tell(), header.position, digest)


def read_frames(path: Path, start: Place, end: int | None = None) -> Iterator[Frame | Damage]:
    """The frames from `start` up to byte `end` (None: as far as the file goes), one at a time.

    Where a frame does not hold, yields one Damage and goes on behind it as long as lengths lead
    to further frames, so that one flipped bit does not hide what follows. Raises OSError.
    """
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size if end is None else end
        file.seek(start.byte_offset)
        position, digest, offset = start.position, start.digest, start.byte_offset
        damaged = False
        while offset < end:
            raw = _read_frame(file)
            if isinstance(raw, str):
                if not damaged:
                    yield Damage(position, offset, raw)
                return
            stored, body = raw
            holds = body[:1] in KINDS and _digest(digest, body) == stored
            previous, digest = digest, stored
            if not holds:
                if not damaged:
                    yield Damage(position, offset, "the digest does not hold")
                damaged = True
            offset += FRAME_OVERHEAD + len(body)
            position += 1
            if holds:
                damaged = False
                after = Place(start.sequence, offset, position, stored)
                yield Frame(body[:1], body[1:], position - 1, after, previous)
        if offset > end:
            yield Damage(position, offset, "the segment is not as long as its successor says")


def _read_frame(file: BinaryIO) -> tuple[bytes, bytes] | str:
    """A frame's digest and body, or why there is none. Reads at most a record's bytes."""
    prefix = file.read(FRAME_OVERHEAD)
    if len(prefix) < FRAME_OVERHEAD:
        return "the frame is cut off"
    (length,) = LENGTH.unpack_from(prefix)
    if not 1 <= length <= RECORD_BYTES_MAX + 1:
        return "the frame's length is impossible"
    body = file.read(length)
    if len(body) < length:
        return "the frame is cut off"
    return prefix[LENGTH.size :], body


def _digest(previous: bytes, body: bytes) -> bytes:
    return hashlib.sha256(previous + body).digest()


def believed_bytes(header: Header, after: Path | None) -> int | None:
    """How much of a segment the one `after` it believes; None where none follows on it.

    Raises OSError.
    """
    if after is None:
        return None
    try:
        successor, _ = read_header(after)
    except DamagedSegmentError:
        return None
    follows = (successor.log_id, successor.sequence) == (header.log_id, header.sequence + 1)
    return successor.previous_bytes if follows else None


def find_end(path: Path) -> tuple[Header, Place]:
    """The place after the last frame that holds. Raises DamagedSegmentError, OSError."""
    header, end = read_header(path)
    for item in read_frames(path, end):
        if isinstance(item, Frame):
            end = item.after
    return header, end


def create_segment(directory: Path, header: Header) -> tuple[int, Place]:
    """Makes a segment that is there whole or not at all, synced and locked; returns its
    descriptor, open for reading and appending, and the place after its header.

    Raises OSError, having left nothing to be trusted.
    """
    content, digest = encode_header(header)
    path = segment_path(directory, header.sequence)
    descriptor = put_file(path, lambda new: write_all(new, content))
    return descriptor, Place(header.sequence, len(content), header.position, digest)


def put_file(path: Path, fill: Callable[[int], None]) -> int:
    """Makes a file that is under its name whole, synced and locked, or not at all.

    What has the name already is not ours: it is set aside as `.foreign`. Returns the descriptor,
    open for reading and appending. Raises OSError.
    """
    new = path.with_suffix(".new")
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o600)
    try:
        lock(descriptor)
        fill(descriptor)
        os.fsync(descriptor)
        if os.path.lexists(path):
            path.rename(path.with_suffix(".foreign"))
        new.rename(path)
        try:
            sync_directory(path.parent)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def write_all(descriptor: int, content: bytes) -> None:
    """Writes all of it, in one call where the system lets it. Raises OSError."""
    written = os.write(descriptor, content)
    while written < len(content):
        content = content[written:]
        written = os.write(descriptor, content)


def make_directory(directory: Path) -> None:
    """Makes a directory and what is missing above it, to last. Raises OSError."""
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Makes names that were created in, or moved into, a directory survive a crash."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

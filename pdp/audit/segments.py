"""Segment files: the log of one recorder, in order.

    segment = magic, header frame, frame...
    frame   = length: u32 big-endian | digest: 32 bytes | kind: 1 byte | payload
    kind    = R: a record | G: a number of dropped records, or a count of occurrences

`length` is that of kind and payload; `digest` is SHA-256 over the digest of the previous frame,
kind and payload. The chain continues across segments: a header holds the last digest of the
previous segment and the number of its valid bytes. Bytes after those (a batch whose sync failed, a
torn write of a crash) were never acknowledged and are not part of the log.
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
"""The kinds of frames after a header."""
LENGTH: Final = struct.Struct(">I")
FRAME_OVERHEAD: Final = LENGTH.size + DIGEST_BYTES
_SUFFIX: Final = ".segment"
_NAME: Final = re.compile(r"\d{10}\.segment\Z", re.ASCII)
_ORIGIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")


class Log(NamedTuple):
    """Identifies a log, which successive processes write in one directory."""

    origin: str
    log_id: str
    """New if a directory starts empty, so that two logs of one origin never mix."""


class DamagedSegmentError(Exception):
    """The header of a segment cannot be read, so its frames have no known position."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first frame of a segment."""

    origin: str
    log_id: str
    sequence: int
    position: int
    """Position in the log of the first frame after the header."""
    previous_digest: bytes
    previous_bytes: int
    """Number of valid bytes of the previous segment; 0: there is none."""

    @property
    def log(self) -> Log:
        """The log of the segment."""
        return Log(self.origin, self.log_id)


@dataclass(frozen=True, slots=True)
class Place:
    """A place between two frames, at which a reader can continue."""

    sequence: int
    byte_offset: int
    position: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame whose digest is correct."""

    kind: bytes
    payload: bytes
    position: int
    after: Place
    previous: bytes
    """The digest of the previous frame."""

    @property
    def before(self) -> Place:
        """The place before the frame."""
        length = FRAME_OVERHEAD + len(self.kind) + len(self.payload)
        after = self.after
        return Place(after.sequence, after.byte_offset - length, self.position, self.previous)


@dataclass(frozen=True, slots=True)
class Damage:
    """Damaged bytes; a reader continues with the next valid frame, if any."""

    position: int
    byte_offset: int
    what: str


def check_origin(origin: str) -> str:
    """Returns the origin if it can be the name of a directory. Raises ValueError."""
    if not _ORIGIN.match(origin):
        raise ValueError("an audit origin is 1 to 128 letters, digits, '.', '_' and '-'")
    return origin


def segment_path(directory: Path, sequence: int) -> Path:
    """Returns the path of a segment."""
    return directory / f"{sequence:010d}{_SUFFIX}"


def list_segments(directory: Path) -> list[tuple[int, Path]]:
    """Lists the segments of an origin, oldest first. Raises OSError."""
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries if _NAME.match(entry.name))
    return [(int(name[: -len(_SUFFIX)]), directory / name) for name in names]


def new_log_id() -> str:
    """Returns a random id of a log: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def encode_frame(previous: bytes, kind: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """Returns the bytes and the digest of a frame."""
    body = kind + payload
    digest = hashlib.sha256(previous + body).digest()
    return LENGTH.pack(len(body)) + digest + body, digest


def next_frame(before: Place, kind: bytes, payload: bytes) -> Frame:
    """Returns the frame with this content at a place."""
    content, digest = encode_frame(before.digest, kind, payload)
    offset = before.byte_offset + len(content)
    after = Place(before.sequence, offset, before.position + 1, digest)
    return Frame(kind, payload, before.position, after, before.digest)


def gap_payload(dropped: int, noticed_at: float) -> bytes:
    """Encodes the payload of a gap: how many records were dropped, and when that was noticed."""
    gap = {"dropped": dropped, "noticed_at": noticed_at}
    return json.dumps(gap, separators=(",", ":")).encode("ascii")


def encode_header(header: Header) -> tuple[bytes, bytes]:
    """Returns the first bytes of a segment, and the digest that its chain starts with."""
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
    """Reads the header of a segment and the place after it. Raises DamagedSegmentError, OSError."""
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
    """Yields the frames from `start` up to byte `end` (None: the end of the file).

    At a damaged frame, yields one `Damage` and continues after it, as long as lengths lead to
    further frames: a flipped bit must not hide the rest.

    Raises:
        OSError: The file cannot be read.
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
    """Reads the digest and body of a frame, or returns the problem. Reads a bounded length."""
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


def valid_bytes(header: Header, after: Path | None) -> int | None:
    """Returns how many bytes of a segment are valid, according to the segment after it.

    Returns:
        None: No segment of the same log follows.

    Raises:
        OSError: The file cannot be read.
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
    """Returns header and end of the last valid frame. Raises DamagedSegmentError, OSError."""
    header, end = read_header(path)
    for item in read_frames(path, end):
        if isinstance(item, Frame):
            end = item.after
    return header, end


def create_segment(directory: Path, header: Header) -> tuple[int, Place]:
    """Creates a segment atomically, synced and locked.

    Returns:
        Its descriptor, open for reading and appending, and the place after its header.

    Raises:
        OSError: There is no new segment.
    """
    content, digest = encode_header(header)
    path = segment_path(directory, header.sequence)
    descriptor = put_file(path, lambda new: write_all(new, content))
    return descriptor, Place(header.sequence, len(content), header.position, digest)


def put_file(path: Path, fill: Callable[[int], None]) -> int:
    """Creates a file atomically, synced and locked.

    A file that has the name already was not written by this process; it is renamed to `.foreign`.

    Returns:
        The descriptor, open for reading and appending.

    Raises:
        OSError: There is no new file.
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
    """Writes all bytes, in one call if possible. Raises OSError."""
    written = os.write(descriptor, content)
    while written < len(content):
        content = content[written:]
        written = os.write(descriptor, content)


def make_directory(directory: Path) -> None:
    """Creates a directory and its parents, durably. Raises OSError."""
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Syncs a directory, so that new and moved names survive a crash."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

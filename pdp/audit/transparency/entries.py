"""The entries of a tree.

    entry 0            S, then JSON: which log this is, its first position, and the tree before
    entry 1 + i        the frame at position first + i:
        a gap or count     G, then the payload
        another frame      its kind, then SHA-256 of the payload
        a damaged frame    X: it was damaged before the tree read it

Gaps and counts are part of their entries, so that a tree alone accounts for every decision. Records
are not: their texts can be archived, and personal data in them erased, without the tree.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from sqlalchemy import RowMapping

from pdp.audit.administration_log import KIND_ADMINISTRATION
from pdp.audit.records import RECORD_BYTES_MAX
from pdp.audit.rows import payload_of
from pdp.audit.segments import (
    DIGEST_BYTES,
    FRAME_OVERHEAD,
    KIND_GAP,
    KIND_RECORD,
    KINDS,
    LENGTH,
    Place,
)
from pdp.audit.tombstones import record_digest
from pdp.audit.transparency.tiles import ENTRY_BYTES_MAX, DamagedTreeError

KIND_GENESIS: Final = b"S"
KIND_DAMAGED: Final = b"X"
BATCH_ENTRIES: Final = 32
_READ_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Genesis:
    """The first entry of a tree."""

    origin: str
    log_id: str
    first_position: int
    """The position in the log of the frame in entry 1."""
    why: str
    """Why the tree begins here."""
    previous: str | None
    """The last known checkpoint of the tree before, as a signed note."""

    def entry(self) -> bytes:
        """Returns the entry."""
        return KIND_GENESIS + json.dumps(asdict(self), sort_keys=True).encode("ascii")


def parse_genesis(entry: bytes) -> Genesis:
    """Parses the first entry. Raises DamagedTreeError."""
    try:
        data = json.loads(entry[1:])
        previous = data["previous"]
        genesis = Genesis(
            str(data["origin"]),
            str(data["log_id"]),
            int(data["first_position"]),
            str(data["why"]),
            None if previous is None else str(previous),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DamagedTreeError("the first entry is malformed") from None
    if entry[:1] != KIND_GENESIS or genesis.first_position < 0:
        raise DamagedTreeError("the first entry is malformed")
    return genesis


def entry_of(kind: bytes, payload: bytes) -> bytes:
    """Returns the entry of a frame. Raises DamagedTreeError: a gap is too long for an entry."""
    if kind != KIND_GAP:
        return kind + sha256(payload).digest()
    if len(payload) >= ENTRY_BYTES_MAX:
        raise DamagedTreeError("a gap is too long")
    return kind + payload


def entry_of_text(text: bytes) -> bytes:
    """Returns the entry of a record from its text or its tombstone."""
    return KIND_RECORD + record_digest(text)


def entry_of_change(row: RowMapping) -> bytes:
    """Returns the entry of an administration record from its row (`placed_records`)."""
    if row["record"] is None:
        return KIND_DAMAGED  # it was deleted
    return entry_of(KIND_ADMINISTRATION, payload_of(row["record"]))


def read_entries(path: Path, place: Place, end: int | None) -> Iterator[tuple[list[bytes], Place]]:
    """Yields the entries of the frames from `place` on, in batches, with the place after each.

    Damaged frames before valid ones become entries of their kind; after the last valid frame the
    segment ends, as for `read_frames`, which this repeats in a third of its processor time.

    Args:
        path: The segment.
        place: Where to begin.
        end: The byte at which the log's part of the segment ends; None: the end of the file.

    Raises:
        OSError: The file cannot be read.
        DamagedTreeError: A gap is too long for an entry.
    """
    offset, position, digest = place.byte_offset, place.position, place.digest
    batch: list[bytes] = []
    damaged = 0
    buffer, at = b"", 0
    with path.open("rb") as file:
        file.seek(offset)
        while end is None or offset < end:
            start = at + FRAME_OVERHEAD
            (length,) = LENGTH.unpack_from(buffer, at) if len(buffer) >= start else (0,)
            if len(buffer) < start + length or not length:
                if length > RECORD_BYTES_MAX + 1:
                    break
                more = file.read(_READ_BYTES)
                if not more:
                    break
                buffer, at = buffer[at:] + more, 0
                continue
            body = buffer[start : start + length]
            stored = buffer[start - DIGEST_BYTES : start]
            offset += FRAME_OVERHEAD + length
            at = start + length
            kind = body[:1]
            if sha256(digest + body).digest() != stored or kind not in KINDS:
                damaged += 1
                digest = stored
                continue
            digest = stored
            if damaged:
                batch += [KIND_DAMAGED] * damaged
                position, damaged = position + damaged, 0
            position += 1
            batch.append(entry_of(kind, body[1:]))
            if len(batch) >= BATCH_ENTRIES:
                yield batch, Place(place.sequence, offset, position, digest)
                batch = []
    if batch:
        yield batch, Place(place.sequence, offset, position, digest)

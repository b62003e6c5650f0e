"""Tombstones: what remains of a record whose text was erased.

Trees and chains hold the digest of a record's text, not the text. A tombstone takes the place of
the text and holds that digest, so proofs continue to work. It is canonical JSON as a record, with
the fields of REMAINS, and states when and by which erasure the text was erased:

    "erased": {"at": <seconds since 1970>, "digest": <SHA-256 of the text>, "erasure": <its id>}
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple

from pdp.audit.segments import DIGEST_BYTES

REMAINS: Final = (
    *("caller", "decided_at", "decision_id", "effect", "permission"),
    *("query", "reason", "revision", "source"),
)
"""No field that names a person, and all that show that a decision was made, and which."""
_MARK: Final = b'"erased":{"at":'
"""Quotes within texts are escaped: only a field can begin so."""


class Tombstone(NamedTuple):
    """The fields of a tombstone about the erasure."""

    digest: bytes
    """SHA-256 of the erased text."""
    erasure: str
    """The key of the administration record of the erasure."""


def new_tombstone(data: Mapping[str, Any], text: bytes, erasure: str, at: float) -> bytes:
    """Returns the tombstone of a record.

    Args:
        data: The text, parsed.
        text: The text as it was recorded.
        erasure: The id of the erasure.
        at: Seconds since 1970-01-01 UTC.
    """
    remains = {name: data[name] for name in REMAINS if name in data}
    remains["erased"] = {"at": at, "digest": sha256(text).hexdigest(), "erasure": erasure}
    remains["token_fingerprint"] = ""
    return json.dumps(remains, sort_keys=True, separators=(",", ":")).encode("ascii")


def tombstone_of(text: bytes) -> Tombstone | None:
    """Returns the fields of a tombstone about the erasure; None: the text is no tombstone."""
    if _MARK not in text:
        return None
    try:
        erased = json.loads(text)["erased"]
        found = Tombstone(bytes.fromhex(erased["digest"]), str(erased["erasure"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if len(found.digest) == DIGEST_BYTES else None


def record_digest(text: bytes) -> bytes:
    """Returns the digest of the text that was recorded, also for a tombstone."""
    found = tombstone_of(text)
    return sha256(text).digest() if found is None else found.digest

"""Copies of archived files as Parquet, for analysis. The evidence is the JSON lines.

    <archive>/<origin>/<tree>/parquet/<first>-<end>.parquet

Only this module imports pyarrow, which is an extra.
"""

import json
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from pdp.audit.segments import make_directory
from pdp.audit.transparency.archives import RECORDS, SUFFIX, copy_path, locked
from pdp.audit.transparency.files import sync_file
from pdp.audit.transparency.proofs import read_lines
from pdp.database.bulk import batches

ROWS_AT_ONCE: Final = 10_000
_TEXTS: Final = (
    *("decision_id", "effect", "reason", "permission", "caller", "query", "request", "source"),
    *("resource_organization_id", "rule_id", "grant_id", "token_fingerprint", "token_id"),
)
_ACTOR: Final = ("user_id", "session_id", "organization_id", "impersonator_id")
_TIME: Final = pa.timestamp("us", "UTC")
SCHEMA: Final = pa.schema(
    [
        ("decided_at", _TIME),
        *((name, pa.string()) for name in _TEXTS),
        *((name, pa.string()) for name in _ACTOR),
        ("resource_type", pa.string()),
        ("resource_id", pa.string()),
        ("revision", pa.int64()),
        ("erased_at", _TIME),
        ("record", pa.string()),
    ]
)


def write_copies(target: Path) -> int:
    """Writes the copies that are missing in the archive of a tree; returns their number.

    Raises:
        DamagedTreeError: A file cannot be read.
        OSError: A file cannot be read or written.
    """
    count = 0
    with locked(target):
        for path in sorted((target / RECORDS).glob(f"*{SUFFIX}")):
            copy = copy_path(path)
            if copy.exists():
                continue
            make_directory(copy.parent)
            new = copy.with_name(copy.name + ".new")
            rows = map(_row, read_lines(path))
            with ParquetWriter(new, SCHEMA, compression="zstd") as writer:
                for batch in batches(rows, ROWS_AT_ONCE):
                    writer.write_batch(pa.RecordBatch.from_pylist(batch, SCHEMA))
            sync_file(new)
            new.rename(copy)
            count += 1
    return count


def _row(line: bytes) -> dict[str, Any]:
    data = json.loads(line)
    actor, resource = data.get("actor") or {}, data.get("resource") or {}
    erased = data.get("erased")
    texts = {name: data.get(name) for name in _TEXTS} | {name: actor.get(name) for name in _ACTOR}
    texts |= {"resource_type": resource.get("type"), "resource_id": resource.get("id")}
    return {
        **{name: None if text is None else _unicode(text) for name, text in texts.items()},
        "decided_at": _microseconds(data["decided_at"]),
        "revision": data["revision"],
        "erased_at": None if erased is None else _microseconds(erased["at"]),
        "record": line.decode("ascii"),
    }


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _unicode(text: str) -> str:
    """Replaces lone surrogates, which UTF-8 cannot hold; `record` has the text as it was."""
    return text.encode("utf-8", "replace").decode()

"""Asks witnesses for cosignatures of checkpoints (https://c2sp.org/tlog-witness).

    <tree>/cosigned      the newest checkpoint that a witness cosigned, with all its cosignatures

A witness cosigns a checkpoint only if it continues what the witness cosigned before. Nothing that
it answers is believed but a cosignature that its key verifies.
"""

import base64
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import httpx

from pdp.audit.transparency.files import replace_file
from pdp.audit.transparency.merkle import consistency_proof
from pdp.audit.transparency.notes import (
    WITNESS_KEY,
    Checkpoint,
    NoteError,
    VerifierKey,
    signature_line,
    signatures_of,
    unverified_checkpoint,
)
from pdp.audit.transparency.publishing import ANSWER_BYTES_MAX, SEND_SECONDS_MAX, Publisher
from pdp.audit.transparency.tiles import DamagedTreeError, TileReader
from pdp.errors import AuditUnavailable
from pdp.outgoing import Client, open_client
from pdp.settings.audit_tree import WitnessSettings

COSIGNED: Final = "cosigned"
_OK: Final = 200
_CONFLICT: Final = 409
_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,17})\n\Z")


class _NotCosignedError(Exception):
    """The message says why."""


def witness_keys(settings: Iterable[WitnessSettings]) -> list[VerifierKey]:
    """Returns the keys of witnesses. Raises NoteError: a key cannot be used."""
    keys = [VerifierKey.parse(witness.key, WITNESS_KEY) for witness in settings]
    if len({key.public for key in keys}) < len(keys):  # also under two names
        raise NoteError("two witnesses have one key")
    return keys


def cosigned_note(tree: Path) -> tuple[str, Checkpoint] | None:
    """Returns the cosigned checkpoint of a tree, of which no signature is checked; None: there is
    none that can be read. Raises OSError."""
    try:
        note = (tree / COSIGNED).read_text(encoding="utf-8")
        return note, unverified_checkpoint(note)
    except (FileNotFoundError, ValueError):
        return None


def witness_publishers(settings: Iterable[WitnessSettings]) -> list[Publisher]:
    """Returns for each witness a publisher that asks for cosignatures and stores them. Raises
    NoteError: a key cannot be used."""
    settings = list(settings)
    keys = witness_keys(settings)
    storing = threading.Lock()
    return [
        _publisher(one.url, key, keys, storing) for one, key in zip(settings, keys, strict=True)
    ]


def _publisher(
    prefix: str, key: VerifierKey, keys: list[VerifierKey], storing: threading.Lock
) -> Publisher:
    url = prefix.rstrip("/") + "/add-checkpoint"
    sizes: dict[str, int] = {}
    """By origin line: the size that the witness has cosigned."""

    def send(note: str, tree: Path) -> None:
        checkpoint = unverified_checkpoint(note)
        try:
            stored = _stored(tree, note, keys)
            if stored is None or key in stored or not tree.is_dir():
                return
            reader = TileReader(tree, checkpoint.size)
            with open_client(seconds_max=SEND_SECONDS_MAX, bytes_max=ANSWER_BYTES_MAX) as client:
                answer = _ask(client, url, reader, sizes.get(checkpoint.origin, 0), note)
            signature = _signature_in(answer, note, key)
            sizes[checkpoint.origin] = checkpoint.size
            with storing:
                stored = _stored(tree, note, keys)
                if stored is not None:
                    signatures = {**stored, key: signature}.items()
                    lines = "".join(signature_line(*signed) for signed in signatures)
                    replace_file(tree / COSIGNED, (note + lines).encode())
        except (OSError, DamagedTreeError) as error:
            raise AuditUnavailable(f"{tree}: {error}") from None
        except _NotCosignedError as error:
            raise AuditUnavailable(f"{url}: {checkpoint.origin}: {error}") from None

    return Publisher(f"witness {key.name}", send)


def _stored(tree: Path, note: str, keys: Iterable[VerifierKey]) -> dict[VerifierKey, bytes] | None:
    """Returns the cosignatures that are stored for a checkpoint; None: a newer one has some. Raises
    OSError."""
    found = cosigned_note(tree)
    if found is None:
        return {}
    try:
        text, signatures = signatures_of(found[0], keys)
    except NoteError:
        return {}  # somebody has edited it: it is replaced
    if signatures and found[1].size > unverified_checkpoint(note).size:
        return None
    return signatures if note.startswith(text + "\n") else {}


def _ask(client: Client, url: str, reader: TileReader, old: int, note: str) -> bytes:
    """Asks a witness, with at most two requests; returns its answer.

    Raises:
        _NotCosignedError: It does not answer, or does not cosign.
        DamagedTreeError: The proof cannot be made.
        OSError: A tile cannot be read.
    """
    status, content, seen = _post(client, url, reader, min(old, reader.size), note)
    if seen is not None and seen > reader.size:  # a lie, or this tree was restored from a backup
        raise _NotCosignedError(f"the witness has seen {seen} entries, which are not here")
    if seen is not None:
        status, content, _ = _post(client, url, reader, seen, note)
    if status != _OK:
        raise _NotCosignedError(f"status {status}")
    return content


def _post(
    client: Client, url: str, reader: TileReader, old: int, note: str
) -> tuple[int, bytes, int | None]:
    """Returns status and body; and of a conflict, the size that the witness says it has seen."""
    proof = consistency_proof(reader.fetch, old, reader.size)
    hashes = [base64.b64encode(node).decode() for node in proof]
    body = "\n".join([f"old {old}", *hashes]) + "\n\n" + note
    try:
        with client.stream("POST", url, content=body.encode()) as answer:
            # Not decoded: a short body may become a long one.
            content = b"".join(answer.iter_raw())
    except httpx.HTTPError as error:
        raise _NotCosignedError(type(error).__name__) from None
    is_size = answer.headers.get("content-type", "").startswith("text/x.tlog.size")
    found = _SIZE.match(content) if answer.status_code == _CONFLICT and is_size else None
    return answer.status_code, content, None if found is None else int(found[1])


def _signature_in(answer: bytes, note: str, key: VerifierKey) -> bytes:
    """Returns the cosignature of a key in an answer. Raises _NotCosignedError."""
    asked = note.rpartition("\n\n")[0]
    try:
        text, signatures = signatures_of(f"{asked}\n\n{answer.decode()}", [key])
    except ValueError:
        text, signatures = "", {}
    if text != asked + "\n" or key not in signatures:
        raise _NotCosignedError(f"no cosignature of {key.name} that holds")
    return signatures[key]

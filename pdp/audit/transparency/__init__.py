"""A log that proves itself: Merkle trees over logs, and signed checkpoints.

In:  segments of the logs (after their sync, outside of every request), keys that sign.
Out: for each log a tree (`tree/<name>/` beside its segments) and its checkpoints, which leave the
     machine (`Publisher`); proofs; reports (`verify_trees`).

Invariants:
- A checkpoint covers synced frames only, and is durable before it is published. So a tree that is
  behind a published checkpoint was restored, and a new tree continues it openly.
- A segment is deleted only after a durable checkpoint covers it.
- No two checkpoints of one tree contradict each other: entries below a checkpoint never change.

Never: takes part in a request, holds up a denial.
"""

from pdp.audit.transparency.changes import ChangesNotary
from pdp.audit.transparency.entries import Genesis, entry_of, parse_genesis
from pdp.audit.transparency.notary import Notary, covered_by, open_notary, signers_of
from pdp.audit.transparency.notes import Checkpoint, NoteError, VerifierKey
from pdp.audit.transparency.publishing import Publisher, file_publisher, url_publisher
from pdp.audit.transparency.signing import command_signer, file_signer, new_key_file
from pdp.audit.transparency.tiles import DamagedTreeError

__all__ = [
    "ChangesNotary",
    "Checkpoint",
    "DamagedTreeError",
    "Genesis",
    "Notary",
    "NoteError",
    "Publisher",
    "VerifierKey",
    "command_signer",
    "covered_by",
    "entry_of",
    "file_publisher",
    "file_signer",
    "new_key_file",
    "open_notary",
    "parse_genesis",
    "signers_of",
    "url_publisher",
]

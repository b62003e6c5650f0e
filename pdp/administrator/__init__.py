"""Policy writes: validate, write in one transaction, return the revision.

In: entities and policy documents, from the administration service and the command line.
Out: entities as stored, changes, revisions.

Never: knows gRPC or SQL; checks who may write (the wire does).

Invariants:
- Every stored entity was validated here, and its references were checked inside the transaction
  that wrote it. Writers wait for each other, so nothing changes between check and write.
- A write is atomic; its revision is returned only after the commit.
- A write without changes raises no revision, and applying an export changes nothing.
"""

from pdp.administrator.administrator import Administrator

__all__ = ["Administrator"]

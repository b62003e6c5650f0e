"""The write side: validate, write in one transaction, say which revision holds it.

In: entities and policy documents, from the administration service and the command line.
Out: entities as stored, changes, revisions.

Never: knows gRPC or SQL; decides who may write (the wire does).

Invariants:
- Every entity that is stored was validated here, and what it refers to was checked inside the
  transaction that wrote it. Writers stand in a line, so nothing changes between the two.
- A write is all or nothing; its revision is named only once it is committed.
- What changes nothing raises no revision, and applying an export changes nothing.
"""

from pdp.administrator.administrator import Administrator

__all__ = ["Administrator"]

"""The sidecar: answers the same questions beside a service, from answers that are still good.

In: CheckRequest, BatchCheckRequest of local callers; the change stream of the servers upstream.
Out: what upstream answered, now or before; a status. Its own decisions (denials given again, allows
that stayed open) go to segments on its disk, and from there upstream.

Holds:
- An answer is given again to exactly the request that it was given to, only within a lease; or,
  where the settings say so of its permission, for a while after one.
- A new decision is on record before it goes out; what cannot be recorded is not answered.
- What is no answer is never kept, and never becomes one.

Never: decides, verifies a token, reads a database, tells a local caller that it is refused where it
is the sidecar that is.
"""

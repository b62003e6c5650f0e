"""The sidecar: answers the questions of a local service from cached decisions.

In: CheckRequest, BatchCheckRequest of local callers; the change stream of the upstream servers.
Out: the answer of upstream, new or cached; or a status. Its own decisions (cached denials, and
allows in the fail-open window) go to segments on its disk, and from there upstream.

The cache, and what empties it, are those of the guards: `pdp_client.cache`, and
`pdp_client.following` for the change stream.

Invariants:
- A cached answer serves exactly the request that it was given to, only within a lease; or, if the
  settings name its permission, in the fail-open window after a lease.
- A new decision is logged before it is sent; a decision that cannot be logged is not sent.
- An error is never cached, and never becomes an answer.

Never: decides, verifies a token, reads a database, reports a refusal of the sidecar's own
credentials as a refusal of the local caller.
"""

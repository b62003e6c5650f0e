"""Clerk -> facts: users, organizations, memberships, and sessions that have ended.

In:  webhooks, Clerk's Backend API, and the first token of an unknown user.
Out: observations, which `directory` writes; role names, which are pushed back to Clerk.

Never: decides; knows SQL, gRPC or JSON Web Tokens; writes a secret anywhere.

    observations -> versions -> projection -> directory    what Clerk reported, and the facts
    webhooks/        endpoint, signatures, events, batcher
    sync/            phases, lease, sync; scheduler runs it in a server
    provisioning     creates the user that a verified token names
    role_claims      the role names to push back to Clerk; role_claims_push pushes them in a server

`objects` parses Clerk's objects from every source, and `api` requests them. The inputs (webhooks,
sync, provisioning) do not import each other, nor the part that pushes role names.
"""

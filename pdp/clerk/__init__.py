"""Clerk -> facts: who exists, as what, and which sessions have ended.

In:  webhooks, Clerk's Backend API, and the first token of an unknown user.
Out: observations, which `directory` writes; role names, which are pushed back to Clerk.

Never: decides; knows SQL, gRPC or JSON Web Tokens; writes a secret anywhere.

    observations -> versions -> projection -> directory    what was seen, and the facts that follow
    webhooks/        endpoint, signatures, events, event_json, batcher
    sync/            phases, lease, sync; scheduler runs it in a server
    provisioning     creates the people whom a verified token names
    role_claims      what is pushed back to Clerk; role_claims_push does it in a server

`objects` reads Clerk's objects, wherever they come from, and `api` asks for them. The ways in
(webhooks, sync, provisioning) know nothing of each other, or of what is pushed back.
"""

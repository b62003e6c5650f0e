"""Clerk -> administrator: who exists, as what, and which sessions still stand.

In:  webhooks, Clerk's Backend API, and the first token of somebody unknown.
Out: observations (`pdp.administrator.observations`), which the administrator writes.

Never: decides; knows SQL, gRPC or JSON Web Tokens; writes a secret anywhere.

    webhooks         line, signatures, events, event_json
    sync             steps, turns; the reconciler runs it in a server
    provisioning
    claims           what is pushed back to Clerk; the pusher does it in a server
    doctor           doctor_token, findings

`objects` reads Clerk's objects, wherever they come from, and `api` asks for them. The ways in
(webhooks, sync, provisioning) know nothing of each other, of what is pushed back, or of the doctor.
"""

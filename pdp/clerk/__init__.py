"""Clerk -> administrator: who exists, as what, and which sessions still stand.

In:  webhooks, Clerk's Backend API, and the first token of somebody unknown.
Out: observations (`pdp.administrator.observations`), which the administrator writes.

Never: decides; knows SQL, gRPC or JSON Web Tokens; writes a secret anywhere.
"""

"""A policy decision point for Clerk applications.

A request crosses the rooms in one direction:
wire -> identity -> facts -> decision -> audit -> wire.
`authorizer.py` is that corridor; `docs/architecture.md` is the map.
"""

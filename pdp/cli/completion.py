"""Completion of kinds and of ids from the server.

Names come from strangers, and a shell inserts them into a command line: only those without
characters that a shell reads are offered. A server that does not answer at once completes nothing.
"""

import re
import time
from collections.abc import Iterator
from itertools import islice

import typer

from pdp.cli.entities import KINDS, Entities, Kind, kind_named

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@%+,/-]*")
_NAMES_MAX = 200
_SECONDS_MAX = 0.8
"""Less than `waiting` waits, so that nothing is drawn into the command line."""


def complete_kind(incomplete: str) -> Iterator[str]:
    """Kinds that begin so."""
    yield from (kind.plural for kind in KINDS if kind.plural.startswith(incomplete))


def complete_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the kind that the command line has so far."""
    return _names(ctx, str(ctx.params.get("kind") or ""), incomplete)


def complete_role(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of roles."""
    return _names(ctx, "role", incomplete)


def complete_user(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of users."""
    return _names(ctx, "user", incomplete)


def complete_organization(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of organizations."""
    return _names(ctx, "organization", incomplete)


def complete_resource(ctx: typer.Context, incomplete: str) -> list[str]:
    """Resources, as TYPE:ID."""
    return _names(ctx, "resource", incomplete)


def _names(ctx: typer.Context, kind: str, incomplete: str) -> list[str]:
    try:
        return list(islice(_found(ctx, kind_named(kind), incomplete), _NAMES_MAX))
    except Exception:  # noqa: BLE001  # between two keys there is no place for an error
        return []


def _found(ctx: typer.Context, kind: Kind, incomplete: str) -> Iterator[str]:
    from pdp_client.transport import open_channel

    from pdp.cli.connection import connection_of

    connection = connection_of(ctx)
    ends_at = time.monotonic() + _SECONDS_MAX
    with open_channel(
        connection.server, connection.tls(), connection.api_key, insecure=False
    ) as channel:
        entities = Entities(kind, channel, connection, deadline_seconds=_SECONDS_MAX)
        for _, page, _ in entities.pages():
            for name in map(kind.text_of, page):
                if name.startswith(incomplete) and _SAFE.fullmatch(name):
                    yield name
            if time.monotonic() > ends_at:
                return

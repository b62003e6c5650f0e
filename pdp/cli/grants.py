"""`pdp grant`, `pdp revoke` and `pdp user`: who has a role, and who may act."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdp.cli.completion import (
    complete_organization,
    complete_resource,
    complete_role,
    complete_user,
)
from pdp.cli.connection import connects
from pdp.cli.entities import Entities, Reason, cell, kind_named
from pdp.cli.options import duration_of
from pdp.cli.output import HELP_STYLE, fail, say, waiting
from pdp.cli.profiles import Connection
from pdp.cli.remote import connected

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

app = typer.Typer(no_args_is_help=True, rich_markup_mode=HELP_STYLE, help="Whether a user may act.")

_SCOPES = ("organization_id", "resource")

Role = Annotated[
    str, typer.Argument(help="Name of a role, e.g. ADMIN.", autocompletion=complete_role)
]
User = Annotated[str, typer.Option(help="Clerk user id.", autocompletion=complete_user)]
Organization = Annotated[
    str,
    typer.Option(help="Only in this organization.", autocompletion=complete_organization),
]
ResourceOption = Annotated[
    str,
    typer.Option(
        metavar="TYPE:ID",
        help="Only on this resource and what is below it.",
        autocompletion=complete_resource,
    ),
]
UserArgument = Annotated[str, typer.Argument(help="Clerk user id.", autocompletion=complete_user)]


@connects
def grant(
    role: Role,
    user: User,
    organization: Organization = "",
    resource: ResourceOption = "",
    until: Annotated[
        str, typer.Option(help="Until when: 30m, 12h, 3d, 2w, or a time as 2030-01-31T00:00:00Z.")
    ] = "",
    reason: Reason = "",
    *,
    connection: Connection,
) -> None:
    """Gives a role to a user: in an organization, on a resource, or everywhere.

    Exit status: 0 granted, 2 not.
    """
    from pdpapi.v1.administration_service_pb2 import Grant

    entity = Grant(role=role, user_id=user, **_scope(organization, resource))
    if until:
        entity.expires_at.CopyFrom(_end(until))
    with connected(connection) as channel:
        stored = Entities(kind_named("grant"), channel, connection).write("Create", entity, reason)
    say(f"granted {_text(stored.grant)}: {stored.grant.id} at revision {stored.revision}")


@connects
def revoke(
    role: Role,
    user: User,
    organization: Organization = "",
    resource: ResourceOption = "",
    reason: Reason = "",
    *,
    connection: Connection,
) -> None:
    """Deletes the grants of a role to a user in exactly this scope; without one, everywhere.

    A grant by its id: `pdp delete grant ID`. Exit status: 0 revoked, 2 not, or there is none.
    """
    from pdpapi.v1.administration_service_pb2 import Grant

    wanted = Grant(role=role, user_id=user, **_scope(organization, resource))
    with connected(connection) as channel:
        entities = Entities(kind_named("grant"), channel, connection)
        with waiting("reading grants"):
            held = list(entities.matching({"role": role, "user": user}))
        found = [
            grant
            for grant in held
            if all(cell(grant, name) == cell(wanted, name) for name in _SCOPES)
        ]
        for grant in found:
            revision = entities.delete(grant.id, reason)
            say(f"revoked {_text(grant)}: {grant.id} at revision {revision}")
    if not found:
        others = "; there is " + ", ".join(map(_text, held)) if held else ""
        fail(f"there is no grant of {_text(wanted)}{others}")
        raise typer.Exit(2)


@app.command("disable")
@connects
def disable(user: UserArgument, reason: Reason = "", *, connection: Connection) -> None:
    """Refuses every token of a user, until they are enabled."""
    _set_status(user, "USER_STATUS_DISABLED", reason, connection)


@app.command("enable")
@connects
def enable(user: UserArgument, reason: Reason = "", *, connection: Connection) -> None:
    """Lets a disabled user act again. Users that Clerk has banned stay refused."""
    _set_status(user, "USER_STATUS_ACTIVE", reason, connection)


def _set_status(user: str, status: str, reason: str, connection: Connection) -> None:
    from pdpapi.v1.administration_service_pb2 import UserStatus

    with connected(connection) as channel:
        entities = Entities(kind_named("user"), channel, connection)
        entity = entities.get(user)
        wanted = UserStatus.Value(status)
        if entity.status == wanted:
            say(f"{user} is {cell(entity, 'status')} already")
            return
        entity.status = wanted
        stored = entities.write("Update", entity, reason)
    say(f"{user} is {cell(stored.user, 'status')} from revision {stored.revision} on")


def _scope(organization: str, resource: str) -> dict[str, Any]:
    from pdpapi.v1.core_pb2 import ResourceRef

    if organization and resource:
        raise typer.BadParameter("--organization and --resource exclude each other")
    if organization:
        return {"organization_id": organization}
    if resource:
        type_, id_ = kind_named("resource").key_of(resource)
        return {"resource": ResourceRef(type=type_, id=id_)}
    return {}


def _end(text: str) -> "Timestamp":
    from google.protobuf.timestamp_pb2 import Timestamp

    from pdp.clock import wall_clock

    end = Timestamp()
    duration = duration_of(text)
    now = int(wall_clock())
    try:
        if duration is not None:
            end.FromSeconds(now + int(duration.total_seconds()))
        else:
            end.FromJsonString(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a duration (30m, 12h, 3d, 2w) nor a time (2030-01-31T00:00:00Z)",
            param_hint="--until",
        ) from None
    if end.ToSeconds() <= now:
        raise typer.BadParameter(f"{text} is in the past", param_hint="--until")
    return end


def _text(entity: Any) -> str:
    organization, resource, end = (cell(entity, field) for field in (*_SCOPES, "expires_at"))
    place = f"in {organization}" if organization else f"on {resource}" if resource else "everywhere"
    return f"{entity.role} to {entity.user_id} {place}" + (f" until {end}" if end else "")

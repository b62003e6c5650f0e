"""`pdp allowed`: an actor's permissions and resources, and a resource's actors."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdp.cli.ask import Context, Token, mapping, token_text
from pdp.cli.connection import connects
from pdp.cli.listing import PAGE_ITEMS, As, Limit, Output, pages_of, print_list
from pdp.cli.output import HELP_STYLE, emit_json, fail
from pdp.cli.profiles import Connection
from pdp.cli.records import reason_name
from pdp.cli.remote import connected, method_of

if TYPE_CHECKING:
    from pdpapi.v1 import access_query_service_pb2 as pb

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=HELP_STYLE,
    help="What an actor may do, which resources they may use, and which actors may use a resource.",
)


@app.command("permissions")
@connects
def permissions(
    resources: Annotated[list[str], typer.Argument(help="TYPE:ID, e.g. course:algebra")],
    token: Token = "-",
    context: Context = "{}",
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists the declared permissions on resources, and which of them an actor has.

    Exit status: 0 answered, 1 the actor is refused, 2 no answer.
    """
    from pdpapi.v1 import access_query_service_pb2 as pb
    from pdpapi.v1.access_query_service_pb2_grpc import AccessQueryServiceStub

    request = pb.ListAllowedPermissionsRequest(actor_token=token_text(token))
    request.context.update(mapping(context, "--context"))
    for text in resources:
        type_, _, id_ = text.partition(":")
        request.resources.add(type=type_, id=id_)
    with connected(connection) as channel:
        ask = method_of(AccessQueryServiceStub(channel).ListAllowedPermissions, connection)
        response = ask(request)

    def rows_of(answer: tuple[str, Any]) -> Iterator[tuple[str, ...]]:
        resource, result = answer
        for name in sorted((*result.allowed, *result.denied)):
            yield resource, name, "yes" if name in result.allowed else "no"

    def print_json(answer: tuple[str, Any]) -> None:
        resource, result = answer
        names = {"allowed": list(result.allowed), "denied": list(result.denied)}
        emit_json({"resource": resource, **names, "revision": response.revision})

    answers = zip(resources, response.results, strict=True)
    columns = ("resource", "permission", "allowed")
    print_list(output, columns, answers, rows_of, None, print_json)
    _exit_if_refused(response)


@app.command("resources")
@connects
def resources(
    permission: Annotated[str, typer.Argument(help="e.g. course:edit")],
    resource_type: Annotated[
        str, typer.Argument(metavar="TYPE", help="Default: that of the permission.")
    ] = "",
    token: Token = "-",
    context: Context = "{}",
    limit: Limit = None,
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists the stored resources on which an actor has a permission.

    Exit status: 0 answered, 1 the actor is refused, 2 no answer.
    """
    from pdpapi.v1 import access_query_service_pb2 as pb
    from pdpapi.v1.access_query_service_pb2_grpc import AccessQueryServiceStub

    request = pb.ListAllowedResourcesRequest(
        actor_token=token_text(token),
        permission=permission,
        resource_type=resource_type or permission.partition(":")[0],
        page_size=PAGE_ITEMS,
    )
    request.context.update(mapping(context, "--context"))
    response = pb.ListAllowedResourcesResponse()

    def found() -> Iterator[str]:
        for page in pages_of(ask, request):
            response.CopyFrom(page)
            yield from page.resource_ids

    def print_json(id_: str) -> None:
        emit_json({"type": request.resource_type, "id": id_, "revision": response.revision})

    with connected(connection) as channel:
        ask = method_of(AccessQueryServiceStub(channel).ListAllowedResources, connection)
        print_list(output, ("id",), found(), lambda id_: [(id_,)], limit, print_json)
    _exit_if_refused(response)


@app.command("actors")
@connects
def actors(
    permission: Annotated[str, typer.Argument(help="e.g. course:edit")],
    resource: Annotated[
        str, typer.Argument(metavar="TYPE:ID", help="Default: the permission in general.")
    ] = "",
    limit: Limit = None,
    output: As = Output.TABLE,
    *,
    connection: Connection,
) -> None:
    """Lists who has a permission on a resource: through which role, grant and rule, and under
    which condition. It takes the capability `audit`.

    Exit status: 0 answered, 2 no answer.
    """
    from pdpapi.v1 import access_query_service_pb2 as pb
    from pdpapi.v1.access_query_service_pb2_grpc import AccessQueryServiceStub

    request = pb.ListAllowedActorsRequest(permission=permission, page_size=PAGE_ITEMS)
    if resource:
        request.resource.type, _, request.resource.id = resource.partition(":")
    with connected(connection) as channel:
        ask = method_of(AccessQueryServiceStub(channel).ListAllowedActors, connection)
        found = (actor for page in pages_of(ask, request) for actor in page.actors)
        print_list(output, ACTOR_COLUMNS, found, actor_rows, limit)


ACTOR_COLUMNS = ("user", "organization", "effect", "role", "grant", "rule", "condition", "until")


def actor_rows(actor: "pb.AllowedActor") -> Iterator[tuple[str, ...]]:
    """Yields the rows of ACTOR_COLUMNS: one for each rule that decides."""
    for path in path_rows(actor):
        yield (actor.user_id, actor.organization_id, *path)


def path_rows(access: Any) -> Iterator[tuple[str, ...]]:
    """Yields the cells of ACTOR_COLUMNS about each rule that decides."""
    ways = [("allow", path) for path in access.allowed_by]
    ways += [("deny", path) for path in access.denied_by]
    for effect, path in ways:
        until = path.expires_at.ToJsonString() if path.HasField("expires_at") else ""
        yield (effect, path.role, path.grant_id, path.rule_id, path.condition, until)


def _exit_if_refused(response: Any) -> None:
    if response.HasField("refusal"):
        fail(f"{reason_name(response.refusal.reason)}: {response.refusal.message}")
        raise typer.Exit(1)

"""`pdp check` and `pdp plan`: one question to a running server."""

import json
from typing import Annotated, Any

import typer

from pdp.cli.connection import connects
from pdp.cli.output import emit, fail, read_input, say
from pdp.cli.profiles import Connection
from pdp.cli.remote import DEADLINE_SECONDS, connected, method_of, why_no_answer

Token = Annotated[
    str, typer.Option(envvar="PDP_TOKEN", help="Session token; - reads standard input.")
]
Context = Annotated[str, typer.Option(help="Context, a JSON object.")]


@connects
def check(
    permission: Annotated[str, typer.Argument(help="e.g. course:edit")],
    resource: Annotated[str | None, typer.Argument(help="TYPE:ID, e.g. course:algebra")] = None,
    token: Token = "-",
    organization: Annotated[
        str | None,
        typer.Option(help="The resource's organization, where the resource is not stored."),
    ] = None,
    attributes: Annotated[str, typer.Option(help="Resource attributes, a JSON object.")] = "{}",
    context: Context = "{}",
    *,
    connection: Connection,
) -> None:
    """Asks a running server. Exit status: 0 allow, 1 deny, 2 no answer."""
    from pdp_client import Guard, GuardError, PdpUnavailable, Resource

    token = token_text(token)
    asked = None
    if resource is not None:
        kind, _, identifier = resource.partition(":")
        asked = Resource(
            kind,
            identifier,
            organization_id=organization,
            attributes=mapping(attributes, "--attributes"),
        )
    elif organization is not None:
        raise typer.BadParameter("is that of a resource: name one", param_hint="--organization")
    with Guard(
        connection.server,
        tls=connection.tls(),
        api_key=connection.api_key,
        deadline_seconds=DEADLINE_SECONDS,
    ) as guard:
        try:
            decision = guard.check(token, permission, asked, mapping(context, "--context"))
        except (GuardError, ValueError) as error:
            problem = None
            if isinstance(error, PdpUnavailable):
                problem = why_no_answer(connection.server, connection.tls())
            fail(problem or str(error))
            raise typer.Exit(2) from None
    say(f"{decision.effect.name} {decision.reason}: {decision.message}")
    for name in ("rule_id", "grant_id", "decision_id", "revision"):
        if getattr(decision, name):
            say(f"  {name}: {getattr(decision, name)}")
    if decision.source.name != "DECIDED":
        say(f"  source: {decision.source.name}")
    raise typer.Exit(0 if decision.effect.name == "ALLOW" else 1)


@connects
def plan(
    permission: Annotated[str, typer.Argument(help="e.g. course:view")],
    resource_type: Annotated[
        str, typer.Argument(metavar="TYPE", help="Default: that of the permission.")
    ] = "",
    token: Token = "-",
    context: Context = "{}",
    superset: Annotated[
        bool,
        typer.Option("--superset", help="Leave out what no filter expresses; check each row."),
    ] = False,
    *,
    connection: Connection,
) -> None:
    """Prints the filter, as JSON, for the rows on which an actor has a permission.

    Exit status: 0 answered, 1 the actor is refused, 2 no answer.
    """
    from google.protobuf.json_format import MessageToJson
    from pdpapi.v1 import access_query_service_pb2 as pb
    from pdpapi.v1.access_query_service_pb2_grpc import AccessQueryServiceStub

    token = token_text(token)
    request = pb.PlanResourcesRequest(
        actor_token=token,
        permission=permission,
        resource_type=resource_type or permission.partition(":")[0],
        allow_superset=superset,
    )
    request.context.update(mapping(context, "--context"))
    with connected(connection) as channel:
        answer = method_of(AccessQueryServiceStub(channel).PlanResources, connection)(request)
    emit(MessageToJson(answer.plan) + "\n")
    if answer.HasField("refusal"):
        fail(answer.refusal.message)
        raise typer.Exit(1)


def token_text(token: str) -> str:
    """The token of an option; `-`: reads standard input."""
    if token == "-":  # noqa: S105
        return read_input("a session token (or give --token or PDP_TOKEN)").strip()
    return token


def mapping(text: str, option: str) -> dict[str, Any]:
    """The JSON object that an option holds. Raises typer.BadParameter."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"is not JSON: {error}", param_hint=option) from None
    if not isinstance(value, dict):
        raise typer.BadParameter("is not a JSON object", param_hint=option)
    return value

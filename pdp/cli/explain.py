"""`pdp explain`: why a running server answers a question as it does."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.ask import Context, mapping, token_text
from pdp.cli.connection import connects
from pdp.cli.output import emit_json, say
from pdp.cli.profiles import Connection
from pdp.cli.remote import connected, method_of
from pdp.cli.tree import tree_lines

if TYPE_CHECKING:
    from pdpapi.v1.explain_service_pb2 import ExplainRequest, ExplainResponse


class Output(StrEnum):
    """How the explanation is printed."""

    TREE = "tree"
    JSON = "json"


@connects
def explain(
    permission: Annotated[str, typer.Argument(help="e.g. course:edit")] = "",
    resource: Annotated[str | None, typer.Argument(help="TYPE:ID, e.g. course:algebra")] = None,
    user: Annotated[str, typer.Option(help="Clerk user id, in place of a token.")] = "",
    active_organization: Annotated[
        str, typer.Option(help="The user's active organization; with --user.")
    ] = "",
    session: Annotated[str, typer.Option(help="The user's session id; with --user.")] = "",
    impersonator: Annotated[str, typer.Option(help="Who impersonates the user; with --user.")] = "",
    first_factor_minutes: Annotated[
        float | None, typer.Option(min=0, help="Since the first factor; with --user.")
    ] = None,
    second_factor_minutes: Annotated[
        float | None, typer.Option(min=0, help="Since the second factor; with --user.")
    ] = None,
    claims: Annotated[str, typer.Option(help="Claims, a JSON object; with --user.")] = "{}",
    token: Annotated[
        str, typer.Option(envvar="PDP_TOKEN", help="Session token; - reads standard input.")
    ] = "",
    decision: Annotated[
        str, typer.Option(metavar="ID", help="A recorded decision, in place of a question.")
    ] = "",
    organization: Annotated[
        str | None,
        typer.Option(help="The resource's organization, if the resource is not stored."),
    ] = None,
    attributes: Annotated[str, typer.Option(help="Resource attributes, a JSON object.")] = "{}",
    context: Context = "{}",
    output: Annotated[
        Output, typer.Option("--output", "-o", help="How to print it.")
    ] = Output.TREE,
    *,
    connection: Connection,
) -> None:
    """Explains an answer of a running server, and what would allow.

    Exit status: 0 allow, 1 deny, 2 no answer. The caller needs the capability `audit`.
    """
    from pdpapi.v1.explain_service_pb2 import ExplainRequest
    from pdpapi.v1.explain_service_pb2_grpc import ExplainServiceStub

    request = ExplainRequest(permission=permission)
    if bool(permission) == bool(decision):
        raise typer.BadParameter("name a permission, or a decision with --decision")
    if decision:
        if user or token or resource or organization:
            raise typer.BadParameter("has its own actor and resource", param_hint="--decision")
        request.decision_id = decision
        request.resource.attributes.update(mapping(attributes, "--attributes"))
    elif user:
        request.actor.user_id = user
        request.actor.organization_id = active_organization
        request.actor.session_id = session
        request.actor.impersonator_id = impersonator
        request.actor.claims.update(mapping(claims, "--claims"))
        if first_factor_minutes is not None:
            request.actor.first_factor_minutes = first_factor_minutes
        if second_factor_minutes is not None:
            request.actor.second_factor_minutes = second_factor_minutes
    elif token:
        request.actor_token = token_text(token).strip()
    else:
        raise typer.BadParameter("name a user, or give a token with --token or PDP_TOKEN")
    _write_resource(request, resource, organization, attributes)
    request.context.update(mapping(context, "--context"))
    with connected(connection) as channel:
        response = method_of(ExplainServiceStub(channel).Explain, connection)(request)
    if output is Output.JSON:
        from google.protobuf.json_format import MessageToDict

        fields = MessageToDict(response, preserving_proto_field_name=True)
        emit_json(fields, indent=2)
    else:
        for line in text_lines(response):
            say(line)
    from pdpapi.v1.core_pb2 import DECISION_ALLOW

    raise typer.Exit(0 if response.decision == DECISION_ALLOW else 1)


def _write_resource(
    request: "ExplainRequest", resource: str | None, organization: str | None, attributes: str
) -> None:
    if resource is not None:
        request.resource.type, _, request.resource.id = resource.partition(":")
        request.resource.organization_id = organization or ""
        request.resource.attributes.update(mapping(attributes, "--attributes"))
    elif organization is not None:
        raise typer.BadParameter("is that of a resource: name one", param_hint="--organization")


def text_lines(response: "ExplainResponse") -> list[str]:
    """The tree, its differences from the record, and the changes that would allow."""
    lines = list(tree_lines(response.tree))
    if response.HasField("recorded"):
        decided = response.recorded.decided_at.ToDatetime().isoformat(timespec="seconds")
        lines.append(
            f"recorded {decided}Z at revision {response.recorded.revision}, asked again at"
            f" revision {response.revision}; the log keeps no claims, factors or sent values"
        )
        if not response.differences:
            lines.append("today's decision is the recorded one")
        lines += [
            f"  {change.field}: then {change.then or 'none'}, today {change.now or 'none'}"
            for change in response.differences
        ]
    if response.would_allow:
        lines.append("any of these would allow it:")
        lines += [
            "  - " + "; and ".join(change.text for change in way.changes)
            for way in response.would_allow
        ]
    if response.search_was_cut:
        lines.append("the search was cut at its bound: other changes may allow, also smaller ones")
    return lines

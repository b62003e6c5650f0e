"""`pdp diff`: what changes from one policy to another, in entities or in answers."""

import functools
import json
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pdp.cli.output import emit, fail, say
from pdp.cli.remote import DEFAULT_SERVER, ApiKey, Ca, Certificate, Key, Server, asked

if TYPE_CHECKING:
    from pdp.document import PolicyDocument
    from pdp.impact import Cell, Example, Impact

_SERVER: Final = "server"
_EXPORT_SECONDS: Final = 120.0


class Output(StrEnum):
    """How the result is printed."""

    TEXT = "text"
    JSON = "json"


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A policy document, or `server`.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The same; what A would become.")],
    effective: Annotated[
        bool, typer.Option("--effective", help="Compare answers instead of entities.")
    ] = False,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="How to print it.")
    ] = Output.TEXT,
    server: Server = DEFAULT_SERVER,
    api_key: ApiKey = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Shows what changes from A to B.

    A section that a document does not contain is taken from the other one. With --effective: which
    answers change, for all stored users, permissions and resources.

    Exit status: 0 nothing changes, 1 something does, 2 there is no result.
    """
    from pdp.document import described, differences

    def read(name: str) -> "PolicyDocument":
        if name != _SERVER:
            return _read_file(name)
        return _read_server(server, api_key, ca, certificate, key)

    old, new = read(before), read(after)
    if effective:
        from pdp.clock import wall_clock
        from pdp.document import World
        from pdp.impact import effective_differences

        began = time.monotonic()
        worlds = World(old.over(new)), World(new.over(old))
        impact = effective_differences(*worlds, wall_clock())
        if output is Output.JSON:
            emit(json.dumps(_fields(impact), indent=2) + "\n")
        else:
            _show(impact, time.monotonic() - began)
        raise typer.Exit(1 if impact.cells or impact.not_compared else 0)
    lines = described(differences(old, new))
    if output is Output.JSON:
        items = [{"action": one.action.value, "kind": one.kind, "text": one.text} for one in lines]
        emit(json.dumps(items, indent=2) + "\n")
    else:
        for line in lines:
            say(line.text)
        say(f"{len(lines)} changes")
    raise typer.Exit(1 if lines else 0)


def _read_file(name: str) -> "PolicyDocument":
    from pdp.document import parse_document
    from pdp.errors import InvalidPolicy

    try:
        return parse_document(Path(name).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{name}: is not UTF-8 text") from None
    except InvalidPolicy as error:
        for violation in error.violations:
            fail(violation.located(name))
        raise typer.Exit(2) from None


def _read_server(
    server: str, api_key: str | None, ca: str | None, certificate: str | None, key: str | None
) -> "PolicyDocument":
    from pdp_client.transport import caller_metadata
    from pdpapi.v1.administration_service_pb2 import StreamExportRequest
    from pdpapi.v1.administration_service_pb2_grpc import PolicyAdministrationServiceStub

    from pdp.document import parse_document

    with asked(server, api_key, ca, certificate, key) as channel:
        export = functools.partial(
            PolicyAdministrationServiceStub(channel).StreamExport,
            timeout=_EXPORT_SECONDS,
            metadata=caller_metadata(api_key),
        )
        text = "".join(response.part for response in export(StreamExportRequest()))
    return parse_document(text)


def _show(impact: "Impact", seconds: float) -> None:
    for cell in impact.cells:
        say(
            f"{cell.permission} on {cell.resource_type}: {_was(cell)} -> {cell.effect.value}: "
            f"{cell.users} users, {cell.answers} answers"
        )
        for example in cell.examples:
            say(f"  {_example_text(example)}")
    for permission, answers in impact.not_compared.items():
        say(f"{permission}: {answers} answers were not compared: too many decisions")
    if impact.assumed:
        say(f"taken as absent, because it is not stored: {', '.join(sorted(impact.assumed))}")
    answers = sum(cell.answers for cell in impact.cells)
    say(
        f"{answers} answers change, of {impact.users} users and {impact.permissions} permissions "
        f"({seconds:.2f} s)"
    )


def _was(cell: "Cell") -> str:
    from pdp.model import Effect

    return "deny" if cell.effect is Effect.ALLOW else "allow"


def _example_text(example: "Example") -> str:
    resource = example.resource
    what = "no resource" if resource is None else f"{resource.type}:{resource.id}"
    where = "" if example.organization_id is None else f" in {example.organization_id}"
    steps = (
        one.reason.name + (f" by {one.rule_id}" if one.rule_id is not None else "")
        for one in (example.before, example.after)
    )
    return f"{example.user_id}{where}, {what}: {' -> '.join(steps)}"


def _fields(impact: "Impact") -> dict[str, Any]:
    return {
        "users": impact.users,
        "permissions": impact.permissions,
        "changes": [
            {
                "permission": cell.permission,
                "resource_type": cell.resource_type,
                "before": _was(cell),
                "after": cell.effect.value,
                "users": cell.users,
                "answers": cell.answers,
                "examples": [
                    {
                        "user": one.user_id,
                        "organization": one.organization_id,
                        "resource": one.resource and f"{one.resource.type}:{one.resource.id}",
                        "before": {"reason": one.before.reason.name, "rule": one.before.rule_id},
                        "after": {"reason": one.after.reason.name, "rule": one.after.rule_id},
                    }
                    for one in cell.examples
                ],
            }
            for cell in impact.cells
        ],
        "not_compared": impact.not_compared,
        "assumed_absent": sorted(impact.assumed),
    }

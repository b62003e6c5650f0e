"""PolicyAdministrationService: five methods for each kind of entity, and RevokeSession, Apply,
Export and Barrier."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.protobuf.message import Message
from pdpapi.v1 import administration_service_pb2 as pb

from pdp import model
from pdp.administration_records import Author, Source
from pdp.administrator import Administrator
from pdp.document import Action, parse_document
from pdp.errors import LimitExceeded
from pdp.facts import Barriers
from pdp.kinds import KINDS
from pdp.limits import APPLY_BYTES_MAX, DOCUMENT_CHANGES_MAX, MESSAGE_BYTES_MAX
from pdp.wire.callers import Caller
from pdp.wire.convert.entities import CONVERSIONS
from pdp.wire.convert.pages import Pages, page_size
from pdp.wire.methods import AnyMethod, blocking, rpc
from pdp.wire.services.exports import Exports

SERVICE = pb.DESCRIPTOR.services_by_name["PolicyAdministrationService"].full_name

EXPORT_BYTES_MAX = MESSAGE_BYTES_MAX - 1024
"""The longest document that Export returns: clients accept no longer message by default. Use
StreamExport for longer ones."""

_ACTIONS = {
    Action.CREATE: pb.Change.ACTION_CREATE,
    Action.UPDATE: pb.Change.ACTION_UPDATE,
    Action.DELETE: pb.Change.ACTION_DELETE,
}


Answer = Callable[[Any, Caller], Message]
"""Answers one method. Blocks."""


def administration_methods(
    administrator: Administrator, barriers: Barriers, pages: Pages, pool: ThreadPoolExecutor
) -> Sequence[AnyMethod]:
    """The methods of PolicyAdministrationService, which block in threads of `pool`."""
    answers = [
        answer
        for field, entity in KINDS.items()
        for answer in _answers_of_kind(field, entity, administrator, pages)
    ]

    def revoke_session(
        request: pb.RevokeSessionRequest, caller: Caller
    ) -> pb.RevokeSessionResponse:
        author = _author(request, caller)
        revision = administrator.revoke_session(request.session_id, request.user_id, author)
        return pb.RevokeSessionResponse(revision=revision)

    def apply(request: pb.ApplyRequest, caller: Caller) -> pb.ApplyResponse:
        document = parse_document(request.document)
        revision, changes = administrator.apply(
            document,
            dry_run=request.dry_run,
            expected_revision=request.expected_revision,
            author=_author(request, caller),
        )
        return pb.ApplyResponse(
            revision=revision,
            changes_total=len(changes),
            warnings=[
                pb.Warning(
                    field=warning.field, description=warning.description, line=warning.line or 0
                )
                for warning in administrator.lint(document)
            ],
            changes=[
                pb.Change(
                    action=_ACTIONS[change.action], kind=change.kind, key="/".join(change.key)
                )
                for change in changes[:DOCUMENT_CHANGES_MAX]
            ],
        )

    def export(request: pb.ExportRequest, _: Caller) -> pb.ExportResponse:
        sections = administrator.check_sections(request.sections)
        document, revision = administrator.export(sections)
        if len(document.encode()) > EXPORT_BYTES_MAX:
            raise LimitExceeded("export_bytes_max", EXPORT_BYTES_MAX, len(document.encode()))
        return pb.ExportResponse(document=document, revision=revision)

    def barrier(request: pb.BarrierRequest, _: Caller) -> pb.BarrierResponse:
        passed = barriers.wait(request.revision)
        return pb.BarrierResponse(
            revision=passed.revision, replicas=passed.replicas, silent=passed.silent
        )

    answers += [
        ("RevokeSession", revoke_session),
        ("Apply", apply),
        ("Export", export),
        ("Barrier", barrier),
    ]
    methods = [
        rpc(
            SERVICE,
            name,
            "administer",
            blocking(pool, answer),
            APPLY_BYTES_MAX if name == "Apply" else MESSAGE_BYTES_MAX,
        )
        for name, answer in answers
    ]
    return [*methods, Exports(administrator, SERVICE).method()]


def _answers_of_kind(
    field: str, kind: type[model.Entity], administrator: Administrator, pages: Pages
) -> Sequence[tuple[str, Answer]]:
    name = field.title().replace("_", "")  # as methods and messages name it: `ResourceType`
    read, write = CONVERSIONS[kind]

    def response(method: str, **fields: Any) -> Message:
        message: Message = getattr(pb, f"{method}Response")(**fields)
        return message

    def create(request: Any, caller: Caller) -> Message:
        given = read(getattr(request, field))
        entity, revision = administrator.create(given, _author(request, caller))
        return response(f"Create{name}", **{field: write(entity)}, revision=revision)

    def get(request: Any, _: Caller) -> Message:
        entity = administrator.get(kind, _key(request))
        return response(f"Get{name}", **{field: write(entity)})

    def list_page(request: Any, _: Caller) -> Message:
        size = page_size(request)
        found = administrator.list(kind, pages.after(request), size + 1)
        more = len(found) > size
        page = found[:size]
        return response(
            f"List{name}s",
            **{f"{field}s": [write(entity) for entity in page]},
            next_page_token=pages.token(request, model.key_of(page[-1])) if more else "",
        )

    def update(request: Any, caller: Caller) -> Message:
        given = read(getattr(request, field))
        entity, revision = administrator.update(given, _author(request, caller))
        return response(f"Update{name}", **{field: write(entity)}, revision=revision)

    def delete(request: Any, caller: Caller) -> Message:
        revision = administrator.delete(kind, _key(request), _author(request, caller))
        return response(f"Delete{name}", revision=revision)

    return (
        (f"Create{name}", create),
        (f"Get{name}", get),
        (f"List{name}s", list_page),
        (f"Update{name}", update),
        (f"Delete{name}", delete),
    )


def _key(request: Message) -> model.Key:
    """The key in a Get or Delete request, whose fields are its parts, in order, and a reason."""
    names = (field.name for field in request.DESCRIPTOR.fields)
    return tuple(getattr(request, name) for name in names if name != "reason")


def _author(request: Any, caller: Caller) -> Author:
    return Author(Source.API, caller.name, request.reason)

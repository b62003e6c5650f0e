"""PolicyAdministrationService: five methods for each kind of entity, made from one table, and
RevokeSession, Apply, Export and Barrier."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from pdpapi.v1 import administration_service_pb2 as pb

from pdp import model
from pdp.administration_records import Author, Source
from pdp.administrator import Administrator
from pdp.document import Action, parse_document
from pdp.errors import LimitExceeded
from pdp.facts import Barriers
from pdp.kinds import kind_of
from pdp.limits import APPLY_BYTES_MAX, DOCUMENT_CHANGES_MAX, MESSAGE_BYTES_MAX
from pdp.wire.callers import Caller
from pdp.wire.convert import entities
from pdp.wire.convert.pages import Pages, page_size
from pdp.wire.methods import AnyMethod, Method, blocking
from pdp.wire.services.exports import Exports

SERVICE = pb.DESCRIPTOR.services_by_name["PolicyAdministrationService"].full_name

EXPORT_BYTES_MAX = MESSAGE_BYTES_MAX - 1024
"""Of a document in one message, as every client takes it by default; StreamExport has no such
bound."""

_ACTIONS = {
    Action.CREATE: pb.Change.ACTION_CREATE,
    Action.UPDATE: pb.Change.ACTION_UPDATE,
    Action.DELETE: pb.Change.ACTION_DELETE,
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of entity, on both sides of the wire."""

    entity: type[model.Entity]
    read: Callable[[Any], model.Entity]
    write: Callable[[Any], Message]

    @property
    def field(self) -> str:
        return kind_of(self.entity)

    @property
    def name(self) -> str:
        """As methods and messages name it: `ResourceType`."""
        return self.field.title().replace("_", "")

    @property
    def plural(self) -> str:
        return f"{self.name}s"


_KINDS = (
    _Kind(
        model.Permission,
        entities.permission_of,
        entities.permission_message,
    ),
    _Kind(
        model.ResourceType,
        entities.resource_type_of,
        entities.resource_type_message,
    ),
    _Kind(model.Role, entities.role_of, entities.role_message),
    _Kind(model.Rule, entities.rule_of, entities.rule_message),
    _Kind(model.Grant, entities.grant_of, entities.grant_message),
    _Kind(model.Route, entities.route_of, entities.route_message),
    _Kind(model.Resource, entities.resource_of, entities.resource_message),
    _Kind(model.User, entities.user_of, entities.user_message),
    _Kind(
        model.Organization,
        entities.organization_of,
        entities.organization_message,
    ),
    _Kind(
        model.Membership,
        entities.membership_of,
        entities.membership_message,
    ),
)


Answer = Callable[[Any, Caller], Message]
"""Answers one method; blocks while the database works."""


def administration_methods(
    administrator: Administrator, barriers: Barriers, pages: Pages, pool: ThreadPoolExecutor
) -> Sequence[AnyMethod]:
    """The methods of PolicyAdministrationService. They block in threads of `pool`."""
    answers = [one for kind in _KINDS for one in _answers_of_kind(kind, administrator, pages)]

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
                pb.Warning(field=one.field, description=one.description, line=one.line or 0)
                for one in administrator.lint(document)
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
        Method(
            SERVICE,
            name,
            "administer",
            getattr(pb, f"{name}Request"),
            blocking(pool, answer),
            APPLY_BYTES_MAX if name == "Apply" else MESSAGE_BYTES_MAX,
        )
        for name, answer in answers
    ]
    return [*methods, Exports(administrator, SERVICE).method()]


def _answers_of_kind(
    kind: _Kind, administrator: Administrator, pages: Pages
) -> Sequence[tuple[str, Answer]]:
    def response(verb: str, **fields: Any) -> Message:
        message: Message = getattr(pb, f"{verb}Response")(**fields)
        return message

    def create(request: Any, caller: Caller) -> Message:
        given = kind.read(getattr(request, kind.field))
        entity, revision = administrator.create(given, _author(request, caller))
        return response(f"Create{kind.name}", **{kind.field: kind.write(entity)}, revision=revision)

    def get(request: Any, _: Caller) -> Message:
        entity = administrator.get(kind.entity, _key(request))
        return response(f"Get{kind.name}", **{kind.field: kind.write(entity)})

    def list_page(request: Any, _: Caller) -> Message:
        size = page_size(request)
        found = administrator.list(kind.entity, pages.after(request), size + 1)
        more = len(found) > size
        page = found[:size]
        return response(
            f"List{kind.plural}",
            **{f"{kind.field}s": [kind.write(entity) for entity in page]},
            next_page_token=pages.token(request, model.key_of(page[-1])) if more else "",
        )

    def update(request: Any, caller: Caller) -> Message:
        given = kind.read(getattr(request, kind.field))
        entity, revision = administrator.update(given, _author(request, caller))
        return response(f"Update{kind.name}", **{kind.field: kind.write(entity)}, revision=revision)

    def delete(request: Any, caller: Caller) -> Message:
        revision = administrator.delete(kind.entity, _key(request), _author(request, caller))
        return response(f"Delete{kind.name}", revision=revision)

    return (
        (f"Create{kind.name}", create),
        (f"Get{kind.name}", get),
        (f"List{kind.plural}", list_page),
        (f"Update{kind.name}", update),
        (f"Delete{kind.name}", delete),
    )


def _key(request: Message) -> model.Key:
    """Get and Delete requests hold the parts of the key, in order, and at most a reason."""
    names = (field.name for field in request.DESCRIPTOR.fields)
    return tuple(getattr(request, name) for name in names if name != "reason")


def _author(request: Any, caller: Caller) -> Author:
    return Author(Source.API, caller.name, request.reason)

"""The kinds of entities as the command line names, lists and prints them: one table, and the
methods of the administration service that follow from it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdp.cli.profiles import Connection
from pdp.cli.remote import DEADLINE_SECONDS, method_of

if TYPE_CHECKING:
    import grpc
    from google.protobuf.descriptor import FieldDescriptor

PAGE_ITEMS = 500
FILTERS: Mapping[str, str] = {
    "user": "user_id",
    "organization": "organization_id",
    "role": "role",
    "permission": "permission",
    "resource": "resource",
    "type": "type",
    "status": "status",
    "effect": "effect",
}
"""Options that filter, and the field that each compares. A kind takes those whose field it has."""
Reason = Annotated[
    str, typer.Option(metavar="TEXT", help="Why, for the record of the changes: one line.")
]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of entity. Columns are fields of its message."""

    name: str
    """As `pdp.kinds` has it: `resource_type`."""
    key: tuple[str, ...]
    columns: tuple[str, ...]
    wide: tuple[str, ...] = ()
    """More columns of `-o wide`."""
    separator: str = ""
    """Between the parts of its key, as people write it."""
    related: tuple[tuple[str, str], ...] = ()
    """What `pdp describe` lists below it: another kind, and the filter that takes this key."""
    changes: tuple[str, ...] = ()
    """The kinds of the change stream that concern it; none: the one of its own name."""

    @property
    def plural(self) -> str:
        """As people name it: `resource-types`."""
        return f"{self.name.replace('_', '-')}s"

    @property
    def message(self) -> str:
        """As the contract names it: `ResourceType`."""
        return self.name.title().replace("_", "")

    def key_of(self, text: str) -> tuple[str, ...]:
        """The parts of a key that people wrote. Raises typer.BadParameter."""
        if len(self.key) == 1:
            return (text,)
        parts = tuple(text.split(self.separator, 1))
        if len(parts) != len(self.key):
            written = self.separator.join(part.removesuffix("_id").upper() for part in self.key)
            raise typer.BadParameter(f"{text!r}: a {self.name} is written as {written}")
        return parts

    def text_of(self, entity: Any) -> str:
        """The key of an entity, as people write it."""
        return self.separator.join(getattr(entity, part) for part in self.key)


KINDS = (
    Kind(
        "user",
        ("id",),
        ("id", "name", "email", "status"),
        wide=("attributes",),
        related=(("membership", "user"), ("grant", "user")),
    ),
    Kind(
        "organization",
        ("id",),
        ("id", "slug", "name"),
        related=(("membership", "organization"), ("grant", "organization")),
    ),
    Kind(
        "membership",
        ("organization_id", "user_id"),
        ("organization_id", "user_id", "role"),
        separator="/",
        changes=("USER",),
    ),
    Kind(
        "role",
        ("name",),
        ("name", "inherits"),
        wide=("description",),
        related=(("rule", "role"), ("grant", "role")),
    ),
    Kind(
        "rule",
        ("id",),
        ("id", "role", "effect", "permission", "condition"),
        wide=("description",),
    ),
    Kind(
        "grant",
        ("id",),
        (
            *("id", "role", "user_id", "organization_role"),
            *("organization_id", "resource", "expires_at"),
        ),
        wide=("not_before",),
        changes=("USER", "ROLE_GRANT", "ORGANIZATION", "RESOURCE"),
    ),
    Kind(
        "resource",
        ("type", "id"),
        ("type", "id", "organization_id", "parent"),
        wide=("attributes",),
        separator=":",
        related=(("grant", "resource"),),
    ),
    Kind("route", ("route",), ("route", "permission", "public", "resource")),
    Kind(
        "permission",
        ("name",),
        ("name", "description"),
        related=(("rule", "permission"), ("route", "permission")),
    ),
    Kind("resource_type", ("name",), ("name", "tenancy", "stored_required")),
)
_BY_NAME = {name: kind for kind in KINDS for name in (kind.name.replace("_", "-"), kind.plural)}


def kind_named(text: str) -> Kind:
    """The kind that a singular or plural name means. Raises typer.BadParameter."""
    kind = _BY_NAME.get(text.lower().replace("_", "-"))
    if kind is not None:
        return kind
    near = get_close_matches(text.lower(), _BY_NAME, 1)
    plurals = ", ".join(kind.plural for kind in KINDS)
    raise typer.BadParameter(
        f"{text!r} is not a kind"
        + (f"; did you mean {near[0]}?" if near else f" of entities: {plurals}")
    )


class Entities:
    """The entities of one kind at a server. Methods raise grpc.RpcError."""

    def __init__(
        self,
        kind: Kind,
        channel: "grpc.Channel",
        connection: Connection,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        from pdpapi.v1 import administration_service_pb2 as pb
        from pdpapi.v1.administration_service_pb2_grpc import PolicyAdministrationServiceStub

        self.kind = kind
        self._pb = pb
        self._stub = PolicyAdministrationServiceStub(channel)
        self._connection = connection
        self._deadline_seconds = deadline_seconds

    def get(self, text: str) -> Any:
        """One, by its key as people write it."""
        return getattr(self._ask("Get", text), self.kind.name)

    def delete(self, text: str, reason: str) -> int:
        """Deletes an entity; returns the revision. The reason is recorded; it may be empty."""
        return int(self._ask("Delete", text, reason=reason).revision)

    def write(self, verb: str, entity: Any, reason: str) -> Any:
        """Creates or updates one (`Create`, `Update`); returns the response."""
        fields = {self.kind.name: entity, "reason": reason}
        return self._call(f"{verb}{self.kind.message}", **fields)

    def pages(
        self, page_token: str = "", page_items: int = PAGE_ITEMS
    ) -> Iterator[tuple[str, Sequence[Any], str]]:
        """Pages from a token on: each with its own token and that of the next one."""
        while True:
            page = self._page(page_token, page_items)
            yield page_token, getattr(page, f"{self.kind.name}s"), page.next_page_token
            page_token = page.next_page_token
            if not page_token:
                return

    def matching(self, filters: Mapping[str, str]) -> Iterator[Any]:
        """All that match, page by page as they are read."""
        matches = self.filter_of(filters)
        for _, page, _ in self.pages():
            yield from filter(matches, page)

    def filter_of(self, filters: Mapping[str, str]) -> Callable[[Any], bool]:
        """Whether an entity matches. Raises typer.BadParameter for a filter of other kinds."""
        fields = (
            getattr(self._pb, f"List{self.kind.message}sResponse")
            .DESCRIPTOR.fields_by_name[f"{self.kind.name}s"]
            .message_type.fields_by_name
        )
        for name in filters:
            if FILTERS[name] not in fields:
                known = [f"--{option}" for option, field in FILTERS.items() if field in fields]
                hint = f"; they have {', '.join(known)}" if known else ""
                raise typer.BadParameter(f"{self.kind.plural} have no --{name}{hint}")
        wanted = [
            (FILTERS[name], _wanted(fields[FILTERS[name]], name, value))
            for name, value in filters.items()
        ]
        return lambda entity: all(cell(entity, field) == value for field, value in wanted)

    def more_after(self, page_token: str, items: int) -> str:
        """The token of the page after the first `items` of a page; empty: there are no more."""
        return str(self._page(page_token, items).next_page_token)

    def _page(self, page_token: str, items: int) -> Any:
        name = f"List{self.kind.message}s"
        return self._call(name, page_size=items, page_token=page_token)

    def _ask(self, verb: str, text: str, **fields: Any) -> Any:
        key = dict(zip(self.kind.key, self.kind.key_of(text), strict=True))
        return self._call(f"{verb}{self.kind.message}", **key, **fields)

    def _call(self, name: str, /, **fields: Any) -> Any:
        request = getattr(self._pb, f"{name}Request")(**fields)
        ask = method_of(getattr(self._stub, name), self._connection, self._deadline_seconds)
        return ask(request)


def heading(column: str) -> str:
    """A column's title."""
    return column.removesuffix("_id").replace("_", " ")


def cell(entity: Any, column: str) -> str:
    """A field as text; empty if it is not set."""
    field: FieldDescriptor = entity.DESCRIPTOR.fields_by_name[column]
    if field.has_presence and not entity.HasField(column):
        return ""
    value = getattr(entity, column)
    if field.enum_type is not None:
        return _names(field)[value] if value in field.enum_type.values_by_number else str(value)
    if field.message_type is not None:
        return _message_text(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else ", ".join(value)


def _names(field: "FieldDescriptor") -> Mapping[int, str]:
    """The members of an enum as people write them; 0, which is unspecified, is empty."""
    members = field.enum_type.values  # type: ignore[union-attr]
    prefix = members[0].name.removesuffix("UNSPECIFIED")
    return {
        member.number: member.name.removeprefix(prefix).lower() * bool(member.number)
        for member in members
    }


def _wanted(field: "FieldDescriptor", option: str, value: str) -> str:
    """The value that a filter compares. Raises typer.BadParameter for one that no entity has: an
    empty list would be taken for an answer."""
    if field.enum_type is None:
        return value
    known = sorted(filter(None, _names(field).values()))
    if value.lower() not in known:
        raise typer.BadParameter(
            f"{value!r} is not one of {', '.join(known)}", param_hint=f"--{option}"
        )
    return value.lower()


def _message_text(value: Any) -> str:
    match value.DESCRIPTOR.name:
        case "Timestamp":
            return str(value.ToJsonString())
        case "ResourceRef":
            return f"{value.type}:{value.id}"
        case _:
            from google.protobuf.json_format import MessageToDict

            fields = MessageToDict(value)
            return json.dumps(fields, ensure_ascii=False, sort_keys=True) if fields else ""

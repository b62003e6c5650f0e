"""What people put into addresses and forms, read strictly, and what several pages show."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pdp import limits
from pdp.attributes import normalise_attributes
from pdp.console.parts import Visit
from pdp.console.rendering import address
from pdp.decision import Step
from pdp.decision.explanation import StepKind
from pdp.errors import InvalidRequest, Violation
from pdp.model import Attributes, ResourceRef
from pdp.strict_json import NotStrictJson, parse_object

_TIMES: Final = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d")


def time_of(text: str, field: str) -> float | None:
    """Seconds since 1970 of a time in UTC; None: it is empty. Raises InvalidRequest."""
    if not text:
        return None
    for form in _TIMES:
        try:
            return datetime.strptime(text.removesuffix("Z"), form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    raise InvalidRequest(Violation(field, "is not a time such as 2026-11-30T10:32"))


def choice_of(text: str, choices: Mapping[str, Any], field: str) -> Any:
    """The choice with a name; None: it is empty. Raises InvalidRequest."""
    if not text:
        return None
    if text not in choices:
        raise InvalidRequest(Violation(field, f"{text!r} is not one of the choices"))
    return choices[text]


def number_of(text: str, field: str, low: int, high: int) -> int | None:
    """A number of at least `low` and at most `high`; None: it is empty. Raises InvalidRequest."""
    if not text:
        return None
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(high))
    if is_number and low <= int(text) <= high:
        return int(text)
    raise InvalidRequest(Violation(field, f"must be a number from {low} to {high}"))


def object_of(text: str, field: str) -> Attributes:
    """A JSON object; empty text is an empty one. Raises InvalidRequest."""
    if not text.strip():
        return {}
    try:
        found = parse_object(text.encode("utf-8", "replace"), depth_max=limits.ATTRIBUTE_DEPTH_MAX)
    except NotStrictJson as error:
        raise InvalidRequest(Violation(field, f"is not a JSON object: {error}")) from None
    return normalise_attributes(found, field)


def link_to_decisions(start: float | None = None, **filters: str) -> str:
    """The address of a search; `start` in seconds since 1970."""
    text = "" if start is None else f"{datetime.fromtimestamp(start, UTC):%Y-%m-%dT%H:%M}"
    return address("/decisions", **filters, **{"from": text})


def next_page(path: str, visit: Visit, **changes: str) -> str:
    """The address of a page with some parameters changed."""
    return address(path, **{**visit.query, **changes})


def link_to_explanation(
    user: str, organization: str | None, permission: str, ref: ResourceRef | None
) -> str:
    """The address of the explanation of a question about a user."""
    type_, id_ = (ref.type, ref.id) if ref is not None else ("", "")
    given = {"id": user, "organization": organization, "permission": permission}
    return f"{address('/user', **given, type=type_, resource=id_)}#may"


def rule_steps(tree: Step) -> list[Step]:
    """The rules of an explanation that were looked at: they have their conditions below."""
    kinds = (StepKind.DENY_RULES, StepKind.ALLOW_RULES)
    return [step for part in tree.children if part.kind in kinds for step in part.children]

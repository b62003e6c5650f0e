"""Try it: a question about a policy that is not stored."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from pdp.console.pages.inputs import object_of
from pdp.console.parts import ConsoleParts, Page, Shown, Visit
from pdp.decision import Explanation, explain
from pdp.document import Asked, World, parse_document, reference_violations, refuse
from pdp.errors import InvalidPolicy, InvalidRequest, LimitExceeded, Violation
from pdp.model import Actor, Question, Resource

POLICY_BYTES_MAX: Final = 32 * 1024
RUNNING_MAX: Final = 1
"""Questions that are answered at the same time: each keeps a core busy."""
FIELDS: Final = (
    *("policy", "user", "organization", "permission", "type", "id"),
    *("resource_organization", "attributes", "context", "second_factor_minutes"),
)
EXAMPLE: Final = {
    "policy": """\
version: 1
permissions:
  course:edit: Change a course
roles:
  INSTRUCTOR:
    allow:
      - permission: course:edit
        when: resource.attributes.owner == actor.id
grants:
  - {role: INSTRUCTOR, user: user_ivan, organization: org_school}
users:
  - {id: user_ivan}
memberships:
  - {organization: org_school, user: user_ivan, role: "org:member"}
resources:
  - {type: course, id: algebra, organization: org_school, attributes: {owner: user_ivan}}
""",
    "user": "user_ivan",
    "organization": "org_school",
    "permission": "course:edit",
    "type": "course",
    "id": "algebra",
}

_running = asyncio.Semaphore(RUNNING_MAX)


async def show(parts: ConsoleParts, visit: Visit) -> Shown:
    """The form; after it was sent, also the answer. Nothing is stored."""
    given: Mapping[str, str] = visit.form or EXAMPLE
    answer: Explanation | None = None
    problems: list[str] = []
    if visit.form:
        now = parts.clock()
        try:
            async with _running:
                answer = await parts.blocking(lambda: explained(given, now))
        except (InvalidPolicy, InvalidRequest) as error:
            problems = [str(violation) for violation in error.violations]
        except LimitExceeded as error:
            problems = [error.message]
    values: dict[str, Any] = {
        "given": {name: given.get(name, "") for name in FIELDS},
        "answer": answer,
        "problems": problems,
    }
    return Shown("playground.html", values)


def explained(given: Mapping[str, str], now: float) -> Explanation:
    """Decides a question about a policy document with its facts.

    Raises:
        InvalidPolicy: The document is not valid.
        InvalidRequest: The question is not.
        LimitExceeded: The document is longer than POLICY_BYTES_MAX.
    """
    text = given.get("policy", "").replace("\r\n", "\n")
    size = len(text.encode("utf-8", "replace"))
    if size > POLICY_BYTES_MAX:
        raise LimitExceeded("policy_bytes_max", POLICY_BYTES_MAX, size)
    user, permission = given.get("user", "").strip(), given.get("permission", "").strip()
    for name, value in (("user", user), ("permission", permission)):
        if not value:
            raise InvalidRequest(Violation(name, "must not be empty"))
    document = parse_document(text)
    refuse(reference_violations(document))
    resource = None
    if given.get("type", "").strip():
        resource = Resource(
            given["type"].strip(),
            given.get("id", "").strip(),
            given.get("resource_organization", "").strip() or None,
            attributes=object_of(given.get("attributes", ""), "attributes"),
        )
    asked = Asked(
        Actor(user, "sess_1", given.get("organization", "").strip() or None),
        Question(permission, resource, object_of(given.get("context", ""), "context")),
        second_factor_minutes=_minutes(given.get("second_factor_minutes", "")),
    )
    # Does not search for changes that would allow: with an untrusted policy that may take minutes.
    return explain(World(document).situation(asked, now), search=False)


def _minutes(text: str) -> float | None:
    text = text.strip()
    if not text:
        return None
    if not text.isdecimal() or not text.isascii():
        raise InvalidRequest(Violation("second_factor_minutes", "is not a number of minutes"))
    return float(text[:9])


PAGES = (Page("/try", "try", "Try it", show, in_menu=True, methods=("GET", "POST")),)

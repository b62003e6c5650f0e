"""The golden matrix: each permission of the example policies, for each role and resource.

`python -m tests.decision.matrix` writes the page again; a test compares it with what is decided.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pdp.document import Asked, PolicyDocument, parse_document
from pdp.document.policy_tests import parse_tests
from pdp.model import (
    Actor,
    Grant,
    InOrganization,
    Membership,
    Question,
    Reason,
    Resource,
    ToUser,
    User,
)
from tests.kit.decision.cases import decide_document

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "tests" / "golden" / "decision_matrix.md"
POLICIES = {
    name: ROOT / path
    for name, path in {
        "courses": "examples/courses.yaml",
        "next-courses": "examples/next-courses/pdp.yaml",
        "fastapi-courses": "examples/fastapi-courses/pdp_test.yaml",
        "situations": "tests/golden/demo_policy.yaml",
    }.items()
}
ORGANIZATION = "org_school"
NO_ROLE = "no role"
MARKS = {
    Reason.ALLOWED_BY_RULE: ("✓", "allowed"),
    Reason.PERMISSION_NOT_GRANTED: ("·", "no role of the actor grants the permission"),
    Reason.CONDITION_NOT_MET: ("c", "the rule's condition is false"),
    Reason.ATTRIBUTE_MISSING: ("a", "a condition reads an attribute that is absent"),
    Reason.DENIED_BY_RULE: ("✗", "a deny rule applies"),
    Reason.WRONG_ORGANIZATION: ("o", "the resource is in another organization"),
    Reason.RESOURCE_ORGANIZATION_UNKNOWN: ("?", "the resource's organization is unknown"),
    Reason.RESOURCE_UNKNOWN: ("u", "the resource has to be stored, and is not"),
}
NOT_STORED = "not-stored"


@dataclass(frozen=True)
class Cell:
    """One decision of the matrix."""

    permission: str
    resource: str
    role: str
    reason: Reason


def document_of(path: Path) -> PolicyDocument:
    """A policy; or the policy of a file of tests, with the facts of the tests."""
    text = path.read_text(encoding="utf-8")
    if not path.stem.endswith("_test"):
        return parse_document(text)
    return parse_tests(text, lambda name: (path.parent / name).read_text("utf-8")).document


def cells_of(document: PolicyDocument) -> Iterator[Cell]:
    """Every permission x resource of its type x role, decided by the core."""
    holders = {role.name: f"user_of_{role.name}" for role in document.roles or ()}
    for grant in document.grants or ():
        # The policy's own users first: conditions compare their ids with attributes.
        if isinstance(grant.subject, ToUser):
            holders[grant.role] = grant.subject.user_id
    document = _with_holders(document, holders)
    for permission in document.permissions or ():
        for label, resource in _resources_of(document, permission.name):
            for role, user_id in {**holders, NO_ROLE: "user_without_role"}.items():
                asked = Asked(
                    Actor(user_id, "sess_1", ORGANIZATION), Question(permission.name, resource)
                )
                decision = decide_document(document, (), asked)
                yield Cell(permission.name, label, role, decision.reason)


def _with_holders(document: PolicyDocument, holders: dict[str, str]) -> PolicyDocument:
    """Adds a member for each role that no user holds, and one without any."""
    stored = {user.id for user in document.users or ()}
    added = {user_id: role for role, user_id in holders.items() if user_id not in stored}
    members = [*added, "user_without_role"]
    return replace(
        document,
        users=(*(document.users or ()), *map(User, members)),
        memberships=(
            *(document.memberships or ()),
            *(Membership(ORGANIZATION, user_id, "org:guest") for user_id in members),
        ),
        grants=(
            *(document.grants or ()),
            *(
                Grant(f"of-{role}", role, ToUser(user_id), InOrganization(ORGANIZATION))
                for user_id, role in added.items()
            ),
        ),
    )


def _resources_of(
    document: PolicyDocument, permission: str
) -> Iterator[tuple[str, Resource | None]]:
    kind = permission.partition(":")[0]
    yield "no resource", None
    stored = [resource.id for resource in document.resources or () if resource.type == kind]
    for id_ in [*stored, NOT_STORED] if stored else ():
        yield f"{kind} {id_}", Resource(kind, id_)


def render() -> str:
    """The page, as Markdown."""
    lines = [
        "# Who may do what",
        "",
        "Decisions of the example policies. All actors act for the organization `org_school`. Each",
        "column is an actor with that role alone, and each row one or more resources with equal",
        "decisions.",
        "",
        "| mark | reason | meaning |",
        "|---|---|---|",
        *(f"| {mark} | {reason.name} | {meaning} |" for reason, (mark, meaning) in MARKS.items()),
    ]
    for name, path in POLICIES.items():
        document = document_of(path)
        lines += ["", f"## {name}: `{path.relative_to(ROOT)}`", *_table(list(cells_of(document)))]
    return "\n".join(lines) + "\n"


def _table(cells: list[Cell]) -> Iterator[str]:
    roles = list(dict.fromkeys(cell.role for cell in cells))
    rows: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for cell in cells:
        rows[cell.permission, cell.resource].append(MARKS[cell.reason][0])
    grouped: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (permission, resource), marks in rows.items():
        grouped[permission, " | ".join(marks)].append(resource)
    yield from ("", f"| permission | resource | {' | '.join(roles)} |")
    yield "|---|---|" + ":-:|" * len(roles)
    for (permission, marks), resources in grouped.items():
        yield f"| {permission} | {', '.join(resources)} | {marks} |"


def undecided(cells: list[Cell]) -> set[str]:
    """Permissions and roles of which the matrix shows no allow, or no denial."""
    allowed = Counter[str]()
    denied = Counter[str]()
    for cell in cells:
        counter = allowed if cell.reason is Reason.ALLOWED_BY_RULE else denied
        counter.update((cell.permission, cell.role))
    names = {name for cell in cells for name in (cell.permission, cell.role)}
    return {name for name in names if not allowed[name] or not denied[name]}


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")

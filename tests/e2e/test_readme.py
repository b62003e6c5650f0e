"""What the README says about Clerk, with a real server and real messages: after a webhook, Check
answers the same token differently. The table is read out of the README: each of its rows holds."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pdpapi.v1.core_pb2 import Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit.clerk import events as clerk
from tests.kit.clerk.events import INSTANCE_ID, SECRET, T0
from tests.kit.server import ServerProcess, Stubs, running_server, token_of
from tests.kit.wire.recorded import logged_reason

README = (Path(__file__).parents[2] / "README.md").read_text()
ROLES = """
permissions: [course:view]
roles: {STUDENT: {allow: [course:view]}}
grants: [{role: STUDENT, organization_role: "org:member"}]
"""
ROW = re.compile(
    r"^\| (`[a-z][A-Za-z.]+`[^|]*) \| (is no longer denied|is denied) with ([A-Z_]+) \|$"
)
TABLE = [found.groups() for line in README.splitlines() if (found := ROW.match(line))]
LATER = T0 + 60_000


def events_of(says: str) -> list[str]:
    """`session.revoked`, `session.ended` or `session.removed` -> each of them."""
    types = re.findall(r"`([A-Za-z.]+)`", says)
    words = re.findall(r"banned|locked", says)
    return [f"{type_}, {word}" for type_ in types for word in words] if words else types


CASES = [(event, answer, reason) for says, answer, reason in TABLE for event in events_of(says)]


def test_the_table_of_the_readme_is_found_whole() -> None:
    assert len(TABLE) == 6
    assert len(CASES) == 9


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Stubs]]:
    settings = {"instance_id": INSTANCE_ID, "webhook_secrets": [SECRET]}
    directory = tmp_path_factory.mktemp("readme")
    with running_server(directory, ROLES, CLERK=settings) as server:
        yield server


class Student:
    """One person with an account at Clerk, in an organization, holding one token all the time."""

    def __init__(self, server: ServerProcess, stubs: Stubs, number: int) -> None:
        self._server, self._stubs = server, stubs
        self.user_id, self.organization_id = f"user_{number}", f"org_{number}"
        self.session_id, self.membership_id = f"sess_{number}", f"orgmem_{number}"
        self._token = token_of(
            self.user_id, organization_id=self.organization_id, session_id=self.session_id
        )

    def notify(self, event: str) -> None:
        """Clerk delivers one event of this account."""
        type_, _, word = event.partition(", ")
        data = self._object(type_, word)
        status, said = clerk.deliver(self._server.http_port, clerk.event(type_, data, at=LATER))
        assert status == 200, said

    def answer(self) -> str:
        course = Resource(type="course", id="algebra", organization_id=self.organization_id)
        request = CheckRequest(actor_token=self._token, permission="course:view", resource=course)
        return logged_reason(self._stubs, request)

    def _object(self, type_: str, word: str) -> dict[str, object]:
        kind, _, what = type_.partition(".")
        updated_at = T0 if what == "created" else LATER
        if kind == "session":
            return clerk.session(self.session_id, user_id=self.user_id, status=what)
        if kind == "organizationMembership":
            return clerk.membership(
                self.membership_id, organization_id=self.organization_id, user_id=self.user_id
            )
        if what == "deleted":
            return clerk.deleted("user", self.user_id)
        flags = {word: True} if word else {}
        return clerk.user(self.user_id, updated_at=updated_at, **flags)


@pytest.mark.parametrize(("event", "answer", "reason"), CASES, ids=[case[0] for case in CASES])
def test_what_clerk_says_changes_the_next_answer_to_the_same_token(
    school: tuple[ServerProcess, Stubs], event: str, answer: str, reason: str
) -> None:
    student = Student(*school, CASES.index((event, answer, reason)))
    before: Callable[[], None] = {
        "user.created": lambda: None,
        "organizationMembership.created": lambda: student.notify("user.created"),
    }.get(event, lambda: [*map(student.notify, ("user.created", "organizationMembership.created"))])
    before()
    if answer == "is denied":
        assert student.answer() == "ALLOWED_BY_RULE"
        student.notify(event)
        assert student.answer() == reason
    else:
        assert student.answer() == reason
        student.notify(event)
        assert student.answer() != reason

"""ListAllowedResources: pages of what an actor may use, complete, and of nothing else."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pdp import access_queries
from pdp.access_queries import Answered, Place, ResourcePage
from pdp.errors import InvalidRequest
from pdp.model import (
    Effect,
    Entity,
    Grant,
    InOrganization,
    Membership,
    OnResource,
    Permission,
    Reason,
    Resource,
    ResourceRef,
    RevokedSession,
    Role,
    Rule,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
)
from tests.kit.access_queries.oracle import listed
from tests.kit.access_queries.service import CALLER, QueryService, token_of
from tests.kit.sqlite import on_sqlite
from tests.kit.tokens import SESSION_ID
from tests.kit.waiting import run

COURSES = [Resource("course", f"{number:04}", "org_1") for number in range(10)]
FOREIGN = [Resource("course", f"{number:04}x", "org_2") for number in range(10)]


@pytest.fixture(autouse=True)
def policy(service: QueryService) -> None:
    service.write(
        Permission("course:view"),
        Permission("course:edit"),
        Role("TEACHER"),
        Rule("view", "TEACHER", Effect.ALLOW, "course:view"),
        Rule(
            "edit", "TEACHER", Effect.ALLOW, "course:edit", "resource.attributes.owner == actor.id"
        ),
        *map(User, ("user_1", "user_2")),
        Membership("org_1", "user_1", "org:member"),
        Membership("org_1", "user_2", "org:member"),
        Grant("g", "TEACHER", ToOrganizationRole("org:member")),
        *COURSES,
        *FOREIGN,
    )


def page_of(
    service: QueryService,
    token: str,
    size: int,
    place: Place | None = None,
    permission: str = "course:view",
) -> tuple[Answered, ResourcePage]:
    asked = service.queries.resources(
        token, permission, "course", {}, CALLER, size=size, place=place
    )
    return run(asked)


def ids_of(*resources: Resource) -> list[str]:
    return [one.id for one in resources]


def test_pages_go_on_until_the_list_is_complete(service: QueryService) -> None:
    token = token_of(organization="org_1")
    answered, first = page_of(service, token, 4)
    assert first.ids == ids_of(*COURSES[:4])
    assert answered.revision == service.replica.revision
    # A minute later the same actor has another token.
    _, second = page_of(service, token_of(organization="org_1"), 4, first.after)
    assert second.ids == ids_of(*COURSES[4:8])
    _, third = page_of(service, token, 4, second.after)
    assert third.ids == ids_of(*COURSES[8:])
    assert third.after is None


def test_the_pages_of_a_query_are_one_record(service: QueryService) -> None:
    token = token_of(organization="org_1")
    answered, first = page_of(service, token, 4)
    again, _ = page_of(service, token, 4, first.after)
    assert again.query_id == answered.query_id
    (record,) = service.records()
    assert (record.decision_id, record.query) == (answered.query_id, "ListAllowedResources")
    assert (record.permission, record.resource) == ("course:view", ResourceRef("course", ""))


def test_resources_of_another_organization_never_appear(service: QueryService) -> None:
    """Whatever is granted there, but to the user everywhere."""
    service.write(
        Grant("in", "TEACHER", ToUser("user_1"), InOrganization("org_2")),
        Grant("on", "TEACHER", ToUser("user_1"), OnResource(ResourceRef("course", "0000x"))),
        Grant("role", "TEACHER", ToOrganizationRole("org:member"), InOrganization("org_2")),
        Grant(
            "role on",
            "TEACHER",
            ToOrganizationRole("org:member"),
            OnResource(ResourceRef("course", "0001x")),
        ),
    )
    assert listed(service, token_of(organization="org_1"), "course:view", "course", 3) == ids_of(
        *COURSES
    )
    # Nobody is a member there, and no organization is nobody's.
    assert listed(service, token_of(organization="org_2"), "course:view", "course", 3) == []
    assert listed(service, token_of(), "course:view", "course", 3) == []
    service.write(Grant("everywhere", "TEACHER", ToUser("user_1")))
    everything = sorted(ids_of(*COURSES, *FOREIGN))
    assert listed(service, token_of(), "course:view", "course", 3) == everything


@on_sqlite
@pytest.mark.parametrize(
    "actor", [("user_2", "org_1"), ("user_1", None), ("user_1", "org_2")], ids=str
)
def test_a_place_in_the_list_of_another_actor_is_refused(
    service: QueryService, actor: tuple[str, str | None]
) -> None:
    _, first = page_of(service, token_of(organization="org_1"), 4)
    with pytest.raises(InvalidRequest, match="page_token"):
        page_of(service, token_of(*actor), 4, first.after)


def _revoke_session(service: QueryService) -> None:
    with service.store.write() as transaction:
        transaction.revoke_session(RevokedSession(SESSION_ID, "user_1"))
    service.follow(transaction.revision)


REVOKED = {
    "the grant": (None, lambda service: service.delete(Grant, "g")),
    "the membership": (
        Reason.MEMBERSHIP_UNKNOWN,
        lambda service: service.delete(Membership, "org_1", "user_1"),
    ),
    "the user": (
        Reason.ACTOR_DISABLED,
        lambda service: service.write(User("user_1", status=UserStatus.DISABLED)),
    ),
    "the session": (Reason.SESSION_REVOKED, _revoke_session),
}


@on_sqlite  # the engines differ in the search for candidates, which other tests ask on both
@pytest.mark.parametrize(("refusal", "revoke"), REVOKED.values(), ids=REVOKED.keys())
def test_what_is_revoked_between_two_pages_is_not_on_the_second(
    service: QueryService, refusal: Reason | None, revoke
) -> None:
    token = token_of(organization="org_1")
    _, first = page_of(service, token, 4)
    revoke(service)
    answered, second = page_of(service, token, 4, first.after)
    assert (second.ids, second.after, answered.refusal) == ([], None, refusal)


def test_a_token_that_has_expired_gets_no_further_page(service: QueryService) -> None:
    _, first = page_of(service, token_of(organization="org_1"), 4)
    answered, page = page_of(service, "", 4, first.after)
    assert (page.ids, page.after, answered.refusal) == ((), None, Reason.TOKEN_MALFORMED)


def test_a_page_takes_a_bounded_number_of_looks(
    service: QueryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of 2,500 courses is the actor's but the last."""
    many = [Resource("course", f"1{number:04}", "org_1") for number in range(2_500)]
    many[-1] = many[-1]._replace(attributes={"owner": "user_1"})
    service.write(*many)
    looks: Counter[str] = Counter()
    decide = access_queries.decide

    def counted(principal, question, chain):
        looks[question.resource.id] += 1
        return decide(principal, question, chain)

    monkeypatch.setattr(access_queries, "decide", counted)
    place, pages, found = None, 0, []
    while pages == 0 or place is not None:
        before = looks.total()
        _, page = page_of(
            service, token_of(organization="org_1"), 10, place, permission="course:edit"
        )
        assert 0 < looks.total() - before <= access_queries.CANDIDATES_MAX
        pages, place = pages + 1, page.after
        found += page.ids
    assert (pages, found) == (3, [many[-1].id])
    assert set(looks.values()) == {1}


def test_a_page_is_at_one_revision_though_it_takes_two_looks(
    service: QueryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is the actor's at first; after the first look everything is."""
    decide = access_queries.decide
    written = []

    def writes_once(*arguments):
        if not written:
            written.append(1)
            mine = [one._replace(attributes={"owner": "user_1"}) for one in COURSES]
            service.write(*mine)
        return decide(*arguments)

    monkeypatch.setattr(access_queries, "decide", writes_once)
    token = token_of(organization="org_1")
    answered, page = page_of(service, token, 4, permission="course:edit")
    assert page.ids == []
    assert answered.revision == service.replica.revision - 1
    _, rest = page_of(service, token, 10, page.after, permission="course:edit")
    assert rest.ids == ids_of(*COURSES[4:])


@contextmanager
def changing(service: QueryService, entities: list[Entity]) -> Iterator[None]:
    """Writes and deletes these again and again, in a thread."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with service.store.write() as transaction:
                transaction.apply_many(entities)
            with service.store.write() as transaction:
                for one in entities:
                    transaction.delete(type(one), (one.type, one.id))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_what_does_not_change_is_on_exactly_one_page(service: QueryService) -> None:
    """While others come and go between them, and what is there changes in other ways."""
    passing = [one._replace(id=f"{one.id}-passing") for one in COURSES[::2]]
    passing += [replace_id(one, "-") for one in COURSES[::3]]
    token = token_of(organization="org_1")
    with changing(service, list(passing)):
        for size in (1, 2, 3, 50) * 3:
            found = listed(service, token, "course:view", "course", size)
            assert found == sorted(set(found))
            assert set(ids_of(*COURSES)) <= set(found)
            assert set(found) <= set(ids_of(*COURSES, *passing))


def replace_id(resource: Resource, prefix: str) -> Resource:
    return resource._replace(id=prefix + resource.id)

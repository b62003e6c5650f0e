"""ListAllowedPermissions: every declared permission of a resource's type, decided as Check does."""

import pytest

from pdp.access_queries import PermissionsOn
from pdp.errors import LimitExceeded
from pdp.limits import BATCH_ITEMS_MAX
from pdp.model import (
    Effect,
    Grant,
    InOrganization,
    Membership,
    Permission,
    Reason,
    Resource,
    Role,
    Rule,
    ToUser,
    User,
    UserStatus,
)
from tests.kit.access_queries.service import CALLER, QueryService, token_of
from tests.kit.sqlite import on_sqlite
from tests.kit.waiting import run

# They are decided from rows that are read by their keys; the oracle compares them on both.
pytestmark = on_sqlite

MINE = Resource("course", "mine", "org_1")
OTHERS = Resource("course", "others", "org_2")


@pytest.fixture(autouse=True)
def policy(service: QueryService) -> None:
    names = ("course:delete", "course:edit", "course:view", "courses:view", "lesson:view")
    service.write(
        *map(Permission, names),
        Role("TEACHER"),
        Rule("view", "TEACHER", Effect.ALLOW, "course:view"),
        Rule("edit", "TEACHER", Effect.ALLOW, "course:edit", "context.place == 'office'"),
        User("user_1"),
        User("user_2", status=UserStatus.DISABLED),
        Membership("org_1", "user_1", "org:member"),
        Grant("g", "TEACHER", ToUser("user_1"), InOrganization("org_1")),
        MINE,
        OTHERS,
    )


def ask(service: QueryService, token: str, *resources: Resource, **context: object):
    return run(service.queries.permissions(token, resources, context, CALLER))


def test_each_resource_gets_the_declared_permissions_of_its_type(service: QueryService) -> None:
    token = token_of(organization="org_1")
    lesson = Resource("lesson", "1", "org_1")
    answered, results = ask(service, token, MINE, OTHERS, lesson, place="office")
    assert results == [
        PermissionsOn(["course:edit", "course:view"], ["course:delete"]),
        PermissionsOn([], ["course:delete", "course:edit", "course:view"]),
        PermissionsOn([], ["lesson:view"]),
    ]
    assert answered.refusal is None
    assert answered.revision == service.replica.revision
    _, (at_home,) = ask(service, token, MINE)
    assert at_home.allowed == ["course:view"]


def test_a_type_without_permissions_has_none(service: QueryService) -> None:
    _, results = ask(service, token_of(organization="org_1"), Resource("cour", "1", "org_1"))
    assert results == [PermissionsOn([], [])]


@pytest.mark.parametrize(
    ("actor", "reason", "denied"),
    [
        (None, Reason.TOKEN_MALFORMED, 0),
        (("user_2", None), Reason.ACTOR_DISABLED, 3),
        (("user_9", None), Reason.ACTOR_UNKNOWN, 3),
        (("user_1", "org_2"), Reason.MEMBERSHIP_UNKNOWN, 3),
    ],
    ids=lambda value: value.name if isinstance(value, Reason) else "",
)
def test_a_refused_actor_has_no_permission_and_is_told_why(
    service: QueryService, actor: tuple[str, str | None] | None, reason: Reason, denied: int
) -> None:
    token = "" if actor is None else token_of(*actor)
    answered, (result,) = ask(service, token, MINE)
    assert answered.refusal is reason
    assert (list(result.allowed), len(result.denied)) == ([], denied)


def test_a_query_is_one_record_whatever_it_denies(service: QueryService) -> None:
    token = token_of(organization="org_1")
    answered, _ = ask(service, token, MINE, OTHERS)
    refused, _ = ask(service, token_of("user_2"), MINE)
    first, second = service.records()
    assert first.decision_id == answered.query_id
    assert (first.query, first.effect, first.reason) == (
        "ListAllowedPermissions",
        Effect.ALLOW,
        Reason.QUERY_ANSWERED,
    )
    assert (first.permission, first.resource, first.caller) == ("course:*", None, CALLER)
    assert first.actor is not None
    assert (first.actor.user_id, first.revision) == ("user_1", answered.revision)
    assert second.decision_id == refused.query_id
    assert (second.effect, second.reason) == (Effect.DENY, Reason.ACTOR_DISABLED)
    assert second.resource is not None
    assert (second.resource.type, second.resource.id) == ("course", "mine")


def test_a_condition_that_costs_too_much_denies_and_its_rule_is_named(
    service: QueryService,
) -> None:
    pattern = "context.words.exists(w, resource.attributes.text.contains(w))"
    service.write(Rule("dear", "TEACHER", Effect.ALLOW, "course:delete", pattern))
    token = token_of(organization="org_1")
    course = Resource("course", "new", "org_1", None, {"text": "x" * 5_000})
    words = [f"word {number}" for number in range(900)]
    _, (result,) = ask(service, token, course, words=words)
    assert "course:delete" in result.denied
    assert service.too_expensive == ["dear"]


def test_a_query_has_as_many_answers_as_a_batch_at_most(service: QueryService) -> None:
    token = token_of(organization="org_1")
    fits = [Resource("course", str(number)) for number in range(BATCH_ITEMS_MAX // 3)]
    assert len(ask(service, token, *fits)[1]) == len(fits)
    with pytest.raises(LimitExceeded, match="batch_items_max"):
        ask(service, token, *fits, MINE)
    # Nothing was answered, so nothing is on record.
    assert len(service.records()) == 1

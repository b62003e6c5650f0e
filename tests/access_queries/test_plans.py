"""PlanResources: a filter that takes the rows for which Check allows."""

import pytest
from pdp_filters import FALSE, TRUE, Level, Row, evaluate

from pdp.errors import FilterUnsupported, LimitExceeded
from pdp.model import (
    Effect,
    Grant,
    Membership,
    OnResource,
    Permission,
    Reason,
    Resource,
    ResourceRef,
    ResourceType,
    Role,
    Rule,
    ToOrganizationRole,
    ToUser,
    User,
)
from tests.kit.access_queries.service import CALLER, QueryService, token_of
from tests.kit.sqlite import on_sqlite
from tests.kit.waiting import run

ROWS = [
    Resource("course", str(number), organization, attributes=attributes)
    for number, (organization, attributes) in enumerate(
        (organization, attributes)
        for organization in ("org_1", "org_2", None)
        for attributes in ({}, {"owner": "user_1"}, {"owner": "user_2"}, {"owner": None})
    )
]


@pytest.fixture(autouse=True)
def policy(service: QueryService) -> None:
    service.write(
        *map(Permission, ("course:edit", "course:view", "course:grade")),
        Role("TEACHER"),
        Role("VISITOR"),
        Rule(
            "edit", "TEACHER", Effect.ALLOW, "course:edit", "resource.attributes.owner == actor.id"
        ),
        Rule("grade", "TEACHER", Effect.ALLOW, "course:grade", "resource.id.matches('^[0-9]$')"),
        Rule("view", "VISITOR", Effect.ALLOW, "course:view"),
        User("user_1"),
        Membership("org_1", "user_1", "org:member"),
        Grant("g1", "TEACHER", ToOrganizationRole("org:member")),
        Grant(
            "g2",
            "VISITOR",
            ToOrganizationRole("org:member"),
            OnResource(ResourceRef("course", "2")),
        ),
        Grant(
            "g3", "VISITOR", ToOrganizationRole("org:admin"), OnResource(ResourceRef("course", "3"))
        ),
        Grant("g4", "VISITOR", ToUser("user_1"), OnResource(ResourceRef("course", "9"))),
    )


def plan(service: QueryService, permission: str, **options: bool):
    token = token_of(organization="org_1")
    return run(service.queries.plan(token, permission, "course", {}, CALLER, **options))


def taken(plan_filter) -> list[Resource]:
    return [
        one
        for one in ROWS
        if evaluate(
            plan_filter, Row((Level(one.type, one.id, one.organization_id, False),), one.attributes)
        )
    ]


@pytest.mark.parametrize("permission", ["course:edit", "course:view"])
def test_the_filter_takes_what_check_allows(service: QueryService, permission: str) -> None:
    answered, found, _ = plan(service, permission)
    allowed = service.allowed(token_of(organization="org_1"), permission, ROWS)
    assert taken(found.filter) == allowed
    assert 0 < len(allowed) < len(ROWS)
    assert answered.revision == service.replica.revision


@on_sqlite
def test_a_plan_is_one_record(service: QueryService) -> None:
    before = len(service.records())
    answered, *_ = plan(service, "course:edit")
    (record,) = service.records()[before:]
    assert (record.decision_id, record.query) == (answered.query_id, "PlanResources")
    assert record.reason is Reason.QUERY_ANSWERED


@on_sqlite
def test_what_no_filter_expresses_is_refused_with_rule_and_operator(service: QueryService) -> None:
    with pytest.raises(FilterUnsupported, match=r"matches in rule grade \(line 1, column 20\)"):
        plan(service, "course:grade")


@on_sqlite
def test_a_superset_says_that_each_row_must_be_checked(service: QueryService) -> None:
    _, found, _ = plan(service, "course:grade", allow_superset=True)
    assert [(one.rule_id, one.operator) for one in found.unsupported] == [("grade", "matches")]
    allowed = service.allowed(token_of(organization="org_1"), "course:grade", ROWS)
    assert [one for one in taken(found.filter) if one in allowed] == allowed


@on_sqlite
def test_a_refused_actor_gets_nothing_and_the_reason(service: QueryService) -> None:
    token = token_of(user="user_9")
    answered, found, _ = run(service.queries.plan(token, "course:edit", "course", {}, CALLER))
    assert (found.filter, answered.refusal) == (FALSE, Reason.ACTOR_UNKNOWN)


@on_sqlite
def test_a_refused_token_gets_nothing_and_reads_no_facts(service: QueryService) -> None:
    answered, found, _ = run(service.queries.plan("x", "course:edit", "course", {}, CALLER))
    assert (found.filter, answered.refusal) == (FALSE, Reason.TOKEN_MALFORMED)
    assert answered.epoch == ""


@on_sqlite
def test_an_unknown_permission_gives_nothing(service: QueryService) -> None:
    assert plan(service, "course:burn")[1].filter == FALSE


@on_sqlite
def test_a_grant_everywhere_without_a_condition_gives_everything(service: QueryService) -> None:
    service.write(Grant("g5", "VISITOR", ToUser("user_1")))
    assert plan(service, "course:view")[1].filter == TRUE


def test_of_a_type_that_must_be_stored_only_stored_rows_are_taken(service: QueryService) -> None:
    service.write(
        ResourceType("course", stored_required=True), Grant("g5", "VISITOR", ToUser("user_1"))
    )
    row = Row((Level("course", "1", "org_1", stored=False),), {})
    assert not evaluate(plan(service, "course:view")[1].filter, row)


def test_more_grants_than_a_filter_holds_are_refused(
    service: QueryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.limits.PLAN_NODES_MAX", 5)
    ids = [f"c{number}" for number in range(10)]
    service.write(
        *(
            Grant(one, "VISITOR", ToUser("user_1"), OnResource(ResourceRef("course", one)))
            for one in ids
        )
    )
    with pytest.raises(LimitExceeded, match="plan_nodes_max"):
        plan(service, "course:view")

"""Writes of single entities: refusals, dependents, and the revision."""

import dataclasses

import pytest
from pdp_routes import PUBLIC, Needs
from sqlalchemy import Engine, event

from pdp.administrator import Administrator
from pdp.document import display_key
from pdp.errors import (
    AlreadyExists,
    BrokenReference,
    InvalidPolicy,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    RouteConflict,
)
from pdp.facts import Store
from pdp.limits import RESOURCE_DEPTH_MAX
from pdp.model import (
    Effect,
    Entity,
    Grant,
    InOrganization,
    Membership,
    OnResource,
    Organization,
    Permission,
    Resource,
    ResourceRef,
    ResourceType,
    Role,
    Route,
    Rule,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
    key_of,
)

COURSE = ResourceRef("course", "c")
ENTITIES: list[tuple[Entity, Entity]] = [
    (Permission("course:edit"), Permission("course:edit", "changed")),
    (ResourceType("course"), ResourceType("course", Tenancy.NONE, stored_required=True)),
    (Role("R"), Role("R", "changed")),
    (
        Rule("r", "R", Effect.ALLOW, "course:edit"),
        Rule("r", "R", Effect.DENY, "course:*", "actor.id == ''"),
    ),
    (Grant("g", "R", ToUser("u")), Grant("g", "R", ToOrganizationRole("org:x"), expires_at=9.5)),
    (
        Route("GET /courses/{id}", Needs("course:edit", "course/{id}")),
        Route("GET /courses/{id}", PUBLIC),
    ),
    (User("u"), User("u", "e", "n", attributes={"deep": [{"n": 1.0, "t": True}]})),
    (Organization("o"), Organization("o", "slug", "Name")),
    (Membership("o", "u", "org:member"), Membership("o", "u", "org:admin")),
    (Resource("course", "c", "o"), Resource("course", "c", "o", None, {"owner": "u"})),
]


def create(administrator: Administrator, *entities: Entity) -> int:
    return [administrator.create(entity)[1] for entity in entities][-1]


def test_every_kind_is_created_read_listed_updated_and_deleted(
    administrator: Administrator, written: list[int]
):
    for entity, _ in ENTITIES:
        assert administrator.create(entity) == (entity, len(written))
    for entity, other in ENTITIES:
        kind, key = type(entity), key_of(entity)
        assert administrator.get(kind, key) == entity
        assert administrator.list(kind, None, 10) == [entity]
        assert administrator.list(kind, key, 10) == []
        assert administrator.update(other) == (other, len(written))
        assert administrator.get(kind, key) == other
    for entity, _ in reversed(ENTITIES):
        if isinstance(entity, Grant | Rule | Route):
            assert administrator.delete(type(entity), key_of(entity)) == len(written)
    for kind, key in [(Resource, key_of(ENTITIES[-1][0])), (Membership, ("o", "u"))]:
        assert administrator.delete(kind, key) == len(written)
    for entity, _ in ENTITIES:
        if isinstance(entity, User | Organization | Role | ResourceType | Permission):
            assert administrator.delete(type(entity), key_of(entity)) == len(written)
    assert written == list(range(1, 31))
    for entity, _ in ENTITIES:
        assert administrator.list(type(entity)) == []


@pytest.mark.parametrize(
    "entity", [entity for entity, _ in ENTITIES], ids=lambda entity: type(entity).__name__
)
def test_what_is_there_is_not_created_and_what_is_not_there_not_changed(
    administrator: Administrator, entity: Entity, written: list[int]
):
    with pytest.raises(NotFound) as missing:
        administrator.update(entity)
    assert missing.value.metadata["key"] == display_key(key_of(entity))
    for refuse in (administrator.get, administrator.delete):
        with pytest.raises(NotFound):
            refuse(type(entity), key_of(entity))
    if isinstance(entity, Rule | Grant | Route):
        create(administrator, Permission("course:edit"), Role("R"))
    create(administrator, entity)
    count = len(written)
    with pytest.raises(AlreadyExists):
        administrator.create(entity)
    assert len(written) == count


@pytest.mark.parametrize(
    ("entity", "field"),
    [
        (Permission("Course:edit"), "permission.name"),
        (Permission("course:*"), "permission.name"),
        (Permission("course:edit\n"), "permission.name"),
        (Permission("course:ed\u0456t"), "permission.name"),
        (Permission("a:b", "\x00"), "permission.description"),
        (Permission("a:b", "x" * 1025), "permission.description"),
        (ResourceType("Course"), "resource_type.name"),
        (ResourceType("course:*"), "resource_type.name"),
        (Role("1"), "role.name"),
        (Role("R", inherits=("",)), "role.inherits"),
        (Rule("r", "R", Effect.ALLOW, "a:b", "actor.idd == ''"), "rule.condition"),
        (Rule("r", "R", Effect.ALLOW, "a:b", "x" * 5000), "rule.condition"),
        (Rule("-", "R", Effect.ALLOW, "a:b"), "rule.id"),
        (Rule("r", "R", Effect.ALLOW, "*:b"), "rule.permission"),
        (Grant("g", "R", ToUser("")), "grant.user_id"),
        (Grant("g", "R", ToUser("u"), not_before=float("nan")), "grant.not_before"),
        (Grant("g", "R", ToUser("u"), expires_at=float("inf")), "grant.expires_at"),
        (Grant("g", "R", ToUser("u"), not_before=2.0, expires_at=2.0), "grant.expires_at"),
        (Grant("g", "R", ToUser("u"), OnResource(ResourceRef("C", "c"))), "grant.resource.type"),
        (Grant("g", "R", ToUser("u"), InOrganization("\ud800")), "grant.organization_id"),
        (Route("courses", PUBLIC), "route.route"),
        (Route("/a\n", PUBLIC), "route.route"),
        (Route("/" + "a" * 256, PUBLIC), "route.route"),
        (Route("/a", Needs("public")), "route.route"),
        (Route("/a", Needs("a:*")), "route.route"),
        (Route("/a", Needs("a:b", "a/{id}")), "route.route"),
        (User("x" * 257), "user.id"),
        (User("u", attributes={"n": float("nan")}), "user.attributes.n"),
        (User("u", attributes={"big": "x" * 70_000}), "user.attributes"),
        (Membership("o", "u", ""), "membership.role"),
        (Resource("course", ""), "resource.id"),
        (Resource("course", "c", ""), "resource.organization_id"),
        (Resource("course", "c", None, ResourceRef("", "c")), "resource.parent.type"),
    ],
)
def test_a_malformed_entity_is_refused_with_its_field(
    administrator: Administrator, entity: Entity, field: str, written: list[int]
):
    """Names are ASCII, so that no confusable twin of one is ever stored."""
    for write in (administrator.create, administrator.update):
        with pytest.raises(InvalidRequest) as caught:
            write(entity)
        assert [violation.field for violation in caught.value.violations] == [field]
    assert written == []


def test_an_update_that_changes_nothing_returns_the_revision_and_raises_none(
    administrator: Administrator, written: list[int]
):
    create(administrator, User("u", attributes={"a": True}), Role("R"))
    assert administrator.update(User("u", attributes={"a": True}))[1] == 2
    assert written == [1, 2]
    assert administrator.update(User("u", attributes={"a": 1.0}))[1] == 3


def test_ids_follow_from_content_so_that_repeating_a_create_is_found(administrator: Administrator):
    create(administrator, Permission("a:b"), Role("R"))
    rule, _ = administrator.create(Rule("", "R", Effect.ALLOW, "a:b"))
    assert rule.id == "R.allow.a:b"
    grant, _ = administrator.create(Grant("", "R", ToUser("u"), expires_at=1.0))
    assert grant.id.startswith("g-")
    for again in (rule, grant):
        with pytest.raises(AlreadyExists):
            administrator.create(dataclasses.replace(again, id=""))
    administrator.update(dataclasses.replace(rule, condition="true"))
    other, _ = administrator.create(Rule("", "R", Effect.ALLOW, "a:b"))
    assert other.id == "R.allow.a:b.2"


@pytest.mark.parametrize(
    "entity",
    [
        Role("A", inherits=("MISSING",)),
        Role("A", inherits=("A",)),
        Rule("", "MISSING", Effect.ALLOW, "course:edit"),
        Rule("", "R", Effect.ALLOW, "course:view"),
        Rule("", "R", Effect.ALLOW, "lesson:*"),
        Route("/a", Needs("course:view")),
        Grant("", "MISSING", ToUser("u")),
        Resource("lesson", "l", "o", ResourceRef("course", "missing")),
        Resource("lesson", "l", "other", COURSE),
        Resource("lesson", "l", None, COURSE),
    ],
)
def test_what_would_refer_to_nothing_is_refused(administrator: Administrator, entity: Entity):
    create(administrator, Permission("course:edit"), Role("R"), Resource("course", "c", "o"))
    with pytest.raises(BrokenReference):
        administrator.create(entity)


def test_a_route_that_does_not_go_together_with_another_is_refused_with_both(
    administrator: Administrator, store: Store, written: list[int]
):
    needs = Needs("a:b")
    create(administrator, Permission("a:b"), Route("/a/{x}", PUBLIC), Route("/z/", needs))
    create(administrator, Route("GET /a/b", PUBLIC), Route("/y/", needs), Route("/y", needs))
    for write, route, other in (
        (administrator.create, Route("/{y}/b", PUBLIC), "/a/{x}"),
        (administrator.create, Route("/a/{y}", needs), "/a/{x}"),
        (administrator.create, Route("/Z", PUBLIC), "/z/"),
        (administrator.update, Route("/y", PUBLIC), "/y/"),
    ):
        count = len(written)
        with pytest.raises(RouteConflict) as caught:
            write(route)
        assert caught.value.metadata == {"route": route.route, "other": other}
        assert len(written) == count


def test_a_map_that_another_hand_has_spoilt_can_be_mended(
    administrator: Administrator, store: Store
):
    with store.write() as transaction:
        transaction.apply_many([Route("/a/{x}", PUBLIC), Route("/{y}/b", PUBLIC)])
    create(administrator, Route("/c", PUBLIC))
    with pytest.raises(RouteConflict):
        administrator.update(Route("/a/{x}", Needs("a:b")))
    with pytest.raises(InvalidPolicy, match="stored route"):
        administrator.apply("permissions: []")
    administrator.delete(Route, ("/{y}/b",))
    create(administrator, Permission("a:b"))
    administrator.update(Route("/a/{x}", Needs("a:b")))


def test_there_are_no_more_routes_than_can_be_asked(
    administrator: Administrator, store: Store, monkeypatch: pytest.MonkeyPatch
):
    for module in ("pdp.administrator.integrity", "pdp_routes.routes"):
        monkeypatch.setattr(f"{module}.ROUTES_MAX", 100)
    with store.write() as transaction:
        transaction.apply_many(Route(f"/{number}", PUBLIC) for number in range(100))
    with pytest.raises(LimitExceeded, match="routes_max"):
        administrator.create(Route("/one-more", PUBLIC))
    assert administrator.update(Route("/0", PUBLIC)) == (Route("/0", PUBLIC), 1)
    with pytest.raises(InvalidPolicy, match="too many"):
        administrator.apply(
            "routes:\n" + "".join(f"  /{number}: public\n" for number in range(101))
        )


def test_facts_may_arrive_in_any_order(administrator: Administrator):
    create(
        administrator,
        Role("R"),
        Membership("o", "u", "org:member"),
        Resource("course", "c", "o"),
        Grant("", "R", ToUser("u"), InOrganization("o")),
        Grant("", "R", ToUser("u"), OnResource(ResourceRef("course", "not-stored"))),
        User("u"),
        Organization("o"),
    )


def test_a_role_circle_is_refused_when_it_is_closed(administrator: Administrator):
    """After OpenFGA CVE-2023-43645 and CVE-2025-46331."""
    create(administrator, Role("A"), Role("B", inherits=("A",)), Role("C", inherits=("B",)))
    with pytest.raises(BrokenReference, match="A -> C -> B -> A"):
        administrator.update(Role("A", inherits=("C",)))
    assert administrator.get(Role, ("A",)) == Role("A")


def test_a_role_below_a_long_chain_is_refused_though_its_own_is_short(
    administrator: Administrator,
):
    administrator.apply(
        "roles:\n" + "".join(f"  R{n}: {{inherits: [R{n + 1}]}}\n" for n in range(1, 32)) + "  R32:"
    )
    create(administrator, Role("LAST"))
    with pytest.raises(BrokenReference, match="32 roles"):
        administrator.update(Role("R32", inherits=("LAST",)))


def test_a_resource_cannot_be_moved_below_itself_or_too_deep(administrator: Administrator):
    last = None
    for n in range(RESOURCE_DEPTH_MAX - 1):
        create(administrator, Resource("folder", str(n), None, last))
        last = ResourceRef("folder", str(n))
    create(administrator, Resource("folder", "top"), Resource("folder", "above-top"))
    with pytest.raises(BrokenReference, match="below itself"):
        administrator.update(Resource("folder", "0", None, last))
    administrator.update(Resource("folder", "0", None, ResourceRef("folder", "top")))
    with pytest.raises(BrokenReference, match="levels deep"):
        administrator.create(Resource("folder", "deeper", None, last))
    with pytest.raises(BrokenReference, match="levels deep"):
        administrator.update(Resource("folder", "top", None, ResourceRef("folder", "above-top")))


def test_a_resource_with_others_below_it_stays_in_its_organization(administrator: Administrator):
    create(administrator, Resource("course", "c", "o"), Resource("lesson", "l", "o", COURSE))
    with pytest.raises(BrokenReference):
        administrator.update(Resource("course", "c", "other"))


def test_deleting_a_role_takes_its_rules_unless_it_is_inherited_or_granted(
    administrator: Administrator,
):
    create(
        administrator,
        Permission("a:b"),
        Role("R"),
        Role("S", inherits=("R",)),
        Rule("r", "R", Effect.ALLOW, "a:b"),
        Grant("g", "R", ToUser("u")),
    )
    with pytest.raises(BrokenReference, match="'S' inherits"):
        administrator.delete(Role, ("R",))
    administrator.delete(Role, ("S",))
    with pytest.raises(BrokenReference, match="grant 'g'"):
        administrator.delete(Role, ("R",))
    administrator.delete(Grant, ("g",))
    administrator.delete(Role, ("R",))
    assert administrator.list(Rule) == []


def test_a_permission_that_a_rule_or_a_route_needs_stays(administrator: Administrator):
    create(administrator, Permission("a:b"), Permission("a:c"), Permission("ax:y"), Role("R"))
    create(administrator, Rule("exact", "R", Effect.ALLOW, "a:b"))
    create(administrator, Rule("all", "R", Effect.ALLOW, "a:*"))
    with pytest.raises(BrokenReference, match="'exact'"):
        administrator.delete(Permission, ("a:b",))
    create(administrator, Route("/a", Needs("a:c")))
    with pytest.raises(BrokenReference, match="route '/a'"):
        administrator.delete(Permission, ("a:c",))
    administrator.delete(Route, ("/a",))
    administrator.delete(Permission, ("a:c",))
    administrator.delete(Rule, ("exact",))
    with pytest.raises(BrokenReference, match="the last"):
        administrator.delete(Permission, ("a:b",))
    administrator.delete(Rule, ("all",))
    administrator.delete(Permission, ("a:b",))


def test_deleting_a_user_takes_along_what_is_theirs_and_nothing_else(
    administrator: Administrator, store: Store
):
    create(administrator, Role("R"), User("u"), User("U"))
    for user in ("u", "U"):
        create(administrator, Membership("o", user, "org:member"), Grant("", "R", ToUser(user)))
        administrator.revoke_session("sess_1", user)
    administrator.delete(User, ("u",))
    assert administrator.list(User) == [User("U")]
    assert administrator.list(Membership) == [Membership("o", "U", "org:member")]
    assert [grant.subject for grant in administrator.list(Grant)] == [ToUser("U")]
    create(administrator, User("u"))
    before = administrator.update(User("u"))[1]
    assert administrator.revoke_session("sess_1", "U") == before
    # They came back while a token may still live: what was revoked stays revoked.
    assert administrator.revoke_session("sess_1", "u") == before


def test_deleting_an_organization_takes_memberships_and_grants_but_not_resources(
    administrator: Administrator,
):
    create(administrator, Role("R"), Organization("o"), Membership("o", "u", "org:member"))
    create(administrator, Grant("in", "R", ToUser("u"), InOrganization("o")))
    create(administrator, Grant("out", "R", ToUser("u"), InOrganization("O")))
    create(administrator, Resource("course", "c", "o"))
    with pytest.raises(BrokenReference, match="course/c"):
        administrator.delete(Organization, ("o",))
    administrator.delete(Resource, ("course", "c"))
    administrator.delete(Organization, ("o",))
    assert administrator.list(Membership) == []
    assert [grant.id for grant in administrator.list(Grant)] == ["out"]


def test_deleting_a_resource_takes_the_grants_on_it_but_not_what_is_below(
    administrator: Administrator,
):
    create(administrator, Role("R"), Resource("course", "c"))
    create(administrator, Resource("lesson", "l", None, COURSE))
    create(administrator, Grant("on", "R", ToUser("u"), OnResource(COURSE)))
    create(administrator, Grant("off", "R", ToUser("u"), OnResource(ResourceRef("course", "C"))))
    with pytest.raises(BrokenReference, match="lesson/l"):
        administrator.delete(Resource, ("course", "c"))
    administrator.delete(Resource, ("lesson", "l"))
    administrator.delete(Resource, ("course", "c"))
    assert [grant.id for grant in administrator.list(Grant)] == ["off"]


def test_a_session_is_revoked_once(administrator: Administrator, written: list[int]):
    assert administrator.revoke_session("sess_1", "user_1") == 1
    assert administrator.revoke_session("sess_1", "user_1") == 1
    assert written == [1]
    with pytest.raises(InvalidRequest) as caught:
        administrator.revoke_session("", "\x00")
    assert [violation.field for violation in caught.value.violations] == ["session_id", "user_id"]


INJECTIONS = ["' OR '1'='1", "'; DROP TABLE users; --", '" OR ""="', "%", "_", "\\", "a\\'b", "$1",
              ":id", "?", "%s", "{}", "u/**/", "u ", " u", "U", "u\u0301", "\u00fa", "\u017f", "s"]  # fmt: skip  # noqa: E501


def test_identifiers_are_data_and_never_part_of_a_statement(
    administrator: Administrator, engine: Engine
):
    """After OpenFGA CVE-2026-55170: stored and compared as they are, as parameters."""
    statements: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def remember(_c: object, _u: object, statement: str, *_: object) -> None:
        statements.append(statement)

    create(administrator, Role("R"), *(User(name, name=name) for name in INJECTIONS))
    create(administrator, *(Resource("course", name, name) for name in INJECTIONS))
    create(administrator, *(Grant(name, "R", ToUser(name)) for name in INJECTIONS))
    for name in INJECTIONS:
        assert administrator.get(User, (name,)) == User(name, name=name)
        administrator.delete(User, (name,))
        with pytest.raises(NotFound):
            administrator.get(User, (name,))
    assert administrator.list(Grant) == []
    assert len(administrator.list(Resource)) == len(INJECTIONS)
    long = [name for name in INJECTIONS if len(name) > 3]
    assert not [text for text in statements for name in long if name in text]

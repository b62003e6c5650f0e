"""A principal that a snapshot keeps is the one that its facts give at that time."""

from dataclasses import replace
from random import Random

import pytest

from pdp.decision import Policy, Principal, build_policy, decide, resolve_principal
from pdp.decision.principal import CANDIDATES_MAX
from pdp.facts.replica.snapshot import PRINCIPALS_MAX, Caches, Snapshot
from pdp.facts.replica.view import View
from pdp.model import (
    EVERYWHERE,
    Actor,
    Effect,
    Grant,
    InOrganization,
    OnResource,
    OrganizationFacts,
    Permission,
    Question,
    ResourceRef,
    Role,
    Rule,
    ToOrganizationRole,
    ToUser,
    User,
    UserFacts,
    VerifiedToken,
)

END = 100.0
"""When tokens expire; every edge of a grant is before."""


def token_of(organization: str | None = "org_1", expires_at: float = END) -> VerifiedToken:
    return VerifiedToken(Actor("user_1", "sess_1", organization), "issuer", "kid", expires_at, {})


def drawn_grants(random: Random, count: int) -> list[Grant]:
    def edge() -> float | None:
        return random.choice([None, float(random.randrange(int(END)))])

    return [
        Grant(
            f"g{number}",
            "R",
            random.choice([ToUser("user_1"), ToOrganizationRole("org:a")]),
            random.choice(
                [
                    EVERYWHERE,
                    InOrganization("org_1"),
                    InOrganization("org_2"),
                    OnResource(ResourceRef("course", "1")),
                ]
            ),
            not_before=edge(),
            expires_at=edge(),
        )
        for number in range(count)
    ]


def drawn_view(random: Random) -> View:
    grants = drawn_grants(random, 6)
    of_roles = [grant for grant in grants if isinstance(grant.subject, ToOrganizationRole)]
    everywhere = [grant for grant in of_roles if grant.scope is EVERYWHERE]
    policy = build_policy(1, [Permission("course:edit")], [Role("R")], [], everywhere)
    user = UserFacts(
        User("user_1"),
        {"org_1": "org:a", "org_2": "org:b"},
        tuple(grant for grant in grants if grant.subject == ToUser("user_1")),
        frozenset(),
    )
    in_organization = tuple(g for g in of_roles if g.scope == InOrganization("org_1"))
    return view_of(policy, user, OrganizationFacts("org_1", in_organization))


def view_of(
    policy: Policy, user: UserFacts | None, organization: OrganizationFacts | None = None
) -> View:
    return View(policy, user, organization, [], 1, Snapshot(policy, 1, "e", Caches(), 0.0))


def what_it_holds(principal: Principal) -> object:
    return (
        principal.now,
        principal.refusal,
        principal.organization_role,
        principal.reusable_until,
        principal.wide,
        principal.elsewhere,
        principal.on_resources,
    )


def differences(worlds: int) -> int:
    """How often a view and the facts alone give different principals, over many times."""
    differ = 0
    for seed in range(worlds):
        random = Random(seed)
        view, tokens = drawn_view(random), [token_of(), token_of()]
        for _ in range(30):
            token, now = random.choice(tokens), random.uniform(-5, END + 5)
            afresh = resolve_principal(view.policy, token, view.user, view.organization, now)
            differ += what_it_holds(view.principal(token, now)) != what_it_holds(afresh)
    return differ


def test_at_any_time_a_view_gives_the_principal_that_its_facts_give() -> None:
    assert differences(200) == 0


def test_a_principal_that_outlives_the_edge_of_a_grant_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: without the bound of time an ended grant would go on to count."""

    def endless(self: View, token: VerifiedToken, now: float) -> Principal:
        known = self.snapshot.principals.get(id(token))
        if known is None:
            known = resolve_principal(self.policy, token, self.user, self.organization, now)
            self.snapshot.principals[id(token)] = known
        return known.at(now)

    monkeypatch.setattr(View, "principal", endless)
    assert differences(10) > 0


def test_a_principal_is_kept_for_its_token_its_facts_and_its_policy_only() -> None:
    policy = build_policy(1, [Permission("course:edit")], [Role("R")], [], [])
    user = UserFacts(User("user_1"), {"org_1": "org:a"}, (), frozenset())
    organization = OrganizationFacts("org_1", ())
    view, token = view_of(policy, user, organization), token_of()
    first = view.principal(token, 1.0)
    assert view.principal(token, 2.0).candidates is first.candidates, "it is kept"
    for other in (
        view._replace(user=replace(user, memberships={"org_1": "org:b"})),
        view._replace(organization=replace(organization)),
        view._replace(policy=build_policy(1, [Permission("course:edit")], [], [], [])),
    ):
        assert other.principal(token, 2.0).candidates is not first.candidates
        assert view.principal(token, 1.0).policy is policy
    same_in_value = token_of()
    assert same_in_value == token
    assert view.principal(same_in_value, 2.0).token is same_in_value
    elsewhere = view._replace(organization=None).principal(token_of("org_2"), 2.0)
    assert elsewhere.refusal is not None
    assert view.principal(token, 2.0).refusal is None


def test_two_requests_at_different_times_do_not_change_each_others_time() -> None:
    """A batch goes on with its own time while a later request uses the same token."""
    policy = build_policy(1, [Permission("course:edit")], [Role("R")], [], [])
    view = view_of(policy, UserFacts(User("user_1"), {"org_1": "org:a"}, (), frozenset()))
    token = token_of()
    batch = view.principal(token, 1.0)
    check = view.principal(token, 2.0)
    assert (batch.now, check.now) == (1.0, 2.0)


def test_a_condition_reads_the_time_of_its_own_question() -> None:
    """The values of the actor are kept with the principal, all but the time."""
    condition = "now < timestamp('1970-01-01T00:00:10Z') && actor.id == 'user_1'"
    rule = Rule("early", "R", Effect.ALLOW, "course:edit", condition)
    grant = Grant("g", "R", ToUser("user_1"))
    policy = build_policy(1, [Permission("course:edit")], [Role("R")], [rule], [])
    view = view_of(policy, UserFacts(User("user_1"), {}, (grant,), frozenset()))
    token, question = token_of(None), Question("course:edit")
    for now, effect in ((1.0, Effect.ALLOW), (9.0, Effect.ALLOW), (11.0, Effect.DENY)):
        assert decide(view.principal(token, now), question, ()).effect is effect


def test_one_who_asks_for_every_permission_does_not_fill_the_memory() -> None:
    """The principal lives as long as the snapshot, and answers as if it kept all or nothing."""
    names = [f"course:p{number}" for number in range(3 * CANDIDATES_MAX)]
    rules = [Rule(name, "R", Effect.ALLOW, name) for name in names[::2]]
    grant = Grant("g", "R", ToUser("user_1"))
    policy = build_policy(1, map(Permission, names), [Role("R")], rules, [])
    view = view_of(policy, UserFacts(User("user_1"), {}, (grant,), frozenset()))
    token = token_of(None)
    for _ in range(2):
        principal = view.principal(token, 1.0)
        answers = [decide(principal, Question(name), ()).effect is Effect.ALLOW for name in names]
        assert answers == [True, False] * (len(names) // 2)
        assert len(principal.candidates) == CANDIDATES_MAX


def test_the_principals_of_a_snapshot_are_bounded() -> None:
    policy = build_policy(1, [Permission("course:edit")], [Role("R")], [], [])
    view = view_of(policy, UserFacts(User("user_1"), {}, (), frozenset()))
    for _ in range(2 * PRINCIPALS_MAX + 1):
        view.principal(token_of(None), 1.0)
        assert len(view.snapshot.principals) <= PRINCIPALS_MAX

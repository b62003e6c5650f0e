"""One actor, one course, and questions about them."""

from typing import Any

from pdp.decision import Policy, build_policy, decide, resolve_principal
from pdp.model import (
    Actor,
    Decision,
    Effect,
    Grant,
    OrganizationFacts,
    Permission,
    Question,
    Resource,
    ResourceFacts,
    Role,
    Rule,
    ToUser,
    User,
    UserFacts,
    VerifiedToken,
)

NOW = 1_790_000_000.0
PERMISSIONS = ("course:view", "course:edit", "course:delete", "lesson:view")
TOKEN = VerifiedToken(
    Actor("user_1", "sess_1", "org_1"), "https://issuer", "key", expires_at=NOW + 60, claims={}
)
GRANT = Grant("grant", "ROLE", ToUser("user_1"))


def policy_with(*rules: Rule, roles: tuple[Role, ...] = (Role("ROLE"),)) -> Policy:
    return build_policy(1, [Permission(name) for name in PERMISSIONS], roles, rules, [])


def rule(
    condition: str = "",
    *,
    permission: str = "course:edit",
    effect: Effect = Effect.ALLOW,
    rule_id: str = "rule",
    role: str = "ROLE",
) -> Rule:
    return Rule(rule_id, role, effect, permission, condition)


def ask(
    policy: Policy,
    permission: str = "course:edit",
    attributes: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    *,
    resource_id: str = "1",
    token: VerifiedToken = TOKEN,
    grants: tuple[Grant, ...] = (GRANT,),
    actor_attributes: dict[str, Any] | None = None,
) -> Decision:
    """May user_1 of org_1 do this to a course of org_1?"""
    user = User("user_1", attributes=actor_attributes or {})
    facts = UserFacts(user, {"org_1": "org:member"}, grants, frozenset())
    resource = Resource("course", resource_id, "org_1", attributes=attributes or {})
    return decide(
        resolve_principal(policy, token, facts, OrganizationFacts("org_1", ()), NOW),
        Question(permission, resource, context or {}),
        (ResourceFacts(resource, ()),),
    )

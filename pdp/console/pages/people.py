"""People: a user, a role, a resource, and who may do what."""

from collections.abc import Sequence
from typing import Any, Final

from pdp.access_queries import AllowedActor
from pdp.audit import DecisionFilter
from pdp.console.pages.inputs import link_to_explanation, rule_steps
from pdp.console.parts import CALLER, ConsoleParts, Page, Shown, Visit
from pdp.console.tenant import decisions_of, facts_of
from pdp.decision import NamedActor, Policy
from pdp.decision.certainty import Certainty
from pdp.decision.principal import holds
from pdp.errors import NotFound
from pdp.model import (
    Actor,
    Membership,
    Question,
    Resource,
    ResourceRef,
    Role,
    User,
)

PAGE_ROWS: Final = 25
DECISIONS_MAX: Final = 10
GRANTS_MAX: Final = 200
SESSION: Final = "console"
"""The session of a user in a question about them."""
_CERTAINTIES: Final = {
    Certainty.ALLOWED: "Can now",
    Certainty.DEPENDS: "Depends on the request: claims, factors, context or attributes not stored",
    Certainty.DENIED: "Cannot, with what is stored now",
}


async def index(parts: ConsoleParts, visit: Visit) -> Shown:
    """Users, page by page, and roles."""
    if visit.organization is not None:
        return await _members(parts, visit, visit.organization)
    after = visit.get("after")
    users = await parts.blocking(
        lambda: parts.administrator.list(User, (after,) if after else None, PAGE_ROWS + 1)
    )
    policy = parts.replica.policy
    values = {
        "users": users[:PAGE_ROWS],
        "after": users[PAGE_ROWS - 1].id if len(users) > PAGE_ROWS else "",
        "is_first": not after,
        "roles": sorted((role for _, role in policy.roles.items()), key=lambda role: role.name),
        "permissions": _permissions(policy),
    }
    return Shown("people.html", values)


async def _members(parts: ConsoleParts, visit: Visit, organization: str) -> Shown:
    """The members of an organization, page by page."""
    key = (organization, visit.get("after"))
    found = await parts.blocking(lambda: parts.administrator.list(Membership, key, PAGE_ROWS + 1))
    members = [member for member in found if member.organization_id == organization]
    values = {
        "members": members[:PAGE_ROWS],
        "after": members[PAGE_ROWS - 1].user_id if len(members) > PAGE_ROWS else "",
        "is_first": not visit.get("after"),
    }
    return Shown("members.html", values)


async def user(parts: ConsoleParts, visit: Visit) -> Shown:
    """What is stored about a user, their last decisions, and what they may do."""
    user_id = visit.get("id")
    view = await parts.replica.view(user_id, None, [])
    facts, organization = view.user, visit.organization
    if organization is not None:
        facts = facts_of(facts, organization)
    if facts is None:
        raise NotFound("user", user_id)
    where = DecisionFilter(user_id=user_id, organization_id=organization)
    last = await parts.blocking(lambda: parts.decision_log.list(where, None, DECISIONS_MAX))
    decisions = last.decisions
    if organization is not None:
        decisions = decisions_of(decisions, organization)
    values = {
        "facts": facts,
        "attributes": sorted(facts.user.attributes.items()),
        "decisions": decisions,
        "now": parts.clock(),
        "holds": holds,
        "revision": view.revision,
        "asked": visit,
        "permissions": _permissions(view.policy),
        **await _answers(parts, visit, user_id),
    }
    return Shown("user.html", values)


async def _answers(parts: ConsoleParts, visit: Visit, user_id: str) -> dict[str, Any]:
    """The user's permissions on the requested resource, and the explanation of the requested
    permission."""
    answers: dict[str, Any] = {"allowed": None, "denied": None, "explained": None}
    if visit.organization is not None:
        return answers  # they depend on grants and resources of others
    organization, permission = visit.get("organization") or None, visit.get("permission")
    type_, id_ = visit.get("type"), visit.get("resource")
    actor = NamedActor(Actor(user_id, SESSION, organization))
    resource = Resource(type_, id_) if type_ and id_ else None
    if resource is not None:
        _, (found,) = await parts.queries.permissions(actor, [resource], {}, CALLER)
        answers |= {"allowed": found.allowed, "denied": found.denied}
    if permission:
        question = Question(permission, resource)
        answers["explained"] = await parts.explainer.explain(actor, question)
    return answers


async def role(parts: ConsoleParts, visit: Visit) -> Shown:
    """A role: its rules, also inherited ones, and its holders."""
    name = visit.get("name")
    policy = parts.replica.policy
    known = policy.roles.get(name)
    if known is None:
        raise NotFound("role", name)
    closure = policy.closure(name)
    grants = await parts.blocking(lambda: parts.administrator.grants_of(name, GRANTS_MAX + 1))
    values = {
        "role": known,
        "inherited": [role for role in closure if role != name],
        "rules": sorted(
            (rule for _, rule in policy.rules.items() if rule.role in closure),
            key=lambda rule: (rule.role != name, rule.role, rule.id),
        ),
        "inheritors": _inheritors(policy, name),
        "grants": grants[:GRANTS_MAX],
        "more": len(grants) > GRANTS_MAX,
        "now": parts.clock(),
        "holds": holds,
        "revision": policy.revision,
    }
    return Shown("role.html", values)


async def resource(parts: ConsoleParts, visit: Visit) -> Shown:
    """What is stored about a resource, and who may use a permission on it."""
    type_, id_, permission = visit.get("type"), visit.get("id"), visit.get("permission")
    view = await parts.replica.view("", None, [Resource(type_, id_)])
    (chain,) = view.chains
    declared = view.policy.permissions_on(type_)
    found, groups = None, None
    after = (visit.get("after_user"), visit.get("after_organization"))
    if permission:
        asked = Question(permission, Resource(type_, id_))
        answered, found = await parts.queries.actors(
            permission, asked.resource, CALLER, size=PAGE_ROWS, after=after
        )
        groups = await _by_certainty(parts, found.actors, asked, answered.revision)
    values = {
        "ref": ResourceRef(type_, id_),
        "chain": chain,
        "attributes": sorted(chain[0].resource.attributes.items()),
        "declared": declared,
        "permission": permission,
        "found": found,
        "groups": groups,
        "revision": view.revision,
    }
    return Shown("resource.html", values)


async def _by_certainty(
    parts: ConsoleParts, actors: Sequence[AllowedActor], question: Question, revision: int
) -> Sequence[tuple[str, Sequence[Any]]]:
    """The actors by what stored values say: each with the rules of the explanation, and its
    address."""
    groups: dict[Certainty, list[Any]] = {certainty: [] for certainty in _CERTAINTIES}
    ref = question.resource and ResourceRef(question.resource.type, question.resource.id)
    for found in actors:
        user_id, organization = found.user_id, found.organization_id
        actor = NamedActor(Actor(user_id, SESSION, organization or None))
        answer = (
            await parts.explainer.explain(actor, question, revision, search=False)
        ).explanation
        link = link_to_explanation(user_id, organization, question.permission, ref)
        groups[answer.certainty].append((found, rule_steps(answer.tree), link))
    return [(_CERTAINTIES[certainty], found) for certainty, found in groups.items() if found]


def _permissions(policy: Policy) -> list[str]:
    return sorted(name for name, _ in policy.permissions.items())


def _inheritors(policy: Policy, name: str) -> list[Role]:
    found = [role for _, role in policy.roles.items() if name in role.inherits]
    return sorted(found, key=lambda role: role.name)


PAGES = (
    Page("/people", "people", "People", index, in_menu=True, of_organization=True),
    Page("/user", "user", "User", user, within="/people", of_organization=True),
    Page("/role", "role", "Role", role, within="/people"),
    Page("/resource", "resource", "Resource", resource, within="/people"),
)

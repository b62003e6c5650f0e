"""Explains a decision as a tree.

`explain` runs `decide` itself and records the arguments of its judge, so the tree describes the
same evaluation that answers `Check`. The tree covers more than `decide` evaluates: a deny rule ends
a decision, but the tree also shows the rules after it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Final

from pdp.decision.certainty import certainty_of
from pdp.decision.condition_steps import condition_steps
from pdp.decision.explanation import Explanation, Step, StepKind, StepStatus
from pdp.decision.policy import Policy
from pdp.decision.principal import (
    ANY_ORGANIZATION,
    IN_ORGANIZATION,
    UNKNOWN_ORGANIZATION,
    Candidate,
    Principal,
    grants_elsewhere,
    grants_on_resources,
)
from pdp.decision.situation import Account, Seen, Situation, account_of, grant_text
from pdp.decision.would_allow import Found, would_allow
from pdp.model import Decision, Effect, Grant, InOrganization, Reason, ToUser

STEPS_MAX: Final = 200
"""The most grants, and rules of each section, that are described."""
EXPRESSIONS_MAX: Final = 2_000
"""Once so many expressions of a section are described, further conditions are not."""


def explain(situation: Situation, *, search: bool = True) -> Explanation:
    """The decision, its tree, and the changes that would make it an allow.

    Without `search` there are no changes: their search makes hundreds of decisions.
    """
    account = account_of(situation)
    found = would_allow(account) if search else Found()
    certainty = certainty_of(account)
    return Explanation(account.decision, _tree(account), found.sets, found.is_cut, certainty)


def _tree(account: Account) -> Step:
    situation, decision = account.situation, account.decision
    steps = [_actor(account)]
    if account.principal.refusal is None:
        steps.append(_permission(situation))
        steps += _resource(account)
    if account.seen is not None:
        steps.append(_grants(account, account.seen))
        steps += _rules(account, account.seen)
    return Step(
        StepKind.DECISION,
        StepStatus.MET if decision.effect is Effect.ALLOW else StepStatus.NOT_MET,
        _outcome(situation, decision),
        decision.rule_id or "",
        decision.grant_id or "",
        tuple(steps),
    )


def _outcome(situation: Situation, decision: Decision) -> str:
    question = situation.question
    verb = "may" if decision.effect is Effect.ALLOW else "may not"
    target = ""
    if question.resource is not None:
        target = f" on {question.resource.type}:{question.resource.id}"
    by = ""
    if decision.rule_id is not None:
        by = f" Rule {decision.rule_id} through grant {decision.grant_id}."
    return (
        f"{situation.token.actor.user_id} {verb} {question.permission}{target}: "
        f"{decision.reason.name}. {decision.reason.value}{by}"
    )


# --- actor, permission, resource ------------------------------------------------------------------


def _actor(account: Account) -> Step:
    principal, actor = account.principal, account.situation.token.actor
    active = actor.organization_id
    if principal.refusal is not None:
        texts = {
            Reason.ACTOR_UNKNOWN: f"{actor.user_id} is not stored",
            Reason.ACTOR_DISABLED: f"{actor.user_id} is disabled",
            Reason.SESSION_REVOKED: f"session {actor.session_id} of {actor.user_id} was revoked",
            Reason.MEMBERSHIP_UNKNOWN: f"{actor.user_id} is not stored as a member of {active}",
        }
        text = f"actor: {texts[principal.refusal]}; nothing else is looked at"
        return Step(StepKind.ACTOR, StepStatus.NOT_MET, text)
    acts = "without an active organization"
    if active is not None:
        acts = f"in the organization {active} as {principal.organization_role}"
    text = f"actor: {actor.user_id} is active and acts {acts}"
    if actor.impersonator_id is not None:
        text += f", impersonated by {actor.impersonator_id}"
    return Step(StepKind.ACTOR, StepStatus.MET, text)


def _permission(situation: Situation) -> Step:
    name, declared = situation.question.permission, situation.policy.permissions
    if name in declared:
        return Step(StepKind.PERMISSION, StepStatus.MET, f"permission: {name} is declared")
    near = get_close_matches(name, [known for known, _ in declared.items()], 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return Step(
        StepKind.PERMISSION, StepStatus.NOT_MET, f"permission: {name} is not declared{hint}"
    )


def _resource(account: Account) -> Iterator[Step]:
    situation = account.situation
    policy, chain = situation.policy, situation.chain
    if not chain:
        yield Step(StepKind.RESOURCE, StepStatus.MET, "resource: none is asked for")
        return
    parts = []
    for index, facts in enumerate(chain):
        resource = facts.resource
        owner = resource.organization_id
        text = f"{'below' if index else 'resource:'} {resource.type}:{resource.id}"
        text += ", stored" if facts.stored else ", not stored"
        text += f", in {owner}" if owner is not None else ", in no known organization"
        accepted = policy.accepts(facts)
        if not accepted:
            text += f"; the policy requires that resources of type {resource.type} are stored"
        parts.append((StepStatus.MET if accepted else StepStatus.NOT_MET, text))
    (status, text), *above = parts
    yield Step(
        StepKind.RESOURCE,
        status,
        text,
        children=tuple(Step(StepKind.RESOURCE, *part) for part in above),
    )
    if account.seen is not None:
        yield _tenant(account, account.seen.needed)


def _tenant(account: Account, needed: int) -> Step:
    active = account.situation.token.actor.organization_id
    acting = (
        f"the actor's active organization is {active}"
        if active
        else ("the actor has no active organization")
    )
    if needed == ANY_ORGANIZATION:
        text = (
            f"tenant: the resource is in another organization ({acting}); only a grant to the "
            "user everywhere can allow"
        )
    elif needed == UNKNOWN_ORGANIZATION:
        text = (
            "tenant: the organization of the resource is not known; only a grant to the user, "
            "everywhere or on the resource, can allow"
        )
    elif account.decision.resource_organization_id is None:
        text = "tenant: resources of this type belong to no organization"
    else:
        text = f"tenant: the resource is in the actor's active organization {active}"
    status = StepStatus.MET if needed == IN_ORGANIZATION else StepStatus.NOT_MET
    return Step(StepKind.TENANT, status, text)


# --- grants ---------------------------------------------------------------------------------------


def grants_of(situation: Situation, principal: Principal) -> list[Grant]:
    """All grants that a decision consults, whether they apply or not."""
    active = situation.token.actor.organization_id
    organization = situation.organizations.get(active) if active is not None else None
    grants = {
        grant.id: grant
        for grants in (
            situation.user.grants if situation.user is not None else (),
            situation.policy.grants_to(principal.organization_role),
            organization.role_grants if organization is not None else (),
            *(facts.role_grants for facts in situation.chain),
        )
        for grant in grants
    }
    return list(grants.values())


def _grants(account: Account, seen: Seen) -> Step:
    situation, principal = account.situation, account.principal
    on_resource, _ = grants_on_resources(principal, situation.chain, 0.0)
    applying = {grant.id for grant in (*principal.wide, *on_resource)}
    deny_only: set[str] = set()
    if seen.needed != IN_ORGANIZATION:
        elsewhere = grants_elsewhere(principal, situation.chain, seen.needed)
        deny_only = {grant.id for grant in elsewhere}
    steps = []
    for grant in grants_of(situation, principal):
        if grant.id in applying:
            status, why = StepStatus.APPLIES, ""
        elif grant.id in deny_only:
            status, why = StepStatus.DENY_ONLY, "only its deny rules count here"
        else:
            status, why = _why_not(grant, situation, principal)
        text = f"{grant.id}: {grant_text(grant)}" + (f"; {why}" if why else "")
        steps.append(Step(StepKind.GRANT, status, text, grant.id))
    steps.sort(key=lambda step: step.status not in (StepStatus.APPLIES, StepStatus.DENY_ONLY))
    text = "grants" if steps else "grants: none to this actor"
    return Step(StepKind.GRANTS, StepStatus.NONE, text, children=_limited(steps, "grants"))


def _why_not(grant: Grant, situation: Situation, principal: Principal) -> tuple[StepStatus, str]:
    now = situation.now
    if not isinstance(grant.subject, ToUser):
        held = principal.organization_role
        if grant.subject.organization_role != held:
            return StepStatus.OTHER_ROLE, f"the actor's role is {held or 'none'}"
    if grant.not_before is not None and now < grant.not_before:
        return StepStatus.NOT_YET, f"begins {_time(grant.not_before)}"
    if grant.expires_at is not None and grant.expires_at <= now:
        return StepStatus.OVER, f"ended {_time(grant.expires_at)}"
    if isinstance(grant.scope, InOrganization):
        active = situation.token.actor.organization_id
        return StepStatus.OTHER_ORGANIZATION, f"the active organization is {active or 'none'}"
    return StepStatus.OTHER_RESOURCE, "not the asked resource nor above it"


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError):
        return f"{seconds:g}"


# --- rules ----------------------------------------------------------------------------------------


def _rules(account: Account, seen: Seen) -> Iterator[Step]:
    allow, deny = seen.candidates
    for kind, heading, candidates in (
        (StepKind.DENY_RULES, "deny rules, looked at first", deny),
        (StepKind.ALLOW_RULES, "allow rules", allow),
    ):
        needed = seen.needed if kind is StepKind.ALLOW_RULES else IN_ORGANIZATION
        steps: list[Step] = []
        expressions = 0
        for candidate in candidates[:STEPS_MAX]:
            described = expressions < EXPRESSIONS_MAX
            steps.append(_rule(account, seen, candidate, needed, kind, described=described))
            expressions += sum(map(_size, steps[-1].children))
        text = heading if candidates else f"{heading}: none applies to this permission"
        more = _more(len(candidates), "rules")
        yield Step(kind, StepStatus.NONE, text, children=(*steps, *more))
    others = [
        Step(
            StepKind.RULE,
            StepStatus.NOT_HELD,
            _rule_text(account.situation.policy, rule_id),
            rule_id,
        )
        for rule_id in _other_rules(account, {candidate[0] for candidate in (*allow, *deny)})
    ]
    if others:
        text = "rules of roles that the actor does not hold here"
        yield Step(StepKind.OTHER_RULES, StepStatus.NONE, text, children=_limited(others, "rules"))


def _size(step: Step) -> int:
    return 1 + sum(map(_size, step.children))


def _rule(
    account: Account,
    seen: Seen,
    candidate: Candidate,
    needed: int,
    kind: StepKind,
    *,
    described: bool,
) -> Step:
    """`described`: with the expressions of its condition."""
    rule_id, grant_id, reach, condition = candidate
    text = f"{_rule_text(account.situation.policy, rule_id)}, through grant {grant_id}"
    if reach < needed:
        text += "; the grant does not reach this resource (see tenant)"
        return Step(StepKind.RULE, StepStatus.OUT_OF_REACH, text, rule_id, grant_id)
    outcome = seen.outcomes.of(candidate)
    status = status_of(outcome)
    if isinstance(outcome, Reason):
        consequence = "applies" if kind is StepKind.DENY_RULES else "does not apply"
        text += f"; the condition cannot be evaluated, so the rule {consequence}"
    children: tuple[Step, ...] = ()
    if condition is not None and not described:
        text += "; its condition is not shown: there are too many expressions"
    elif condition is not None:
        children = condition_steps(condition, seen.outcomes.values(), outcome)
    return Step(StepKind.RULE, status, text, rule_id, grant_id, children)


def status_of(outcome: bool | Reason) -> StepStatus:
    """The status of a condition's result."""
    if outcome is True:
        return StepStatus.MET
    if outcome is False:
        return StepStatus.NOT_MET
    missing = outcome is Reason.ATTRIBUTE_MISSING
    return StepStatus.MISSING if missing else StepStatus.FAILED


def _rule_text(policy: Policy, rule_id: str) -> str:
    rule = policy.rules.get(rule_id)
    return (
        rule_id if rule is None else f"{rule_id}: {rule.role} {rule.effect.value} {rule.permission}"
    )


def _other_rules(account: Account, shown: set[str]) -> list[str]:
    policy, permission = account.situation.policy, account.situation.question.permission
    found: set[str] = set()
    for name in policy.role_names():
        matched = policy.rules_of(name, permission)
        found.update(rule.id for rule in (*matched.allow, *matched.deny))
    return sorted(found - shown)


def _limited(steps: list[Step], what: str) -> tuple[Step, ...]:
    return (*steps[:STEPS_MAX], *_more(len(steps), what))


def _more(count: int, what: str) -> Iterator[Step]:
    if count > STEPS_MAX:
        text = f"and {count - STEPS_MAX} more {what}"
        yield Step(StepKind.GRANT if what == "grants" else StepKind.RULE, StepStatus.NONE, text)

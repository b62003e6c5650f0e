"""What a decision read, as text for the decision log, and back.

Permissions, roles and rules are not part of it: these are what a replay exchanges. Of grants it has
those that hold for the actor and the resource, of memberships the active one. Secrets are removed,
and so is what does not fit; `removed` says of what. `decided_at` of the record is the time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from pdp.audit import DecisionRecord
from pdp.decision import Policy, Principal, Situation
from pdp.decision.evaluate import applicable
from pdp.decision.principal import IN_ORGANIZATION, grants_elsewhere, grants_on_resources
from pdp.impact.redaction import Redaction
from pdp.model import (
    EVERYWHERE,
    Attributes,
    Grant,
    InOrganization,
    OnResource,
    OrganizationFacts,
    Question,
    Resource,
    ResourceFacts,
    ResourceRef,
    ResourceType,
    Scope,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
    UserFacts,
    UserStatus,
    VerifiedToken,
)

INPUTS_BYTES_MAX: Final = 16 * 1024
"""Of one record."""
_VARIABLES: Final = ("context", "resource.attributes", "actor.claims", "actor.attributes")
"""In the order in which they are cut."""


class InputsUnusable(ValueError):
    """Recorded inputs are cut, or of a form that this version does not know."""


def inputs_of(
    principal: Principal,
    question: Question,
    chain: tuple[ResourceFacts, ...],
    redaction: Redaction,
) -> str:
    """What the decision reads, as canonical JSON of at most INPUTS_BYTES_MAX."""
    token, user = principal.token, principal.user
    _, _, needed, _, _ = applicable(principal, question.permission, chain)
    grants = [*principal.wide]
    if needed != IN_ORGANIZATION:
        grants += grants_elsewhere(principal, chain, needed)
    grants += grants_on_resources(principal, chain, inf)[0]
    values: dict[str, Attributes] = {
        "context": question.context,
        "resource.attributes": chain[0].resource.attributes if chain else {},
        "actor.claims": token.claims,
        "actor.attributes": {} if user is None else user.user.attributes,
    }
    removed: list[list[str | None]] = []
    for variable, value in values.items():
        shown: dict[str, Any] = {}
        for key, item in value.items():
            kept, count = redaction.redact({key: item})
            shown.update(kept)
            if count:
                # A key that is a secret itself is not named, so any key of the variable may be it.
                removed.append([variable, key if key in kept else None])
        values[variable] = shown
    policy = principal.policy
    inputs: dict[str, Any] = {
        "values": values,
        "removed": removed,
        "token": _without_none(
            expires_at=token.expires_at,
            claimed_permissions=redaction.redact(list(token.claimed_permissions))[0],
            first_factor_minutes=token.first_factor_minutes,
            second_factor_minutes=token.second_factor_minutes,
        ),
        "user": None
        if user is None
        else {
            "status": user.user.status.value,
            "role": user.memberships.get(token.actor.organization_id or ""),
            "session_revoked": token.actor.session_id in user.revoked_sessions,
        },
        "role_permissions": policy.organization_permissions.get(principal.organization_role),
        "grants": [_grant_fields(grant) for grant in grants],
        "chain": [
            [entry.resource.type, entry.resource.id, entry.resource.organization_id, entry.stored]
            for entry in chain
        ],
        "types": [
            [known.name, known.tenancy.value, known.stored_required]
            for name in sorted({entry.resource.type for entry in chain})
            if (known := policy.resource_types.get(name)) is not None
        ],
    }
    text = _encode(inputs)
    for variable in _VARIABLES:
        if len(text) <= INPUTS_BYTES_MAX:
            return text
        values[variable] = {}
        removed[:] = [path for path in removed if path[0] != variable] + [[variable, None]]
        text = _encode(inputs)
    return text if len(text) <= INPUTS_BYTES_MAX else '{"cut":true}'


def _encode(inputs: Mapping[str, Any]) -> str:
    return json.dumps(inputs, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _grant_fields(grant: Grant) -> dict[str, Any]:
    scope, subject = grant.scope, grant.subject
    return _without_none(
        id=grant.id,
        role=grant.role,
        organization_role=None if isinstance(subject, ToUser) else subject.organization_role,
        organization=scope.organization_id if isinstance(scope, InOrganization) else None,
        resource=[scope.resource.type, scope.resource.id]
        if isinstance(scope, OnResource)
        else None,
    )


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded decision as a situation in which another policy decides."""

    situation: Situation
    removed: frozenset[tuple[str, str | None]]
    """Variables and keys of which the value is not what it was; no key: any may be missing."""


def recorded(record: DecisionRecord, candidate: Policy) -> Recorded:
    """The situation of a record, with the permissions, roles and rules of `candidate`.

    Raises:
        InputsUnusable: There are no inputs, or they cannot be used.
    """
    if record.inputs is None or record.actor is None:
        raise InputsUnusable("there are none")
    try:
        data = json.loads(record.inputs)
        if data.get("cut"):
            raise InputsUnusable("they are cut")
        return _recorded(record, data, candidate)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, InputsUnusable):
            raise
        raise InputsUnusable("they have another form") from None


def _recorded(record: DecisionRecord, data: Mapping[str, Any], candidate: Policy) -> Recorded:
    actor = record.actor
    assert actor is not None  # noqa: S101  # for the type checker
    values, token, about = data["values"], data["token"], data["user"]
    grants = [_grant(fields, actor.user_id) for fields in data["grants"]]
    role = None if about is None else about["role"]
    policy = candidate.with_changes(
        record.revision,
        [ResourceType(name, Tenancy(kind), stored) for name, kind, stored in data["types"]],
        organization_permissions={}
        if role is None or data["role_permissions"] is None
        else {role: tuple(data["role_permissions"])},
    )
    user = None
    if about is not None:
        user = UserFacts(
            User(
                actor.user_id,
                status=UserStatus(about["status"]),
                attributes=values["actor.attributes"],
            ),
            {} if role is None or actor.organization_id is None else {actor.organization_id: role},
            tuple(grant for grant in grants if isinstance(grant.subject, ToUser)),
            frozenset((actor.session_id,)) if about["session_revoked"] else frozenset(),
        )
    to_roles = [grant for grant in grants if isinstance(grant.subject, ToOrganizationRole)]
    chain = tuple(
        ResourceFacts(
            Resource(
                kind,
                name,
                organization,
                attributes=values["resource.attributes"] if index == 0 else {},
            ),
            tuple(
                grant for grant in to_roles if grant.scope == OnResource(ResourceRef(kind, name))
            ),
            stored,
        )
        for index, (kind, name, organization, stored) in enumerate(data["chain"])
    )
    organizations = {}
    if actor.organization_id is not None:
        wide = tuple(grant for grant in to_roles if not isinstance(grant.scope, OnResource))
        facts = OrganizationFacts(actor.organization_id, wide)
        organizations[actor.organization_id] = facts
    situation = Situation(
        policy,
        VerifiedToken(
            actor,
            "",
            "",
            token["expires_at"],
            values["actor.claims"],
            claimed_permissions=tuple(token["claimed_permissions"]),
            first_factor_minutes=token.get("first_factor_minutes"),
            second_factor_minutes=token.get("second_factor_minutes"),
        ),
        user,
        organizations,
        Question(record.permission, chain[0].resource if chain else None, values["context"]),
        chain,
        record.decided_at,
    )
    return Recorded(situation, frozenset((variable, key) for variable, key in data["removed"]))


def _grant(fields: Mapping[str, Any], user_id: str) -> Grant:
    role = fields.get("organization_role")
    scope: Scope = EVERYWHERE
    if "organization" in fields:
        scope = InOrganization(fields["organization"])
    elif "resource" in fields:
        scope = OnResource(ResourceRef(*fields["resource"]))
    subject = ToUser(user_id) if role is None else ToOrganizationRole(role)
    return Grant(fields["id"], fields["role"], subject, scope)

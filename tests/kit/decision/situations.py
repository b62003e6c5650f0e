"""Worlds as situations, and changes of an explanation applied to a world."""

import json
from dataclasses import replace
from typing import Any

from pdp.decision import Change, Situation
from pdp.decision.condition_changes import ABSENT
from pdp.decision.explanation import ChangeKind
from pdp.model import (
    EVERYWHERE,
    Grant,
    InOrganization,
    OnResource,
    OrganizationFacts,
    Question,
    Resource,
    ResourceFacts,
    ResourceRef,
    Role,
    ToOrganizationRole,
    ToUser,
    User,
    UserFacts,
    UserStatus,
)
from tests.kit.decision.builders import TOKEN, policy_with, rule
from tests.kit.decision.engine import chain_of, policy_of, user_facts
from tests.kit.decision.reference import Asked, World
from tests.kit.decision.worlds import ORGANIZATIONS


def situation_of(world: World, asked: Asked) -> Situation:
    chain = chain_of(world, asked.resource)
    return Situation(
        policy_of(world),
        asked.token,
        user_facts(world, asked.token.actor.user_id),
        {
            organization: OrganizationFacts(
                organization,
                tuple(
                    grant
                    for grant in world.grants
                    if grant.scope == InOrganization(organization)
                    and isinstance(grant.subject, ToOrganizationRole)
                ),
            )
            for organization in ORGANIZATIONS
        },
        Question(asked.permission, chain[0].resource if chain else None, asked.context),
        chain,
        asked.now,
    )


def asked_about(condition: str, **attributes: Any) -> Situation:
    """May user_1 of org_1 edit a course of org_1, by a rule with this condition?"""
    resource = Resource("course", "1", "org_1", attributes=attributes)
    user = UserFacts(
        User("user_1"),
        {"org_1": "org:member"},
        (Grant("g", "ROLE", ToUser("user_1")),),
        frozenset(),
    )
    return Situation(
        policy_with(rule(condition), roles=(Role("ROLE"),)),
        TOKEN,
        user,
        {"org_1": OrganizationFacts("org_1", ())},
        Question("course:edit", resource),
        (ResourceFacts(resource, (), stored=True),),
        1_790_000_000.0,
    )


def changed(  # noqa: PLR0911  # one for each kind
    world: World, asked: Asked, change: Change
) -> tuple[World, Asked]:
    """The world and the question with a change, read from its machine-readable fields alone."""
    token = asked.token
    actor = token.actor
    value = json.loads(change.value) if change.value and change.kind in _VALUES else ABSENT
    match change.kind:
        case ChangeKind.FACTOR:
            token = replace(token, **{change.target.removeprefix("actor."): value})
            return world, replace(asked, token=token)
        case ChangeKind.SESSION if change.target == "actor.impersonator":
            actor = replace(actor, impersonator_id=None)
            return world, replace(asked, token=replace(token, actor=actor))
        case ChangeKind.SESSION:
            return replace(world, revoked=set()), asked
        case ChangeKind.ACTIVE_ORGANIZATION:
            actor = replace(actor, organization_id=change.value or None)
            return world, replace(asked, token=replace(token, actor=actor))
        case ChangeKind.CONTEXT | ChangeKind.ATTRIBUTE:
            return with_key(world, asked, change.target, value)
        case ChangeKind.RESOURCE if change.target == "resource.organization":
            owned = world.resources[asked.resource]._replace(organization_id=value)
            return replace(world, resources={**world.resources, asked.resource: owned}), asked
        case ChangeKind.RESOURCE:
            return replace(world, not_stored=set()), asked
        case ChangeKind.GRANT:
            grant = Grant("zz", change.target, ToUser(actor.user_id), scope_of(change.value))
            return replace(world, grants=[*world.grants, grant]), asked
        case ChangeKind.MEMBERSHIP:
            key = (change.target, actor.user_id)
            return replace(world, memberships={**world.memberships, key: change.value}), asked
        case ChangeKind.USER:
            others = [user for user in world.users if user.id != change.target]
            known = [user for user in world.users if user.id == change.target]
            user = replace((known or [User(change.target)])[0], status=UserStatus.ACTIVE)
            return replace(world, users=[*others, user]), asked
        case ChangeKind.REVOKE:
            grants = [grant for grant in world.grants if grant.id != change.target]
            return replace(world, grants=grants), asked
    raise AssertionError(change)


_VALUES = {
    ChangeKind.FACTOR,
    ChangeKind.CONTEXT,
    ChangeKind.ATTRIBUTE,
    ChangeKind.RESOURCE,
}


def with_key(world: World, asked: Asked, target: str, value: object) -> tuple[World, Asked]:
    """`value` ABSENT: without the key."""
    variable, _, key = target.rpartition(".")

    def with_value(attributes):
        rest = {name: one for name, one in attributes.items() if name != key}
        return rest if value is ABSENT else {**rest, key: value}

    if variable == "context":
        return world, replace(asked, context=with_value(asked.context))
    if variable == "actor.attributes":
        users = [
            replace(user, attributes=with_value(user.attributes))
            if user.id == asked.token.actor.user_id
            else user
            for user in world.users
        ]
        return replace(world, users=users), asked
    assert variable == "resource.attributes"
    resource = world.resources[asked.resource]
    resource = resource._replace(attributes=with_value(resource.attributes))
    return replace(world, resources={**world.resources, asked.resource: resource}), asked


def scope_of(text: str):
    preposition, _, name = text.partition(" ")
    if preposition == "in":
        return InOrganization(name)
    if preposition == "on":
        return OnResource(ResourceRef(*name.split(":")))
    assert text == "everywhere"
    return EVERYWHERE

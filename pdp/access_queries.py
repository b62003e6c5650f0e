"""The way of a query: verify the token, load facts, decide each row, record once, confirm.

What an actor may do, which resources they may use, and which actors may use a resource. The
evaluator of Check decides each row. A query is one record in the audit log, whatever it denies;
like a denial, it is on disk before the answer is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from pdp_filters import FALSE

from pdp.audit import DecisionRecord, Recorder, new_decision_id
from pdp.authorizer import Authorizer
from pdp.clock import Clock
from pdp.concurrency.pacing import Pace
from pdp.decision import (
    AccessPaths,
    NamedActor,
    Plan,
    Principal,
    access_paths,
    decide,
    plan_for,
    search_for,
    search_for_actors,
)
from pdp.errors import FilterUnsupported, InvalidRequest, LimitExceeded, Violation
from pdp.facts import Replica, Survey, View
from pdp.identity import Verifier
from pdp.limits import BATCH_ITEMS_MAX, PLAN_NODES_MAX
from pdp.model import (
    NO_ATTRIBUTES,
    Actor,
    Attributes,
    Effect,
    Grant,
    Question,
    Reason,
    RefusedToken,
    Resource,
    ResourceFacts,
    ResourceRef,
    UserFacts,
    VerifiedToken,
)

CANDIDATES_MAX: Final = 1_000
"""The most resources that are decided for one page."""

_Token = VerifiedToken | RefusedToken


@dataclass(frozen=True, slots=True)
class Answered:
    """The common part of all answers."""

    token: _Token | None
    """None: the query does not name one actor."""
    refusal: Reason | None
    """Why everything is denied to the actor; None: it is not."""
    query_id: str
    revision: int
    epoch: str
    """Empty: the token was refused, so no fact was read."""


@dataclass(frozen=True, slots=True)
class PermissionsOn:
    """The declared permissions of a resource's type, each list in bytewise order."""

    allowed: Sequence[str] = ()
    denied: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the list of one actor's resources continues."""

    user_id: str
    organization_id: str | None
    after: str
    """The id of the last resource that was decided, allowed or not."""


@dataclass(frozen=True, slots=True)
class ResourcePage:
    """Ids of resources that the actor may use, in bytewise order."""

    ids: Sequence[str] = ()
    after: Place | None = None
    """Where the next page begins; None: the list is complete."""


@dataclass(frozen=True, slots=True)
class AllowedActor:
    """A user who has the permission while an organization is active."""

    user_id: str
    organization_id: str
    """Empty: while none is active."""
    paths: AccessPaths


@dataclass(frozen=True, slots=True)
class ActorPage:
    """Users who have the permission, ordered by user id and organization id."""

    actors: Sequence[AllowedActor]
    after: tuple[str, str] | None
    """User id and organization id that were decided last; None: the list is complete."""


class AccessQueries:
    """Answers queries. Has no state of its own."""

    def __init__(
        self,
        authorizer: Authorizer,
        verifier: Verifier,
        replica: Replica,
        recorder: Recorder,
        *,
        clock: Clock,
        note_too_expensive: Callable[[str], None],
    ) -> None:
        """`note_too_expensive` receives the id of each rule whose condition was not evaluated
        because of its cost."""
        self._authorizer = authorizer
        self._verifier = verifier
        self._replica = replica
        self._recorder = recorder
        self._clock = clock
        self._note_too_expensive = note_too_expensive

    async def permissions(
        self,
        asking: str | NamedActor,
        resources: Sequence[Resource],
        context: Attributes,
        caller: str,
        at_least_revision: int = 0,
    ) -> tuple[Answered, Sequence[PermissionsOn]]:
        """Decides all declared permissions of each resource's type, at one revision, for the bearer
        of a token or a named actor.

        Raises:
            errors.LimitExceeded: they are more than BATCH_ITEMS_MAX together.
            errors.Unavailable, errors.ShareExceeded: as `Authorizer.rule`.
        """
        named = isinstance(asking, NamedActor)
        token: _Token
        if isinstance(asking, NamedActor):
            token = asking.token(self._clock())
        else:
            token = await self._verifier.verify(asking)
        types = sorted({resource.type for resource in resources})
        record = self._record(
            "ListAllowedPermissions",
            f"{types[0]}:*" if len(types) == 1 else "*",
            ResourceRef(types[0], resources[0].id) if len(resources) == 1 else None,
            caller,
            token,
        )
        if isinstance(token, RefusedToken):
            answered = await self._finish(record, token, token.reason, None)
            return answered, [PermissionsOn()] * len(resources)
        if named:  # a name proves nothing, so it provisions nobody
            actor = token.actor
            view = await self._replica.view(
                actor.user_id, actor.organization_id, resources, at_least_revision
            )
        else:
            view = await self._authorizer.view(token, resources, at_least_revision)
        declared = {type_: view.policy.permissions_on(type_) for type_ in types}
        items = sum(len(declared[resource.type]) for resource in resources)
        if items > BATCH_ITEMS_MAX:
            raise LimitExceeded("batch_items_max", BATCH_ITEMS_MAX, items)
        principal = view.principal(token, record.decided_at)
        results, pace = [], Pace()
        for resource, chain in zip(resources, view.chains, strict=True):
            allowed: list[str] = []
            denied: list[str] = []
            for name in declared[resource.type]:
                holds = self._allows(principal, Question(name, resource, context), chain)
                (allowed if holds else denied).append(name)
                if pace.is_over():
                    await pace.give_way()
            results.append(PermissionsOn(allowed, denied))
        return await self._finish(record, token, principal.refusal, view), results

    async def resources(
        self,
        token_text: str,
        permission: str,
        resource_type: str,
        context: Attributes,
        caller: str,
        *,
        size: int,
        place: Place | None = None,
        at_least_revision: int = 0,
    ) -> tuple[Answered, ResourcePage]:
        """Returns one page of the stored resources of a type on which the actor has the permission.

        One revision decides the whole page. It may be short: it ends after CANDIDATES_MAX
        resources, or if the facts change between two reads.

        Raises:
            errors.InvalidRequest: the place is another actor's.
            errors.Unavailable, errors.ShareExceeded: as `Authorizer.rule`.
        """
        token = await self._verifier.verify(token_text)
        ref = ResourceRef(resource_type, "")
        record = self._record("ListAllowedResources", permission, ref, caller, token)
        if isinstance(token, RefusedToken):
            return await self._finish(record, token, token.reason, None), ResourcePage()
        actor, now = token.actor, record.decided_at
        whose = (actor.user_id, actor.organization_id)
        if place is not None and (place.user_id, place.organization_id) != whose:
            raise InvalidRequest(Violation("page_token", "is not a token of this actor"))
        # Provisions a new actor, as Check does.
        view = await self._authorizer.view(token, (), at_least_revision)
        principal = view.principal(token, now)
        after = "" if place is None else place.after
        allowed: list[str] = []
        snapshot, complete, pace = None, False, Pace()
        for limit in (size, CANDIDATES_MAX - size):

            def read(survey: Survey, after: str = after, limit: int = limit) -> View:
                view = survey.view(*whose, ())
                principal = view.principal(token, now)
                search = search_for(principal, permission, resource_type)
                return survey.view(*whose, survey.candidates(search, after, limit))

            if complete or len(allowed) == size or limit <= 0:
                break
            found = await self._replica.survey(read, view.revision)
            if snapshot is not None and found.snapshot is not snapshot:
                break
            view, snapshot = found, found.snapshot
            principal = view.principal(token, now)
            looked_at = 0
            for chain in view.chains:
                looked_at, after = looked_at + 1, chain[0].resource.id
                question = Question(permission, Resource(resource_type, after), context)
                # A grant may name a resource that is not stored.
                if chain[0].stored and self._allows(principal, question, chain):
                    allowed.append(after)
                    if len(allowed) == size:
                        break
                if pace.is_over():
                    await pace.give_way()
            complete = looked_at == len(view.chains) < limit
        place = None if complete else Place(*whose, after)
        answered = await self._finish(record, token, principal.refusal, view)
        return answered, ResourcePage(allowed, place)

    async def actors(
        self,
        permission: str,
        resource: Resource | None,
        caller: str,
        *,
        size: int,
        after: tuple[str, str] = ("", ""),
        at_least_revision: int = 0,
    ) -> tuple[Answered, ActorPage]:
        """Returns one page of the stored users who may have a permission on a resource, after a
        user id and organization id, at one revision.

        Raises:
            errors.Unavailable, errors.ShareExceeded: as `Authorizer.rule`.
        """
        ref = None if resource is None else ResourceRef(resource.type, resource.id)
        record = self._record("ListAllowedActors", permission, ref, caller, None)

        def read(survey: Survey) -> tuple[list[tuple[str, str]], bool, Sequence[View]]:
            search = search_for_actors(survey.policy, permission, survey.chain(resource))
            # One more than a page: the first may be the last of the page before.
            users = survey.actors(search, after[0], size + 1)
            pairs = [
                pair
                for user_id, facts in zip(users, survey.users(users), strict=True)
                for pair in sessions_of(user_id, facts)
                if pair > after
            ]
            complete = len(users) <= size and len(pairs) <= CANDIDATES_MAX
            pairs = pairs[:CANDIDATES_MAX]
            views = survey.views([(user_id, active or None) for user_id, active in pairs], resource)
            # The revision comes from a view, even without users.
            return pairs, complete, views or [survey.view("", None, ())]

        pairs, complete, views = await self._replica.survey(read, at_least_revision)
        found: list[AllowedActor] = []
        last, pace = None if complete else pairs[-1], Pace()
        for (user_id, active), view in zip(pairs, views, strict=False):
            token = unknown_token(user_id, active or None)
            principal = view.principal(token, record.decided_at)
            paths = access_paths(principal, permission, view.chains[0])
            if paths is not None:
                found.append(AllowedActor(user_id, active, paths))
                if len(found) == size and (user_id, active) != pairs[-1]:
                    last = (user_id, active)
                    break
            if pace.is_over():
                await pace.give_way()
        return await self._finish(record, None, None, views[0]), ActorPage(found, last)

    async def plan(
        self,
        token_text: str,
        permission: str,
        resource_type: str,
        context: Attributes,
        caller: str,
        *,
        allow_superset: bool = False,
        at_least_revision: int = 0,
    ) -> tuple[Answered, Plan, float]:
        """A filter for the resources of a type on which the actor has a permission, and when it was
        made, in seconds since 1970-01-01 UTC.

        Raises:
            errors.FilterUnsupported: no filter expresses it, and a superset is not wanted.
            errors.LimitExceeded: the filter would be too large.
            errors.Unavailable, errors.ShareExceeded: as `Authorizer.rule`.
        """
        token = await self._verifier.verify(token_text)
        ref = ResourceRef(resource_type, "")
        record = self._record("PlanResources", permission, ref, caller, token)
        if isinstance(token, RefusedToken):
            answered = await self._finish(record, token, token.reason, None)
            return answered, Plan(FALSE, token.reason, None), record.decided_at
        actor, now = token.actor, record.decided_at
        # Provisions a new actor, as Check does.
        view = await self._authorizer.view(token, (), at_least_revision)
        role_grants: Sequence[Grant] = ()
        principal = view.principal(token, now)
        if principal.organization_role:

            def read(survey: Survey) -> tuple[View, Sequence[Grant]]:
                view = survey.view(actor.user_id, actor.organization_id, ())
                principal = view.principal(token, now)
                role = principal.organization_role
                return view, survey.grants_on_resources(role, PLAN_NODES_MAX + 1)

            view, role_grants = await self._replica.survey(read, view.revision)
            principal = view.principal(token, now)
        if len(role_grants) > PLAN_NODES_MAX:
            raise LimitExceeded("plan_nodes_max", PLAN_NODES_MAX, len(role_grants))
        plan = plan_for(principal, permission, resource_type, context, role_grants)
        if plan.unsupported and not allow_superset:
            raise FilterUnsupported(plan.unsupported)
        answered = await self._finish(record, token, principal.refusal, view)
        return answered, plan, now

    def _allows(
        self, principal: Principal, question: Question, chain: tuple[ResourceFacts, ...]
    ) -> bool:
        decision = decide(principal, question, chain)
        for rule_id in decision.too_expensive:
            self._note_too_expensive(rule_id)
        return decision.effect is Effect.ALLOW

    def _record(
        self,
        query: str,
        permission: str,
        resource: ResourceRef | None,
        caller: str,
        token: _Token | None,
    ) -> DecisionRecord:
        """The record of a query that begins now. `_finish` completes it."""
        return DecisionRecord(
            decision_id=new_decision_id(),
            decided_at=self._clock(),
            effect=Effect.DENY,
            reason=Reason.QUERY_ANSWERED,
            permission=permission,
            caller=caller,
            revision=self._replica.revision,
            token_fingerprint="" if token is None else token.fingerprint,
            actor=None if token is None else token.actor,
            token_id=None if token is None else token.token_id,
            resource=resource,
            query=query,
        )

    async def _finish(
        self,
        record: DecisionRecord,
        token: _Token | None,
        refusal: Reason | None,
        view: View | None,
    ) -> Answered:
        """Logs the query; then confirms, last, that its facts are still fresh."""
        record = replace(
            record,
            effect=Effect.ALLOW if refusal is None else Effect.DENY,
            reason=refusal or Reason.QUERY_ANSWERED,
            revision=record.revision if view is None else view.revision,
        )
        (query_id,) = await self._recorder.record([record])
        if view is not None:
            self._replica.confirm(view)
        epoch = "" if view is None else view.snapshot.epoch
        return Answered(token, refusal, query_id, record.revision, epoch)


def sessions_of(user_id: str, facts: UserFacts | None) -> list[tuple[str, str]]:
    """The pairs of a user with each organization that may be active; empty: none."""
    memberships = () if facts is None else sorted(facts.memberships)
    return [(user_id, active) for active in ("", *memberships)]


def unknown_token(user_id: str, active: str | None) -> VerifiedToken:
    """Represents any session of a user. No condition is evaluated with it."""
    return VerifiedToken(Actor(user_id, "", active), "", "", inf, NO_ATTRIBUTES)

"""The guard for threads: asks within a deadline and returns the decision."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar, cast

import grpc

from pdp_client.asking import Asking, Attempts
from pdp_client.cache import Fresh, key_of
from pdp_client.errors import actor_of
from pdp_client.messages import (
    as_list,
    batch_request,
    check_request,
    decision_from_check,
    decisions_from_batch,
    fresh_from_check,
    permissions_from_answer,
    permissions_request,
    plan_from_answer,
    plan_request,
)
from pdp_client.permissions import PermissionSet, permission_set
from pdp_client.plans import Plan
from pdp_client.values import Actor, Attributes, Decision, Question, Resource, Token

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


class Guard(Asking):
    """Asks a PDP, and waits for the answer. Thread-safe; its options are those of `Asking`.

    Example::

        guard = Guard("dns:///pdp.internal:50051", tls=TlsOptions(ca="ca.pem"), api_key=key)
        decision = guard.check(token, "course:edit", Resource("course", "c1"))
        if decision.allowed: ...
        actor = guard.require(token, "course:edit", Resource("course", "c1"))  # or raises Denied
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections. Calls in flight raise PdpUnavailable, later calls ValueError."""
        self._end()

    def check(
        self,
        token: str | Token,
        permission: str,
        resource: Resource | None = None,
        context: Attributes | None = None,
        *,
        at_least_revision: int = 0,
    ) -> Decision:
        """Asks whether the bearer of `token` may use `permission` on `resource`.

        Args:
            token: the Clerk session token.
            permission: `resource-type:action`.
            resource: the resource; None: the question names none.
            context: values of the request that conditions read as `context`.
            at_least_revision: the revision of a write that the answer must reflect; 0: none.

        Returns:
            The decision, an allow or a denial: read `decision.allowed`.

        Raises:
            PdpUnavailable: there is no answer; a retry may help.
            PdpRefused: the PDP rejects the question; a retry does not help.
            TypeError, ValueError: an argument cannot be sent.
        """
        secret = Token.of(token)
        attempts = Attempts(secret, self._deadline_seconds)
        request = check_request(secret, Question(permission, resource, context), at_least_revision)
        if self._cache is None:
            return decision_from_check(self._ask(self._stub.Check, request, attempts))
        key = key_of("Check", request)
        cached = self._cache.find(key)
        if cached is not None:
            return cached[1]

        def fresh() -> Fresh[tuple[Decision, Decision]]:
            sent_at = time.monotonic()
            answer = self._ask(self._stub.Check, request, attempts)
            return fresh_from_check(request, answer, sent_at)

        given = self._cache.get_or_ask(key, fresh, wait_seconds=self._deadline_seconds)
        return given.answer[given.cached]

    def require(
        self,
        token: str | Token,
        permission: str,
        resource: Resource | None = None,
        context: Attributes | None = None,
        *,
        at_least_revision: int = 0,
    ) -> Actor:
        """Returns the verified actor if they are allowed.

        Raises:
            Unauthenticated: the token does not prove the actor's identity (401).
            Forbidden: the actor is not allowed (403).
            GuardError: as `check`.
        """
        return actor_of(
            self.check(token, permission, resource, context, at_least_revision=at_least_revision)
        )

    def require_role(self, token: str | Token, role: str) -> Actor:
        """Like `require` for the permission `role:<role>`, which the policy declares and gives to
        the role. Reads no claim of the token."""
        return self.require(token, f"role:{role}")

    def batch(
        self,
        token: str | Token,
        questions: Sequence[Question],
        *,
        at_least_revision: int = 0,
    ) -> list[Decision]:
        """Asks 1 to 1,000 questions of an actor. The decisions have the order of the questions and
        are all made at the same revision.

        Raises what `check` raises; ValueError for another number of questions (they are not split,
        because two calls may read two revisions).
        """
        secret = Token.of(token)
        request = batch_request(secret, questions, at_least_revision)
        attempts = Attempts(secret, self._deadline_seconds)
        answer = self._ask(self._stub.BatchCheck, request, attempts)
        return decisions_from_batch(answer, len(questions))

    def can(self, token: str | Token, questions: Sequence[Question]) -> PermissionSet:
        """Asks which of at most 1,000 questions are allowed, for display in a user interface. It
        guards nothing.

        For a refused token, none is. Raises what `batch` raises.
        """
        return permission_set(questions, self.batch(token, questions) if questions else [])

    def permissions(
        self,
        token: str | Token,
        resources: Resource | Sequence[Resource],
        context: Attributes | None = None,
        *,
        at_least_revision: int = 0,
    ) -> PermissionSet:
        """Returns all declared permissions that the actor has on a resource, or on each of several
        resources, for display in a user interface. It guards nothing.

        If a resource is given twice, a permission on it must hold both times. A refused token has
        no permissions. All resources together may have at most 1,000 declared permissions of their
        types. Raises what `check` raises; ValueError for more than 1,000 resources.
        """
        asked = as_list(resources)
        if not asked:
            return PermissionSet()
        secret = Token.of(token)
        request = permissions_request(secret, asked, context, at_least_revision)
        attempts = Attempts(secret, self._deadline_seconds)
        answer = self._ask(self._queries.ListAllowedPermissions, request, attempts)
        return permissions_from_answer(answer, asked)

    def plan(
        self,
        token: str | Token,
        permission: str,
        resource_type: str,
        context: Attributes | None = None,
        *,
        allow_superset: bool = False,
        at_least_revision: int = 0,
    ) -> Plan:
        """Returns a filter for a query: the rows of a type on which the actor may use a permission.
        See `pdp_client.sqlalchemy` and `pdp_client.django`.

        It equals a `check` of each row at the same revision. Use it for a single query, at once. A
        refused actor has no rows. If a condition cannot be expressed: with `allow_superset` the
        filter selects more rows, and each must be checked; otherwise PdpRefused names rule and
        operator. Raises what `check` raises.
        """
        secret = Token.of(token)
        request = plan_request(
            secret,
            permission,
            resource_type,
            context,
            at_least_revision,
            allow_superset=allow_superset,
        )
        attempts = Attempts(secret, self._deadline_seconds)
        answer = self._ask(self._queries.PlanResources, request, attempts)
        return plan_from_answer(answer, request)

    def _ask(
        self,
        method: "grpc.UnaryUnaryMultiCallable[RequestT, AnswerT]",  # generic in its stubs only
        request: RequestT,
        attempts: Attempts,
    ) -> AnswerT:
        """Calls until there is an answer, a permanent error, or no time left."""
        while True:
            try:
                return method(request, timeout=attempts.seconds_left, metadata=self._metadata)
            except grpc.RpcError as error:
                # A stub raises the ended call.
                pause = attempts.failed(cast(grpc.Call, error))
            if pause is None or self._closed.wait(pause):
                raise attempts.error()

"""The guard for threads: ask, bounded by a deadline, and say what came of it."""

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
    """Asks one PDP, and waits for the answer. Thread-safe; its options are those of `Asking`."""

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
        """Ends the connections; calls in flight raise PdpUnavailable, later ones ValueError."""
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
        """May the bearer of `token` use `permission` on `resource`? Both answers are returned:
        look at `decision.allowed`.

        Raises PdpUnavailable or PdpRefused where there is no answer, TypeError or ValueError for
        arguments that cannot be sent. `at_least_revision` (from a write) asks for an answer that
        has seen that write; 0: no wish.
        """
        secret = Token.of(token)
        attempts = Attempts(secret, self._deadline_seconds)
        request = check_request(secret, Question(permission, resource, context), at_least_revision)
        if self._cache is None:
            return decision_from_check(self._ask(self._stub.Check, request, attempts))
        key = key_of("Check", request)
        kept = self._cache.find(key)
        if kept is not None:
            return kept[1]

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
        """Returns the verified actor if they may.

        Raises Unauthenticated (401) or Forbidden (403) if they may not, and otherwise what `check`
        raises.
        """
        return actor_of(
            self.check(token, permission, resource, context, at_least_revision=at_least_revision)
        )

    def require_role(self, token: str | Token, role: str) -> Actor:
        """`require` of the permission `role:<role>`, which the policy declares and gives to the
        role. No claim of the token is read."""
        return self.require(token, f"role:{role}")

    def batch(
        self,
        token: str | Token,
        questions: Sequence[Question],
        *,
        at_least_revision: int = 0,
    ) -> list[Decision]:
        """Answers 1 to 1,000 questions of one actor, in order, all at one revision.

        Raises what `check` raises; ValueError for another number of questions (they are not split:
        two calls may see two revisions).
        """
        secret = Token.of(token)
        request = batch_request(secret, questions, at_least_revision)
        attempts = Attempts(secret, self._deadline_seconds)
        answer = self._ask(self._stub.BatchCheck, request, attempts)
        return decisions_from_batch(answer, len(questions))

    def can(self, token: str | Token, questions: Sequence[Question]) -> PermissionSet:
        """Which of at most 1,000 questions hold, for a user interface to show. It guards nothing.

        A refused token holds nothing. Raises what `batch` raises.
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
        """All declared permissions that the actor has on one resource, or on each of several, for
        a user interface to show. It guards nothing.

        A permission holds on a resource that is given twice if it does so both times. A refused
        token holds nothing. All resources together have at most 1,000 declared permissions of
        their types. Raises what `check` raises; ValueError for more than 1,000 resources.
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
        """Which rows of a type the actor may use a permission on, as a filter for a query: see
        `pdp_client.sqlalchemy` and `pdp_client.django`.

        It equals `check` of each row at the same revision. Use it for one query, at once. A refused
        actor has none. If a condition cannot be expressed: with `allow_superset` the filter takes
        more, and each row must be checked; otherwise PdpRefused names rule and operator. Raises
        what `check` raises.
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
        """Calls until there is an answer, an error that will stay, or no time left."""
        while True:
            try:
                return method(request, timeout=attempts.seconds_left, metadata=self._metadata)
            except grpc.RpcError as error:
                # What a stub raises is the ended call.
                pause = attempts.failed(cast(grpc.Call, error))
            if pause is None or self._closed.wait(pause):
                raise attempts.error()

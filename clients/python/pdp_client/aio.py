"""The guard for asyncio: the questions of `Guard`, awaited."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from pdp_client.asking import Asking, Attempts
from pdp_client.cache import key_of
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


class AsyncGuard(Asking):
    """Asks a PDP from asyncio. Its options are those of `Asking`.

    It belongs to no event loop, and may be created outside of one: grpc.aio binds a channel to a
    loop permanently, but Django, Flask and test clients run many loops.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections. Calls in flight raise PdpUnavailable, later calls ValueError."""
        await asyncio.to_thread(self._end)

    async def check(
        self,
        token: str | Token,
        permission: str,
        resource: Resource | None = None,
        context: Attributes | None = None,
        *,
        at_least_revision: int = 0,
    ) -> Decision:
        """See `Guard.check`."""
        secret = Token.of(token)
        attempts = Attempts(secret, self._deadline_seconds)
        request = check_request(secret, Question(permission, resource, context), at_least_revision)
        if self._cache is None:
            return decision_from_check(await self._ask(self._stub.Check, request, attempts))
        key = key_of("Check", request)
        kept = self._cache.find(key)
        if kept is not None:
            return kept[1]
        # Like `DecisionCache.get_or_ask`, but waiting holds no thread.
        asking, mine = self._cache.claim(key)
        try:
            if not mine:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(attempts.seconds_left):
                        await _done(asking)
            kept = self._cache.find(key)
            if kept is not None:
                return kept[1]
            sent_at = time.monotonic()
            answer = await self._ask(self._stub.Check, request, attempts)
            fresh = fresh_from_check(request, answer, sent_at)
            self._cache.keep(key, fresh)
            return fresh.answer[0]
        finally:
            if mine:
                self._cache.release(key, asking)

    async def require(
        self,
        token: str | Token,
        permission: str,
        resource: Resource | None = None,
        context: Attributes | None = None,
        *,
        at_least_revision: int = 0,
    ) -> Actor:
        """See `Guard.require`."""
        return actor_of(
            await self.check(
                token, permission, resource, context, at_least_revision=at_least_revision
            )
        )

    async def require_role(self, token: str | Token, role: str) -> Actor:
        """See `Guard.require_role`."""
        return await self.require(token, f"role:{role}")

    async def batch(
        self,
        token: str | Token,
        questions: Sequence[Question],
        *,
        at_least_revision: int = 0,
    ) -> list[Decision]:
        """See `Guard.batch`."""
        secret = Token.of(token)
        request = batch_request(secret, questions, at_least_revision)
        attempts = Attempts(secret, self._deadline_seconds)
        answer = await self._ask(self._stub.BatchCheck, request, attempts)
        return decisions_from_batch(answer, len(questions))

    async def can(self, token: str | Token, questions: Sequence[Question]) -> PermissionSet:
        """See `Guard.can`."""
        return permission_set(questions, await self.batch(token, questions) if questions else [])

    async def permissions(
        self,
        token: str | Token,
        resources: Resource | Sequence[Resource],
        context: Attributes | None = None,
        *,
        at_least_revision: int = 0,
    ) -> PermissionSet:
        """See `Guard.permissions`."""
        asked = as_list(resources)
        if not asked:
            return PermissionSet()
        secret = Token.of(token)
        request = permissions_request(secret, asked, context, at_least_revision)
        attempts = Attempts(secret, self._deadline_seconds)
        answer = await self._ask(self._queries.ListAllowedPermissions, request, attempts)
        return permissions_from_answer(answer, asked)

    async def plan(
        self,
        token: str | Token,
        permission: str,
        resource_type: str,
        context: Attributes | None = None,
        *,
        allow_superset: bool = False,
        at_least_revision: int = 0,
    ) -> Plan:
        """See `Guard.plan`."""
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
        answer = await self._ask(self._queries.PlanResources, request, attempts)
        return plan_from_answer(answer, request)

    async def _ask(
        self,
        method: "grpc.UnaryUnaryMultiCallable[RequestT, AnswerT]",  # generic in its stubs only
        request: RequestT,
        attempts: Attempts,
    ) -> AnswerT:
        """Calls until there is an answer, a permanent error, or no time left."""
        while True:
            call = method.future(request, timeout=attempts.seconds_left, metadata=self._metadata)
            await _ended(call)
            if call.code() is grpc.StatusCode.OK:
                return call.result()
            pause = attempts.failed(call)
            if pause is not None and not self._closed.is_set():
                await asyncio.sleep(pause)
            if pause is None or self._closed.is_set():
                raise attempts.error()


async def _ended(call: Any) -> None:
    """Returns when a call has ended. Cancels the call if the waiting task is cancelled."""
    try:
        await _done(call)
    except asyncio.CancelledError:
        call.cancel()
        raise


async def _done(future: Any) -> None:
    """Returns when a future of another thread is done."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def tell(_: object) -> None:
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:  # the loop was closed: no task waits any more
            return

    future.add_done_callback(tell)
    await done.wait()

"""Load while something fails: one question asked all the time, and each outcome with its time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from pdpapi.v1.core_pb2 import Decision
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit.school import ALGEBRA, ORGANIZATION
from tests.kit.server import Stubs, token_of

SPACING_SECONDS = 0.02


@dataclass(frozen=True)
class Asked:
    """One Check."""

    at: float
    """Monotonic time before it was sent."""
    seconds: float
    allowed: bool
    error: grpc.RpcError | None


@dataclass
class Log:
    """All of them, in the order in which they were asked."""

    asked: list[Asked] = field(default_factory=list)

    def allows(self, since: float = 0.0) -> list[Asked]:
        return [answer for answer in list(self.asked) if answer.allowed and answer.at > since]

    def errors(self, since: float = 0.0) -> list[Asked]:
        return [
            answer for answer in list(self.asked) if answer.error is not None and answer.at > since
        ]


def question(user: str = "user_sam", permission: str = "course:view") -> CheckRequest:
    """A question of a user who is allowed by default. The token lives for a minute."""
    token = token_of(user, organization_id=ORGANIZATION)
    return CheckRequest(actor_token=token, permission=permission, resource=ALGEBRA)


def ask_once(stubs: Stubs, request: CheckRequest) -> Asked:
    began = time.monotonic()
    allowed, error = False, None
    try:
        answer = stubs.decision.Check(request, timeout=20)
        allowed = answer.decision == Decision.DECISION_ALLOW
    except grpc.RpcError as refused:
        error = refused
    return Asked(began, time.monotonic() - began, allowed, error)


@contextmanager
def asking(stubs: Stubs, request: CheckRequest) -> Iterator[Log]:
    """Asks in the background while the block runs."""
    log = Log()
    stopped = threading.Event()

    def ask() -> None:
        while not stopped.wait(SPACING_SECONDS):
            log.asked.append(ask_once(stubs, request))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield log
    finally:
        stopped.set()
        thread.join()

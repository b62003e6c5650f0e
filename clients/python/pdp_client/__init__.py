"""The guard: a line before the business logic that asks the policy decision point.

    guard = Guard("dns:///pdp.internal:50051", tls=TlsOptions(ca="ca.pem"), api_key=key)
    course = Resource("course", row.id, organization_id=row.organization_id)
    actor = guard.require(token, "course:edit", course)

In:  the request's Clerk session token, a permission, a resource, a context.
Out: one of three distinct outcomes. A decision (`check`, `batch`: allow or deny); a denial raised
     (`require`: `Unauthenticated` or `Forbidden`); or no decision (`PdpUnavailable`, `PdpRefused`),
     which is never an allow.

Invariants:
- An allow is returned only for an answer with DECISION_ALLOW that names the actor and is
  consistent. Every status but OK and every other answer is an error.
- A `Decision` has no truth value: `if guard.check(...)` raises instead of passing.
- A call ends within its deadline, retries included.
- No exception and no repr contains a token or an API key.
- It decides nothing and reads no claim of the token. It caches nothing, except allows with
  `cache=True`, by the rules of `pdp_client/cache.py`.
"""

from pdp_client.aio import AsyncGuard
from pdp_client.asking import CacheStatus
from pdp_client.errors import (
    Denied,
    Forbidden,
    GuardError,
    PdpRefused,
    PdpUnavailable,
    RouteRefused,
    Unauthenticated,
    Violation,
)
from pdp_client.guard import Guard
from pdp_client.headers import session_token
from pdp_client.messages import BATCH_QUESTIONS_MAX
from pdp_client.permissions import PermissionSet
from pdp_client.plans import FilterUnsupported, Plan, PlanInvalid
from pdp_client.refusals import Refusal, refusal_of
from pdp_client.transport import TlsOptions
from pdp_client.values import (
    Actor,
    AnswerSource,
    Decision,
    DenialKind,
    Effect,
    Factor,
    Question,
    Resource,
    StepUp,
    Token,
)

__all__ = [
    "BATCH_QUESTIONS_MAX",
    "Actor",
    "AnswerSource",
    "AsyncGuard",
    "CacheStatus",
    "Decision",
    "DenialKind",
    "Denied",
    "Effect",
    "Factor",
    "FilterUnsupported",
    "Forbidden",
    "Guard",
    "GuardError",
    "PdpRefused",
    "PdpUnavailable",
    "PermissionSet",
    "Plan",
    "PlanInvalid",
    "Question",
    "Refusal",
    "Resource",
    "RouteRefused",
    "StepUp",
    "TlsOptions",
    "Token",
    "Unauthenticated",
    "Violation",
    "refusal_of",
    "session_token",
]

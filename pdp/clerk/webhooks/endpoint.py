"""A webhook request -> a response: verified, parsed, committed, and visible to this process."""

import enum
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from pdp.clerk.directory import Directory
from pdp.clerk.objects import MalformedObject
from pdp.clerk.observations import Message
from pdp.clerk.webhooks.batcher import Batcher
from pdp.clerk.webhooks.events import TYPES, Event, observation_of, parse_event
from pdp.clerk.webhooks.signatures import Headers, Refusal, check_headers, verify
from pdp.clock import Clock
from pdp.concurrency.waiting import in_pool
from pdp.errors import DatabaseUnavailable

log = structlog.get_logger("pdp.clerk")

UNKNOWN_TYPE = "unknown"
WRITERS_MAX = 32
"""Messages that wait for the database at the same time; they are written in batches."""


class Outcome(enum.Enum):
    """The result for a message with a valid signature. The value is a label of a metric."""

    APPLIED = "applied"
    """It, or another message of its batch, changed something."""
    UNCHANGED = "unchanged"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    """Its type is not known."""
    MALFORMED = "malformed"
    OTHER_INSTANCE = "other_instance"
    UNAVAILABLE = "unavailable"
    """The database does not answer: Clerk retries."""


_STATUSES = {Outcome.MALFORMED: 400, Outcome.OTHER_INSTANCE: 400, Outcome.UNAVAILABLE: 503}


class Webhooks:
    """Handles Clerk's webhook requests.

    `await_revision` waits until this process decides from a revision; `count` is called with the
    event type and outcome of each message.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        instance_id: str,
        secrets: Sequence[str],
        clock: Clock,
        await_revision: Callable[[int], Awaitable[bool]],
        count: Callable[[str, str], None],
    ) -> None:
        self._batcher = Batcher(directory.observe_messages)
        self._writers = ThreadPoolExecutor(WRITERS_MAX, thread_name_prefix="webhooks")
        self._instance_id = instance_id
        self._secrets = secrets
        self._clock = clock
        self._await_revision = await_revision
        self._count = count

    def refusal(self, headers: Headers) -> str | None:
        """Why a message is refused before its body is read; None: read the body."""
        checked = check_headers(headers, self._clock())
        return checked.value if isinstance(checked, Refusal) else None

    async def answer(self, headers: Headers, body: bytes) -> tuple[int, str]:
        """The status and text of the response; 200 only after the message is committed."""
        message_id = verify(headers, body, self._secrets, self._clock())
        if isinstance(message_id, Refusal):
            # Anybody can send these: they are counted and not logged.
            self._count(UNKNOWN_TYPE, message_id.value)
            return 400, message_id.value
        type_, outcome = await self._handle(message_id, body)
        self._count(type_, outcome.value)
        return _STATUSES.get(outcome, 200), outcome.value

    async def _handle(self, message_id: str, body: bytes) -> tuple[str, Outcome]:
        type_ = UNKNOWN_TYPE
        try:
            event = parse_event(body)
            if event.type in TYPES:
                type_ = event.type
            return type_, await self._apply(message_id, event)
        except MalformedObject as error:
            log.warning("webhook_malformed", message_id=message_id, type=type_, error=str(error))
            return type_, Outcome.MALFORMED
        except DatabaseUnavailable as error:
            log.warning("webhook_postponed", message_id=message_id, type=type_, error=error.message)
            return type_, Outcome.UNAVAILABLE

    async def _apply(self, message_id: str, event: Event) -> Outcome:
        if event.instance_id != self._instance_id:
            log.warning("webhook_of_another_instance", message_id=message_id)
            return Outcome.OTHER_INSTANCE
        if event.type not in TYPES:
            return Outcome.IGNORED
        observation = observation_of(event)
        if observation is None:
            return Outcome.UNCHANGED
        message = Message(message_id, observation)
        observed = await in_pool(self._writers, lambda: self._batcher.write(message))
        # Also for a duplicate: the response to the first may have been lost while we waited.
        if not await self._await_revision(observed.revision):
            log.warning("webhook_answered_early", revision=observed.revision)
        if observed.duplicate:
            return Outcome.DUPLICATE
        return Outcome.APPLIED if observed.differences else Outcome.UNCHANGED

"""The users, organizations and memberships that Clerk reports, written to the facts."""

from collections.abc import Callable, Sequence

from pdp.clerk import projection
from pdp.clerk.observations import Arrival, Message, Observation, Observed
from pdp.clock import Clock, wall_clock
from pdp.facts import Store
from pdp.facts.store.clerk_objects import SyncState, record_message, write_sync


class Directory:
    """Makes the facts follow from what Clerk reports. Every method may raise DatabaseUnavailable.

    `on_write` is called with the revision of every change, after it was committed. `default_role`
    is granted everywhere to each user who becomes known through Clerk.
    """

    def __init__(
        self,
        store: Store,
        on_write: Callable[[int], None],
        *,
        clock: Clock = wall_clock,
        default_role: str | None = None,
    ) -> None:
        self._store = store
        self._on_write = on_write
        self._clock = clock
        self._default_role = default_role

    def observe_messages(self, messages: Sequence[Message]) -> Sequence[Observed]:
        """Makes the facts follow from messages, all or none in one transaction. Neither repetition
        nor order matters: a message that was handled before does nothing.

        Returns what came of each; those that are new share their differences. Raises
        InvalidRequest.
        """
        with self._store.write() as transaction:
            before = transaction.revision
            handled_at = self._clock()
            new = {
                number
                for number, message in enumerate(messages)
                if record_message(transaction, message.id, handled_at)
            }
            differences = projection.mirror(
                transaction,
                [messages[number].observation for number in sorted(new)],
                now=self._clock(),
                default_role=self._default_role,
            )
            revision = transaction.revision
        if revision != before:
            self._on_write(revision)
        return [
            Observed(revision, differences) if number in new else Observed(revision, duplicate=True)
            for number in range(len(messages))
        ]

    def observe(
        self,
        observations: Sequence[Observation],
        *,
        run: int = 0,
        progress: SyncState | None = None,
        dry_run: bool = False,
    ) -> Observed:
        """Makes the facts follow from what was seen of Clerk's account, all or nothing. Neither
        repetition nor order matters.

        `run` is the sync that saw it, and `progress` how far that has come: written in the same
        transaction. With `dry_run` only the progress is written. Raises InvalidRequest.
        """
        with self._store.write() as transaction:
            before = transaction.revision
            differences = projection.mirror(
                transaction,
                observations,
                now=self._clock(),
                run=run,
                default_role=self._default_role,
            )
            if dry_run:
                transaction.discard()
            elif progress is not None:
                write_sync(transaction, progress)
            revision = before if dry_run else transaction.revision
        if dry_run and progress is not None:
            with self._store.write() as transaction:
                projection.mark_met(transaction, observations, run)
                write_sync(transaction, progress)
        if revision != before:
            self._on_write(revision)
        return Observed(revision, differences)

    def admit(self, arrival: Arrival, noticed_at: int) -> int:
        """Creates the user that a valid token proves, and the active organization and the
        membership with it, as far as nobody has spoken of them before.

        `noticed_at` is when the token was issued, in milliseconds. Returns the revision that holds
        them, which is the current one where there was nothing to create. Raises InvalidRequest.
        """
        with self._store.write() as transaction:
            before = transaction.revision
            projection.admit(transaction, arrival, noticed_at, self._default_role)
            revision = transaction.revision
        if revision != before:
            self._on_write(revision)
        return revision

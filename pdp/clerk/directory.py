"""The users, organizations and memberships that Clerk reports, written to the facts."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from pdp.administration_records import Author, Source
from pdp.clerk import projection
from pdp.clerk.observations import Message, Observation, Observed, TokenIdentity, names_of
from pdp.clock import Clock, wall_clock
from pdp.facts import Store
from pdp.facts.store.clerk_objects import SyncState, record_message, write_sync


class Directory:
    """Writes what Clerk reports to the facts. Every method may raise DatabaseUnavailable.

    `on_write` is called with the revision of each change, after the commit. `default_role` is
    granted everywhere to each user that Clerk reports for the first time. `author` is who runs a
    sync, for the administration records.
    """

    def __init__(
        self,
        store: Store,
        on_write: Callable[[int], None],
        *,
        clock: Clock = wall_clock,
        default_role: str | None = None,
        author: Author = Author(Source.CLERK_SYNC),  # noqa: B008  # immutable
    ) -> None:
        self._store = store
        self._author = author
        self._on_write = on_write
        self._clock = clock
        self._default_role = default_role

    def observe_messages(self, messages: Sequence[Message]) -> Sequence[Observed]:
        """Writes messages in one transaction, all or none. Duplicates and order do not matter: a
        message that was handled before changes nothing.

        Returns:
            A result for each message; all new messages share their differences.

        Raises:
            InvalidRequest: A message cannot be stored.
        """
        named = [(message.id, names_of(message.observation)) for message in messages]
        author = Author(Source.CLERK_WEBHOOK, messages=named)
        with self._store.write(author) as transaction:
            before = transaction.revision
            handled_at = self._clock()
            new = {
                number
                for number, message in enumerate(messages)
                if record_message(transaction, message.id, handled_at)
            }
            differences = projection.project(
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
        """Writes observations in one transaction, all or none. Duplicates and order do not matter.

        Args:
            observations: In any order.
            run: The sync that made them; 0 for none.
            progress: The progress of that sync, written in the same transaction.
            dry_run: Write the progress only.

        Raises:
            InvalidRequest: An observation cannot be stored.
        """
        with self._store.write(replace(self._author, sync_run=run)) as transaction:
            before = transaction.revision
            differences = projection.project(
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
                projection.mark_observed(transaction, observations, run)
                write_sync(transaction, progress)
        if revision != before:
            self._on_write(revision)
        return Observed(revision, differences)

    def admit(self, identity: TokenIdentity, noticed_at: int) -> int:
        """Creates the user, organization and membership named in a verified token, unless Clerk has
        already reported them.

        Args:
            identity: What the token proves.
            noticed_at: When the token was issued, in milliseconds.

        Returns:
            The revision that contains them; the current one if nothing was created.

        Raises:
            InvalidRequest: An id cannot be stored.
        """
        with self._store.write(Author(Source.TOKEN)) as transaction:
            before = transaction.revision
            projection.admit(transaction, identity, noticed_at, self._default_role)
            revision = transaction.revision
        if revision != before:
            self._on_write(revision)
        return revision

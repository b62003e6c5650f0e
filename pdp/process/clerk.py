"""The parts of a server that take users from Clerk and give it names of roles."""

from collections.abc import Callable

from pdp.clerk.directory import Directory
from pdp.clerk.provisioning import Provisioner
from pdp.clerk.role_claims_push import Pusher
from pdp.clerk.sync.scheduler import Reconciler
from pdp.clerk.webhooks.endpoint import Webhooks
from pdp.clock import Clock, wall_clock
from pdp.facts import Replica, Store
from pdp.gauges import Gauges
from pdp.http import PostHandler
from pdp.process.lifecycle import Part
from pdp.settings import Settings


class ClerkParts:
    """The parts that the settings of Clerk enable."""

    def __init__(self, settings: Settings, store: Store, replica: Replica, *, clock: Clock) -> None:
        self._settings = settings.clerk
        self._replica = replica
        self._clock = clock
        # Pusher and reconciler use the wall clock: they share a schedule with other processes.
        self._pusher: Pusher | None = None
        if self._settings.push_claims:
            self._pusher = Pusher(self._settings, store, clock=wall_clock)
        self._directory = Directory(
            store,
            on_write=self.on_write,
            clock=clock,
            default_role=self._settings.default_role,
        )
        self._reconciler = Reconciler(
            self._settings,
            store,
            self._directory,
            clock=wall_clock,
            token_lifetime_seconds_max=settings.token_lifetime_seconds_max,
            on_synced=self._on_synced,
        )

    def gauges(self) -> Gauges:
        """For metrics."""
        return self._reconciler.gauges()

    def parts(self) -> list[Part]:
        """The parts that start and stop with the process, in this order."""
        reconciler = Part(self._reconciler.start, self._reconciler.stop)
        if self._pusher is None:
            return [reconciler]
        return [Part(self._pusher.start, self._pusher.stop), reconciler]

    def on_write(self, revision: int) -> None:
        """Notifies the replica and the pusher of a write of this process."""
        self._replica.poke()
        if self._pusher is not None:
            self._pusher.notify(revision)

    def _on_synced(self) -> None:
        if self._pusher is not None:
            self._pusher.sweep()

    def provisioner(self) -> Provisioner | None:
        """Creates users that only their token names; None: that is not enabled."""
        if not self._settings.provisioning:
            return None
        return Provisioner(self._directory.admit, instance_id=self._settings.instance_id)

    def webhooks(self, count: Callable[..., None]) -> PostHandler | None:
        """The endpoint for messages of Clerk; None: it is not configured."""
        clerk = self._settings
        if not clerk.webhook_secrets or clerk.instance_id is None:
            return None
        return Webhooks(
            self._directory,
            instance_id=clerk.instance_id,
            secrets=[secret.get_secret_value() for secret in clerk.webhook_secrets],
            clock=self._clock,
            await_revision=self._replica.await_revision,
            count=count,
        )

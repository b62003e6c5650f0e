"""The composition root: settings -> rooms -> listeners, and the order in which they start and stop.

A process starts whatever is out of reach: without its database or a key set it is alive and not
ready, and becomes ready by itself.
"""

import contextlib
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from pdp.access_queries import AccessQueries
from pdp.administrator import Administrator
from pdp.audit import DecisionLog, Recorder, Reports, Shares, Shipper, SqlDestination
from pdp.authorizer import Authorizer
from pdp.certificates import examine_certificates
from pdp.clerk.provisioning import Provisioner
from pdp.clerk.pusher import Pusher
from pdp.clerk.reconciler import Reconciler
from pdp.clerk.webhooks import Webhooks
from pdp.clock import DecisionClock, elapsed_clock, wall_clock
from pdp.facts import Listener, Replica, Store, migrate
from pdp.garbage import leave_in_peace
from pdp.http import WEBHOOK_PATH, Metrics, PostHandler, http_application
from pdp.http.bounded_post import BODY_BYTES_MAX
from pdp.identity import Verifier
from pdp.limits import RPCS_PER_THREAD_MAX
from pdp.listener import EventLoop, HttpListener
from pdp.settings import Settings, development_beside_production
from pdp.sql import database_name, open_engine
from pdp.wire import (
    Application,
    Callers,
    Health,
    Pages,
    Rate,
    Watchers,
    access_query_methods,
    administration_methods,
    audit_methods,
    decision_methods,
    external_authorization_methods,
    reflection_methods,
)

log = structlog.get_logger("pdp.app")

READINESS_SECONDS = 0.2
CLOCK_OBSTACLE = "the wall clock went back: check the clock, then restart this process"


class Service:
    """One serving process."""

    def __init__(
        self,
        settings: Settings,
        *,
        origin: str = "pdp",
        metrics_directory: str | None = None,
        carried: bool = False,
    ) -> None:
        """`carried`: another server owns the gRPC port and calls `application`."""
        self._carried = carried
        self._settings = settings
        url = settings.database_url.get_secret_value()
        self._engine = open_engine(url)
        if url.startswith("sqlite"):
            migrate(self._engine)
        store = Store(self._engine)
        self._clock = DecisionClock(wall_clock, elapsed_clock)
        self._verifier = Verifier(
            settings.issuers,
            clock=self._clock,
            clock_skew_seconds=settings.clock_skew_seconds,
            token_lifetime_seconds_max=settings.token_lifetime_seconds_max,
            jwks_refresh_seconds=settings.jwks_refresh_seconds,
            jwks_cooldown_seconds=settings.jwks_cooldown_seconds,
        )
        self._replica = Replica(
            store,
            staleness_seconds_max=settings.staleness_seconds_max,
            poll_seconds=settings.poll_seconds,
        )
        self._listener = Listener(self._engine, self._replica.poke)
        shares = Shares(settings.audit_share_bytes_per_second, settings.audit_share_burst_bytes)
        self._recorder = Recorder(
            settings.audit_directory, origin, clock=self._clock, shares=shares
        )
        self._shipper = Shipper(
            settings.audit_directory, SqlDestination(self._engine), self._recorder
        )
        self._pusher: Pusher | None = None
        # Pusher and reconciler keep the wall clock: they share their schedule with other processes.
        if settings.clerk.push_claims:
            self._pusher = Pusher(settings.clerk, store, clock=wall_clock)
        administrator = Administrator(
            store,
            on_write=self._on_write,
            clock=self._clock,
            default_role=settings.clerk.default_role,
        )
        self._reconciler = Reconciler(
            settings.clerk,
            store,
            administrator,
            clock=wall_clock,
            token_lifetime_seconds_max=settings.token_lifetime_seconds_max,
            on_synced=self._on_synced,
        )
        watchers = Watchers(self._replica)
        self._metrics = Metrics(
            {
                "pdp_ready": ("1 while the process answers.", lambda: float(not self.obstacles())),
                "pdp_revision": ("Revision that is served.", lambda: self._replica.revision),
                "pdp_staleness_seconds": (
                    "Time since every change was confirmed as seen.",
                    self._replica.staleness_seconds,
                ),
                "pdp_clock_steps": (
                    "Steps of the wall clock that were seen, either way.",
                    lambda: self._clock.steps,
                ),
                "pdp_clock_ahead_seconds": (
                    "By how much decision time is ahead of the wall clock.",
                    self._clock.ahead_seconds,
                ),
                "pdp_watchers": ("Streams of changes that are open.", lambda: watchers.count),
                "pdp_key_fetch_failures": (
                    "Key set fetches that failed.",
                    lambda: sum(one.failed for one in self._verifier.key_fetches.values()),
                ),
                "pdp_audit_waiting_records": (
                    "Decisions that wait to be written.",
                    lambda: self._recorder.counts().waiting,
                ),
                "pdp_audit_dropped_records": (
                    "Allows that were not recorded; the log says so itself.",
                    lambda: self._recorder.counts().dropped,
                ),
                "pdp_audit_write_failures": (
                    "Writes of the log that failed, and segments that others moved or changed.",
                    lambda: self._recorder.counts().failures,
                ),
                "pdp_audit_folded_records": (
                    "Denials that were counted at the record of an equal one.",
                    lambda: self._recorder.counts().folded,
                ),
                "pdp_audit_share_refusals": (
                    "Denials not given, because their caller's share of the log was used up.",
                    lambda: self._recorder.counts().refused,
                ),
                "pdp_audit_shipping_failures": (
                    "Attempts to copy the log into SQL that failed.",
                    lambda: self._shipper.counts().failures,
                ),
                "pdp_clerk_drift": (
                    "Differences that the last complete sync with Clerk found.",
                    self._reconciler.drift,
                ),
                "pdp_clerk_reconciled_timestamp_seconds": (
                    "When the last complete sync with Clerk ended; 0: never.",
                    self._reconciler.reconciled_at,
                ),
                "pdp_clerk_sync_failures": (
                    "Syncs with Clerk that failed.",
                    self._reconciler.failures,
                ),
            },
            metrics_directory,
        )
        authorizer = Authorizer(
            self._verifier,
            self._replica,
            self._recorder,
            clock=self._clock,
            record_allows=settings.audit_allows,
            provision=self._provisioner(administrator),
        )
        queries = AccessQueries(
            authorizer,
            self._verifier,
            self._replica,
            self._recorder,
            clock=self._clock,
            note_too_expensive=self._metrics.count_too_expensive,
        )
        pages = Pages(functools.cache(lambda: _page_secret(store)))
        self._blocking = ThreadPoolExecutor(settings.threads, thread_name_prefix="blocking")
        self._health = Health()
        methods = (
            *decision_methods(authorizer, self._metrics.count_decisions),
            *access_query_methods(queries, pages, self._blocking),
            *external_authorization_methods(
                authorizer, self._metrics.count_decisions, settings.session_cookie
            ),
            *administration_methods(administrator, pages, self._blocking),
            *audit_methods(
                DecisionLog(self._engine),
                Reports(self._engine, clock=self._clock),
                pages,
                Rate("reports_share", settings.reports_share),
                self._blocking,
            ),
            *watchers.methods(),
            *self._health.methods(),
        )
        self.application = Application(
            Callers(settings.callers),
            (*methods, *reflection_methods(method.service for method in methods)),
            self._metrics.observe_rpc,
            rpcs_max=settings.threads * RPCS_PER_THREAD_MAX,
            streams_share=settings.streams_share,
        )
        """What the gRPC port answers with; an ASGI application."""
        self._stopping = threading.Event()
        self._started = contextlib.ExitStack()
        """What `stop` has to stop, latest first."""
        self._loop = EventLoop()
        shared = settings.processes > 1
        self._listener_grpc = HttpListener(
            self.application,
            listen=settings.listen,
            shared=shared,
            tls=settings.tls,
            policies=[(method.path, method.request_bytes_max) for method in methods],
            drain_seconds=settings.shutdown_seconds,
        )
        self._listener_http = HttpListener(
            http_application(self._metrics, self.obstacles, self._webhook(administrator)),
            listen=settings.http_listen,
            shared=shared,
            policies=[(WEBHOOK_PATH, BODY_BYTES_MAX)],
            drain_seconds=1,
        )
        self._readiness = threading.Thread(
            target=self._follow_readiness, name="readiness", daemon=True
        )

    def obstacles(self) -> list[str]:
        """Why the process does not answer now; empty: it does."""
        checks: tuple[tuple[Callable[[], bool], str], ...] = (
            (lambda: not self._stopping.is_set(), "shutting down"),
            (self._replica.ready, self._not_current()),
            (self._verifier.ready, "no key set of an issuer is at hand"),
            (self._recorder.ready, "decisions cannot be put on record"),
            (self._clock.holds, CLOCK_OBSTACLE),
            (lambda: self._carried or self._listener_grpc.is_open(), "the port is not open"),
        )
        return [sentence for holds, sentence in checks if not holds()]

    def _not_current(self) -> str:
        problem = self._replica.problem
        why = "" if problem is None else f": {problem}"
        return f"policy and facts are not confirmed as current{why}"

    def start(self) -> int:
        """Starts everything, the gRPC port last. Returns the number of that port.

        Raises OSError, RuntimeError or AuditUnavailable where something cannot start; `stop` then
        stops what has.
        """
        started = self._started
        tls = self._settings.tls
        if tls is not None:
            files = {"server": tls.certificate_file, "client_ca": tls.client_ca_file}
            self._metrics.set_certificates(examine_certificates(files, self._clock()))
        self._loop.start()
        started.callback(self._loop.stop)
        self._loop.run(self._listener_http.open())
        started.callback(lambda: self._loop.run(self._listener_http.close()))
        self._verifier.start()
        started.callback(self._verifier.stop)
        self._recorder.start()
        self._shipper.start()
        started.callback(self._stop_audit)
        self._replica.start()
        started.callback(self._replica.stop)
        self._listener.start()
        started.callback(self._listener.stop)
        if self._pusher is not None:
            self._pusher.start()
            started.callback(self._pusher.stop)
        self._reconciler.start()
        started.callback(self._reconciler.stop)
        started.callback(self._blocking.shutdown)
        if not self._carried:
            self._loop.run(self._listener_grpc.open())
            started.callback(lambda: self._loop.run(self._close_grpc()))
        self._readiness.start()
        if not all(one.authorized_parties for one in self._settings.issuers):
            log.warning("authorized_parties_not_configured", advice="set authorized_parties")
        both = development_beside_production(self._settings.issuers)
        if both is not None:
            log.warning("development_issuer_accepted", development=both[0], production=both[1])
        log.info(
            "serving",
            database=database_name(self._settings.database_url.get_secret_value()),
            listen=self._settings.listen,
            port=self._listener_grpc.port,
            http_port=self._listener_http.port,
            tls=self._settings.tls is not None,
            callers=len(self._settings.callers),
        )
        return self._listener_grpc.port

    def listens(self) -> bool:
        """Whether both ports are open. A listener that ended does not come back by itself."""
        return (self._carried or self._listener_grpc.is_open()) and self._listener_http.is_open()

    def stop(self) -> None:
        """Stops taking requests, finishes those in flight, and leaves no record behind."""
        log.info("stopping")
        self._stopping.set()
        self._started.close()
        self._engine.dispose()
        log.info("stopped")

    def _on_write(self, revision: int) -> None:
        self._replica.poke()
        if self._pusher is not None:
            self._pusher.tell(revision)

    def _on_synced(self) -> None:
        if self._pusher is not None:
            self._pusher.sweep()

    def _stop_audit(self) -> None:
        # In this order: the shipper's last pass takes what the recorder wrote last.
        self._recorder.stop()
        self._shipper.stop()

    async def _close_grpc(self) -> None:
        """Answers what was accepted, then tells clients to connect elsewhere."""
        self._health.set_serving(serving=False)
        await self.application.drain(self._settings.shutdown_seconds)
        await self._listener_grpc.close()

    def _provisioner(self, administrator: Administrator) -> Provisioner | None:
        clerk = self._settings.clerk
        if not clerk.provisioning:
            return None
        return Provisioner(administrator.admit, instance_id=clerk.instance_id)

    def _webhook(self, administrator: Administrator) -> PostHandler | None:
        clerk = self._settings.clerk
        if not clerk.webhook_secrets or clerk.instance_id is None:
            return None
        return Webhooks(
            administrator,
            instance_id=clerk.instance_id,
            secrets=[secret.get_secret_value() for secret in clerk.webhook_secrets],
            clock=self._clock,
            await_revision=self._replica.await_revision,
            count=self._metrics.count_webhook,
        )

    def _follow_readiness(self) -> None:
        serving = False
        while not self._stopping.wait(READINESS_SECONDS):
            obstacles = self.obstacles()
            if serving == bool(obstacles):
                serving = not obstacles
                self._health.set_serving(serving=serving)
                log.info("readiness", ready=serving, obstacles=obstacles)
                if serving:
                    leave_in_peace()
            self._metrics.refresh()


def _page_secret(store: Store) -> bytes:
    with store.read() as reader:
        return reader.page_secret()

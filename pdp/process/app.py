"""The composition root: settings -> parts -> listeners. `lifecycle.py` starts and stops them.

A process starts even if nothing is reachable: without its database or a key set it is alive and not
ready, and becomes ready by itself.
"""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from pdp.access_queries import AccessQueries
from pdp.administrator import Administrator
from pdp.audit import (
    AdministrationLog,
    DecisionLog,
    Findings,
    Period,
    Reports,
    SqlDestination,
    Statistics,
)
from pdp.audit.transparency import ChangesNotary
from pdp.authorizer import Authorizer
from pdp.clock import DecisionClock, elapsed_clock, wall_clock
from pdp.console import ConsoleParts, console_application
from pdp.database.engine import database_name, open_engine
from pdp.explainer import Explainer
from pdp.facts import Barriers, Listener, Replica, ShadowStore, Store, migrate
from pdp.facts.store.console_secrets import ConsoleSecrets
from pdp.gauges import Gauges
from pdp.http import WEBHOOK_PATH, http_application
from pdp.http.bounded_post import BODY_BYTES_MAX
from pdp.identity import Verifier
from pdp.impact import Redaction, Shadow
from pdp.limits import RPCS_PER_THREAD_MAX
from pdp.process.certificates import examine_certificates
from pdp.process.clerk import ClerkParts
from pdp.process.decision_log import decision_log_parts
from pdp.process.lifecycle import Check, Lifecycle, Part
from pdp.process.listener import HttpListener
from pdp.process.metrics import Metrics
from pdp.process.traces import application_type
from pdp.recording import Recording
from pdp.reviews import Campaigns, GrantReviews, UserAccessQueries
from pdp.reviews.report import read_key
from pdp.settings import Settings, development_beside_production
from pdp.wire import (
    Callers,
    Health,
    Pages,
    Rate,
    Watchers,
    access_query_methods,
    administration_methods,
    audit_methods,
    caller_methods,
    campaign_methods,
    decision_methods,
    explain_methods,
    external_authorization_methods,
    reflection_methods,
    review_methods,
)

log = structlog.get_logger("pdp.process.app")

READINESS_SECONDS = 0.2
CONSOLE_CONNECTIONS_MAX = 128
"""Browsers of a team. They must leave most of `listener.FILES_RESERVED` to the database."""
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
        """Creates the service.

        Args:
            settings: The settings.
            origin: The name of this process in the decision log.
            metrics_directory: Shared by all processes of `pdp serve`; None: there is one.
            carried: Whether another server owns the gRPC port and calls `application`.
        """
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
        period = Period(
            self._engine, origin=origin, allows=settings.audit_allows, clock=self._clock
        )
        self._log = decision_log_parts(
            settings, origin, SqlDestination(self._engine), clock=self._clock, period=period
        )
        self._administration_log = AdministrationLog(self._engine)
        notary = self._log.notary
        self._changes_notary = notary and ChangesNotary(
            self._engine, notary, settings.audit_directory / origin
        )
        self._clerk = ClerkParts(settings, store, self._replica, clock=self._clock)
        administrator = Administrator(store, on_write=self._clerk.on_write)
        watchers = Watchers(self._replica)
        health_gauges: Gauges = {
            **self._replica.gauges(),
            **self._clock.gauges(),
            **self._verifier.gauges(),
            **self._log.gauges(),
            **(self._changes_notary.gauges() if self._changes_notary is not None else {}),
            **self._administration_log.gauges(),
            "pdp_audit_shipping_failures": (
                "Attempts to copy the log into SQL that failed.",
                lambda: self._log.shipper.counts().failures,
            ),
        }
        self._metrics = Metrics(
            {"pdp_ready": ("1 while the process answers.", lambda: float(not self.obstacles()))},
            health_gauges,
            watchers.gauges(),
            self._clerk.gauges(),
            directory=metrics_directory,
        )
        self._shadow = Shadow(ShadowStore(self._engine), self._metrics.count_shadow)
        authorizer = Authorizer(
            self._verifier,
            self._replica,
            Recording(
                self._log.recorder,
                allows=settings.audit_allows,
                redaction=(
                    Redaction(settings.audit_redacted_keys)
                    if settings.audit_inputs == "full"
                    else None
                ),
            ),
            clock=self._clock,
            provision=self._clerk.provisioner(),
            offer=self._shadow.offer,
        )
        queries = AccessQueries(
            authorizer,
            self._verifier,
            self._replica,
            self._log.recorder,
            clock=self._clock,
            note_too_expensive=self._metrics.count_too_expensive,
        )
        pages = Pages(functools.cache(lambda: _page_secret(store)))
        self._blocking = ThreadPoolExecutor(settings.threads, thread_name_prefix="blocking")
        health = Health()
        decision_log = DecisionLog(self._engine)
        findings = Findings(self._engine)
        grant_reviews = GrantReviews(store, findings, clock=self._clock)
        user_access = UserAccessQueries(self._replica, self._log.recorder, clock=self._clock)
        campaigns = Campaigns(store, on_write=self._clerk.on_write, clock=self._clock)
        # One thread: an explanation computes for long, and each more would slow down every Check.
        self._explaining = ThreadPoolExecutor(1, thread_name_prefix="explaining")
        explainer = Explainer(
            self._verifier, self._replica, decision_log, self._explaining, clock=self._clock
        )
        methods = (
            *decision_methods(authorizer, self._metrics.count_decisions),
            *access_query_methods(queries, pages, self._blocking),
            *external_authorization_methods(
                authorizer, self._metrics.count_decisions, settings.session_cookie
            ),
            *administration_methods(administrator, Barriers(self._engine), pages, self._blocking),
            *audit_methods(
                decision_log,
                self._administration_log,
                Reports(self._engine, clock=self._clock),
                pages,
                reported=Rate("reports_share", settings.reports_share),
                pool=self._blocking,
            ),
            *review_methods(
                grant_reviews,
                findings,
                user_access,
                pages,
                self._blocking,
                clock=self._clock,
            ),
            *campaign_methods(campaigns, pages, self._blocking),
            *explain_methods(explainer),
            *caller_methods(),
            *watchers.methods(),
            *health.methods(),
        )
        self.application = application_type(settings.traces_url, "pdp")(
            Callers(settings.callers),
            (*methods, *reflection_methods(method.service for method in methods)),
            self._metrics.observe_rpc,
            rpcs_max=settings.threads * RPCS_PER_THREAD_MAX,
            streams_share=settings.streams_share,
        )
        """The ASGI application of the gRPC port."""
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
            http_application(
                self._metrics, self.obstacles, self._clerk.webhooks(self._metrics.count_webhook)
            ),
            listen=settings.http_listen,
            shared=shared,
            policies=[(WEBHOOK_PATH, BODY_BYTES_MAX)],
            drain_seconds=1,
        )
        console = None
        if settings.console.listen is not None:
            report_key_file = settings.console.report_key_file
            report_key = None if report_key_file is None else read_key(report_key_file)
            console = HttpListener(
                console_application(
                    ConsoleParts(
                        authorizer,
                        explainer,
                        queries,
                        administrator,
                        store,
                        self._replica,
                        decision_log,
                        self._administration_log,
                        Statistics(self._engine),
                        grant_reviews,
                        findings,
                        user_access,
                        campaigns,
                        ConsoleSecrets(self._engine, clock=self._clock),
                        self._blocking,
                        self._clock,
                        health_gauges,
                        self.obstacles,
                        settings.console.address,
                        settings.session_cookie,
                        settings.console.sign_in_url,
                        settings.audit_allows,
                        report_key,
                        None if settings.audit_tree is None else settings.audit_directory,
                    )
                ),
                listen=settings.console.listen,
                shared=shared,
                tls=settings.console.tls,
                connections_max=CONSOLE_CONNECTIONS_MAX,
                drain_seconds=1,
            )
        self._life = Lifecycle(
            self.application,
            health,
            self._metrics,
            grpc=None if carried else self._listener_grpc,
            http=self._listener_http,
            console=console,
            checks=self._checks,
            drain_seconds=settings.shutdown_seconds,
            readiness_seconds=READINESS_SECONDS,
            log=log,
        )

    def obstacles(self) -> list[str]:
        """Why the process is not ready; empty: it is."""
        return self._life.obstacles()

    def _checks(self) -> Sequence[Check]:
        return (
            (self._replica.ready, self._not_current()),
            (self._verifier.ready, "no key set of an issuer is at hand"),
            (self._log.recorder.ready, "decisions cannot be logged"),
            (self._clock.holds, CLOCK_OBSTACLE),
        )

    def _not_current(self) -> str:
        problem = self._replica.problem
        why = "" if problem is None else f": {problem}"
        return f"policy and facts are not confirmed as current{why}"

    def start(self) -> int:
        """Starts all parts, the gRPC port last. Returns the number of that port.

        Raises OSError, RuntimeError or AuditUnavailable if a part cannot start; `stop` then stops
        the parts that have started.
        """
        tls = self._settings.tls
        if tls is not None:
            files = {"server": tls.certificate_file, "client_ca": tls.client_ca_file}
            self._metrics.set_certificates(examine_certificates(files, self._clock()))
        notary = self._changes_notary
        self._life.start(
            Part(self._verifier.start, self._verifier.stop),
            self._log.part(),
            Part(self._replica.start, self._replica.stop),
            Part(self._listener.start, self._listener.stop),
            Part(self._administration_log.start, self._administration_log.stop),
            *([Part(notary.start, notary.stop)] if notary is not None else []),
            *self._clerk.parts(),
            Part(self._shadow.start, self._shadow.stop),
            Part(lambda: None, self._blocking.shutdown),
            Part(lambda: None, self._explaining.shutdown),
        )
        if not all(issuer.authorized_parties for issuer in self._settings.issuers):
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
        """Whether both ports are open. A listener that ended does not restart by itself."""
        return self._life.listens()

    def stop(self) -> None:
        """Stops accepting requests, finishes those in flight, and ships the decision log."""
        self._life.stop()
        self._engine.dispose()


def _page_secret(store: Store) -> bytes:
    with store.read() as reader:
        return reader.page_secret()

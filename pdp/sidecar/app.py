"""The sidecar's composition root: settings -> parts, and the order in which they start and stop.

It starts even if nothing is reachable: without a server it is alive and not ready, and becomes
ready by itself.
"""

from collections.abc import Sequence
from pathlib import Path

import structlog
from pdp_client import TlsOptions
from pdp_client.cache import DecisionCache
from pdp_client.following import Follower

from pdp.clock import DecisionClock, elapsed_clock, wall_clock
from pdp.http import http_application
from pdp.limits import RPCS_PER_THREAD_MAX
from pdp.process.certificates import examine_certificates
from pdp.process.decision_log import decision_log_parts
from pdp.process.lifecycle import Check, Lifecycle, Part
from pdp.process.listener import HttpListener
from pdp.process.metrics import Metrics
from pdp.process.traces import application_type, outgoing_headers
from pdp.settings import SidecarSettings
from pdp.sidecar import reporting
from pdp.sidecar.answering import Answering
from pdp.sidecar.exchanges import CachedAnswer
from pdp.sidecar.forwarding import forwarded_methods
from pdp.sidecar.reporting import UpstreamDestination
from pdp.sidecar.upstreams import Credentials, Upstreams
from pdp.wire import Callers, Health, reflection_methods

log = structlog.get_logger("pdp.sidecar")

READINESS_SECONDS = 0.1
ORIGIN = "sidecar"


class Sidecar:
    """A sidecar process."""

    def __init__(self, settings: SidecarSettings) -> None:
        """Creates the sidecar. Raises ValueError or OSError for settings that cannot be used."""
        self._settings = settings
        self._upstreams = Upstreams(
            settings.upstreams,
            _credentials(settings),
            deadline_seconds=settings.deadline_seconds,
            trace_headers=outgoing_headers(settings.traces_url),
        )
        self._cache: DecisionCache[CachedAnswer] = DecisionCache(
            entries_max=settings.entries_max, age_seconds_max=settings.age_seconds_max
        )
        self._follower = Follower(self._upstreams.watch, self._cache, on_lost=self._upstreams.lost)
        self._clock = DecisionClock(wall_clock, elapsed_clock)
        self._log = decision_log_parts(
            settings, ORIGIN, UpstreamDestination(self._upstreams.report), clock=self._clock
        )
        self._answering = Answering(
            settings, self._cache, self._upstreams, self._log.recorder, clock=self._clock
        )
        self._metrics = Metrics(
            {"pdp_ready": ("1 while the process answers.", lambda: float(not self.obstacles()))},
            self._clock.gauges(),
            self._answering.gauges(),
            reporting.gauges(self._log.shipper),
            self._log.gauges(),
        )
        health = Health()
        methods = (
            *self._answering.methods(),
            *forwarded_methods(
                self._upstreams,
                self._answering.asking,
                callers_authenticate=bool(settings.callers),
            ),
            *health.methods(),
        )
        application = application_type(settings.traces_url, "pdp-sidecar")(
            Callers(settings.callers),
            (*methods, *reflection_methods(method.service for method in methods)),
            self._metrics.observe_rpc,
            rpcs_max=settings.threads * RPCS_PER_THREAD_MAX,
            streams_share=settings.streams_share,
        )
        self._listener_grpc = HttpListener(
            application,
            listen=settings.listen,
            tls=settings.tls,
            policies=[(method.path, method.request_bytes_max) for method in methods],
            drain_seconds=settings.shutdown_seconds,
        )
        self._listener_http = HttpListener(
            http_application(self._metrics, self.obstacles),
            listen=settings.http_listen,
            drain_seconds=1,
        )
        self._life = Lifecycle(
            application,
            health,
            self._metrics,
            grpc=self._listener_grpc,
            http=self._listener_http,
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
            (lambda: self._cache.live, "the change stream is not live"),
            (self._log.recorder.ready, "decisions cannot be logged"),
        )

    def start(self) -> None:
        """Starts everything, the gRPC port last.

        Raises OSError, RuntimeError or AuditUnavailable if a part cannot start; `stop` then stops
        the parts that have started.
        """
        self._metrics.set_certificates(
            examine_certificates(_certificate_files(self._settings), self._clock())
        )
        self._life.start(
            Part(lambda: None, self._upstreams.close),
            self._log.part(),
            Part(self._follower.start, self._follower.stop),
        )
        log.info(
            "serving",
            listen=self._settings.listen,
            port=self._listener_grpc.port,
            http_port=self._listener_http.port,
            upstreams=self._settings.upstreams,
            callers=len(self._settings.callers),
        )

    def listens(self) -> bool:
        """Whether both ports are open. A listener that ended does not restart by itself."""
        return self._life.listens()

    def stop(self) -> None:
        """Stops accepting requests, finishes those in flight, and ships the log if possible."""
        self._life.stop()


def _credentials(settings: SidecarSettings) -> Credentials:
    tls, configured = None, settings.upstream_tls
    if configured is not None:
        tls = TlsOptions(
            ca=configured.ca_file, cert=configured.certificate_file, key=configured.private_key_file
        )
    return Credentials(tls, settings.upstream_key(), settings.insecure)


def _certificate_files(settings: SidecarSettings) -> dict[str, Path | None]:
    files: dict[str, Path | None] = {}
    if settings.tls is not None:
        files["server"] = settings.tls.certificate_file
        files["client_ca"] = settings.tls.client_ca_file
    if settings.upstream_tls is not None:
        files["upstream_client"] = settings.upstream_tls.certificate_file
        files["upstream_ca"] = settings.upstream_tls.ca_file
    return files

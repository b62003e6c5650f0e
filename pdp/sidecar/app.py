"""The sidecar's composition root: settings -> its parts, and the order in which they start and end.

It starts whatever is out of reach: without a server it is alive and not ready, and becomes ready by
itself.
"""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import structlog
from pdp_client import TlsOptions
from pdp_client.cache import DecisionCache
from pdp_client.following import Follower

from pdp.audit import Recorder, Shares, Shipper
from pdp.certificates import examine_certificates
from pdp.clock import DecisionClock, elapsed_clock, wall_clock
from pdp.garbage import leave_in_peace
from pdp.http import Metrics, http_application
from pdp.limits import RPCS_PER_THREAD_MAX
from pdp.listener import EventLoop, HttpListener
from pdp.settings import SidecarSettings
from pdp.sidecar.answering import Answering
from pdp.sidecar.exchanges import Kept
from pdp.sidecar.passing import passed_on_methods
from pdp.sidecar.reporting import UpstreamDestination
from pdp.sidecar.upstreams import Credentials, Upstreams
from pdp.wire import Application, Callers, Health, reflection_methods

log = structlog.get_logger("pdp.sidecar")

READINESS_SECONDS = 0.1
ORIGIN = "sidecar"


class Sidecar:
    """One process beside a service."""

    def __init__(self, settings: SidecarSettings) -> None:
        """Raises ValueError or OSError for settings that do not hold."""
        self._settings = settings
        self._upstreams = Upstreams(
            settings.upstreams, _credentials(settings), deadline_seconds=settings.deadline_seconds
        )
        self._cache: DecisionCache[Kept] = DecisionCache(
            entries_max=settings.entries_max, age_seconds_max=settings.age_seconds_max
        )
        self._follower = Follower(self._upstreams.watch, self._cache, on_lost=self._upstreams.lost)
        self._clock = DecisionClock(wall_clock, elapsed_clock)
        shares = Shares(settings.audit_share_bytes_per_second, settings.audit_share_burst_bytes)
        self._recorder = Recorder(
            settings.audit_directory, ORIGIN, clock=self._clock, shares=shares
        )
        self._shipper = Shipper(
            settings.audit_directory, UpstreamDestination(self._upstreams.report), self._recorder
        )
        self._answering = answering = Answering(
            settings, self._cache, self._upstreams, self._recorder, clock=self._clock
        )
        self._metrics = Metrics(
            {
                "pdp_ready": ("1 while the process answers.", lambda: float(not self.obstacles())),
                "pdp_clock_steps": (
                    "Steps of the wall clock that were seen, either way.",
                    lambda: self._clock.steps,
                ),
                "pdp_clock_ahead_seconds": (
                    "By how much decision time is ahead of the wall clock.",
                    self._clock.ahead_seconds,
                ),
                "pdp_sidecar_live": (
                    "1 while there is a lease: kept answers are given.",
                    lambda: float(self._cache.live),
                ),
                "pdp_sidecar_entries": ("Answers that are kept.", lambda: self._cache.size),
                "pdp_sidecar_hits": (
                    "Requests that were answered from what is kept.",
                    lambda: answering.counts.hits,
                ),
                "pdp_sidecar_misses": (
                    "Requests that upstream answered.",
                    lambda: answering.counts.misses,
                ),
                "pdp_sidecar_stayed_open": (
                    "Requests that were answered without a lease, as the settings let it.",
                    lambda: answering.counts.stayed_open,
                ),
                "pdp_sidecar_unreported_bytes": (
                    "Decisions on disk that upstream has not taken yet.",
                    self._shipper.waiting_bytes,
                ),
                "pdp_sidecar_report_failures": (
                    "Attempts to bring the log upstream that failed.",
                    lambda: self._shipper.counts().failures,
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
            }
        )
        self._stopping = threading.Event()
        self._started = contextlib.ExitStack()
        """What `stop` has to stop, latest first."""
        self._loop = EventLoop()
        self._health = Health()
        methods = (
            *self._answering.methods(),
            *passed_on_methods(self._upstreams, self._answering.asking),
            *self._health.methods(),
        )
        self._application = Application(
            Callers(settings.callers),
            (*methods, *reflection_methods(method.service for method in methods)),
            self._metrics.observe_rpc,
            rpcs_max=settings.threads * RPCS_PER_THREAD_MAX,
            streams_share=settings.streams_share,
        )
        self._listener_grpc = HttpListener(
            self._application,
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
        self._readiness = threading.Thread(
            target=self._follow_readiness, name="readiness", daemon=True
        )

    def obstacles(self) -> list[str]:
        """Why the process does not answer as it should; empty: it does."""
        checks: tuple[tuple[Callable[[], bool], str], ...] = (
            (lambda: not self._stopping.is_set(), "shutting down"),
            (lambda: self._cache.live, "the change stream is not live"),
            (self._recorder.ready, "decisions cannot be put on record"),
            (self._listener_grpc.is_open, "the port is not open"),
        )
        return [sentence for holds, sentence in checks if not holds()]

    def start(self) -> None:
        """Starts everything, the gRPC port last.

        Raises OSError, RuntimeError or AuditUnavailable where something cannot start; `stop` then
        stops what has.
        """
        started = self._started
        self._metrics.set_certificates(
            examine_certificates(_certificate_files(self._settings), self._clock())
        )
        started.callback(self._upstreams.close)
        self._loop.start()
        started.callback(self._loop.stop)
        self._loop.run(self._listener_http.open())
        started.callback(lambda: self._loop.run(self._listener_http.close()))
        self._recorder.start()
        self._shipper.start()
        started.callback(self._stop_audit)
        self._follower.start()
        started.callback(self._follower.stop)
        self._loop.run(self._listener_grpc.open())
        started.callback(lambda: self._loop.run(self._close_grpc()))
        self._readiness.start()
        log.info(
            "serving",
            listen=self._settings.listen,
            port=self._listener_grpc.port,
            http_port=self._listener_http.port,
            upstreams=self._settings.upstreams,
            callers=len(self._settings.callers),
        )

    def listens(self) -> bool:
        """Whether both ports are open. A listener that ended does not come back by itself."""
        return self._listener_grpc.is_open() and self._listener_http.is_open()

    def stop(self) -> None:
        """Stops taking requests, finishes those in flight, and reports what upstream takes."""
        log.info("stopping")
        self._stopping.set()
        self._started.close()
        log.info("stopped")

    async def _close_grpc(self) -> None:
        """Answers what was accepted, then tells clients to connect elsewhere."""
        self._health.set_serving(serving=False)
        await self._application.drain(self._settings.shutdown_seconds)
        await self._listener_grpc.close()

    def _stop_audit(self) -> None:
        # In this order: the shipper's last pass takes what the recorder wrote last.
        self._recorder.stop()
        self._shipper.stop()

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


def _credentials(settings: SidecarSettings) -> Credentials:
    tls, one = None, settings.upstream_tls
    if one is not None:
        tls = TlsOptions(ca=one.ca_file, cert=one.certificate_file, key=one.private_key_file)
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

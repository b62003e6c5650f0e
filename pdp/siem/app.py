"""The forwarder's composition root: settings -> parts, and the order in which they start and stop.

It starts even if nothing is reachable; it is ready while records are delivered.
"""

import structlog
from pdp_client import TlsOptions
from pdp_client.transport import open_channel

from pdp.clock import wall_clock
from pdp.http import http_application
from pdp.process.listener import EventLoop, HttpListener
from pdp.process.metrics import Metrics
from pdp.settings import ForwardSettings, HttpDestinationSettings
from pdp.siem.cursor import CursorFile
from pdp.siem.destinations import Destination
from pdp.siem.destinations.file import FileDestination
from pdp.siem.destinations.http import Encoding, HttpDestination, lines_encoding
from pdp.siem.destinations.syslog import SyslogDestination
from pdp.siem.formats import line_of
from pdp.siem.forwarder import Forwarder
from pdp.siem.source import ServerSource

log = structlog.get_logger("pdp.siem")


class ForwarderProcess:
    """A process that forwards decisions and changes."""

    def __init__(self, settings: ForwardSettings) -> None:
        """Creates the process. Raises ValueError or OSError for settings that cannot be used."""
        self._settings = settings
        key = settings.server_key()
        self._channel = open_channel(settings.server, _tls(settings), key, insecure=False)
        self._forwarder = Forwarder(
            ServerSource(self._channel, key, page_records=settings.batch_records),
            _destination(settings),
            CursorFile(settings.cursor_file),
            from_end=settings.from_end,
            settle_seconds=settings.settle_seconds,
            refused_file=settings.cursor_file.with_name(f"{settings.cursor_file.name}.refused"),
            clock=wall_clock,
        )
        metrics = Metrics(
            {"pdp_ready": ("1 while records are delivered.", lambda: float(not self.obstacles()))},
            self._forwarder.gauges(),
        )
        self._loop = EventLoop()
        self._listener = HttpListener(
            http_application(metrics, self.obstacles), listen=settings.http_listen, drain_seconds=1
        )

    def obstacles(self) -> list[str]:
        """Why the process is not ready; empty: it is."""
        problem = self._forwarder.problem
        return [] if problem is None else [problem]

    def start(self) -> None:
        """Starts all parts. Raises OSError if one cannot start; `stop` then stops the others."""
        self._loop.start()
        self._loop.run(self._listener.open())
        self._forwarder.start()
        log.info("forwarding", server=self._settings.server, format=self._settings.format)

    def listens(self) -> bool:
        """Whether the HTTP port is open."""
        return self._listener.is_open()

    def stop(self) -> None:
        """Ends after the batch that is being delivered."""
        self._forwarder.stop()
        self._loop.run(self._listener.close())
        self._loop.stop()
        self._channel.close()


def _tls(settings: ForwardSettings) -> TlsOptions | None:
    tls = settings.server_tls
    if tls is None:
        return None
    return TlsOptions(ca=tls.ca_file, cert=tls.certificate_file, key=tls.private_key_file)


def _destination(settings: ForwardSettings) -> Destination:
    line = line_of(settings.format)
    if (file := settings.file) is not None:
        return FileDestination(
            file.path, line, rotate_bytes=file.rotate_bytes, files_max=file.files_max
        )
    if (http := settings.http) is not None:
        return _http(http, lines_encoding(line, settings.format))
    if (otlp := settings.otlp) is not None:
        try:
            from pdp.siem.destinations.otlp import otlp_encoding  # noqa: PLC0415  # an extra
        except ImportError:
            raise ValueError("otlp: needs more packages: pip install 'pdp[otlp]'") from None
        return _http(otlp, otlp_encoding(line))
    if (syslog := settings.syslog) is not None:
        return SyslogDestination(
            syslog.host,
            syslog.port,
            line,
            ca_file=syslog.ca_file,
            certificate_file=syslog.certificate_file,
            private_key_file=syslog.private_key_file,
            seconds_max=syslog.seconds_max,
        )
    raise ValueError("no destination is configured")


def _http(settings: HttpDestinationSettings, encoding: Encoding) -> Destination:
    return HttpDestination(
        settings.url,
        encoding,
        authorization=settings.header(),
        ca_file=settings.ca_file,
        seconds_max=settings.seconds_max,
    )

"""A real rsyslog (packages `rsyslog` and `rsyslog-gnutls` of Debian) that receives over TLS."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.ports import free_port, listens
from tests.kit.siem.receivers import TlsFiles
from tests.kit.waiting import eventually

PROGRAM = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin:/sbin")
DRIVER = Path("/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so")

needs_rsyslog = pytest.mark.skipif(
    PROGRAM is None or not DRIVER.exists(), reason="rsyslog and rsyslog-gnutls are not installed"
)

_CONFIGURATION = """
global(
  workDirectory="{directory}"
  maxMessageSize="64k"
  defaultNetstreamDriver="gtls"
  defaultNetstreamDriverCAFile="{files.authority}"
  defaultNetstreamDriverCertFile="{files.certificate}"
  defaultNetstreamDriverKeyFile="{files.key}"
  parser.escapeControlCharactersOnReceive="on"
)
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" port="{port}" address="127.0.0.1")
template(
  name="parsed" type="string"
  string="%pri%\\t%timestamp:::date-rfc3339%\\t%app-name%\\t%msgid%\\t%msg%\\n"
)
action(type="omfile" file="{directory}/received" template="parsed" flushOnTXEnd="on")
"""


@dataclass
class Rsyslog:
    """A process of rsyslog."""

    directory: Path
    files: TlsFiles

    def __post_init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        configuration = self.directory / "rsyslog.conf"
        configuration.write_text(
            _CONFIGURATION.format(directory=self.directory, files=self.files, port=self.port)
        )
        assert PROGRAM is not None
        pid_file = self.directory / "rsyslog.pid"
        pid_file.unlink(missing_ok=True)
        log = (self.directory / "rsyslog.log").open("ab")
        self.process = process = subprocess.Popen(
            [PROGRAM, "-n", "-f", str(configuration), "-i", str(pid_file)], stdout=log, stderr=log
        )
        log.close()
        eventually(lambda: listens(process.pid, self.port), seconds=30, what=self.log())

    def log(self) -> str:
        return (self.directory / "rsyslog.log").read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def received(self) -> list[list[str]]:
        """Priority, time, APP-NAME, MSGID and MSG of each message, as rsyslog parsed it."""
        with contextlib.suppress(FileNotFoundError):
            text = (self.directory / "received").read_text()
            return [line.split("\t") for line in text.splitlines()]
        return []


@contextlib.contextmanager
def running_rsyslog(directory: Path, files: TlsFiles) -> Iterator[Rsyslog]:
    """A receiver that is ready."""
    directory.mkdir(exist_ok=True)
    receiver = Rsyslog(directory, files)
    try:
        receiver.start()
        yield receiver
    finally:
        if receiver.process is not None and receiver.process.poll() is None:
            receiver.kill()

"""A real `pdp serve` process, and stubs to ask it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from pdpapi.v1.access_query_service_pb2_grpc import AccessQueryServiceStub
from pdpapi.v1.administration_service_pb2_grpc import PolicyAdministrationServiceStub
from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub
from pdpapi.v1.decision_service_pb2_grpc import PolicyDecisionServiceStub
from pdpapi.v1.review_service_pb2_grpc import ReviewServiceStub

from tests.kit import prefork
from tests.kit.ports import free_port, listens
from tests.kit.tokens import session_token, signing_key
from tests.kit.waiting import eventually

ISSUER = "https://clerk.example.test"
PDP = (sys.executable, "-m", "pdp")


@dataclass
class ServerProcess:
    """A server in a directory of its own. It trusts `signing_key()` as the issuer's PEM key.

    Its database is a file that is migrated already, unless the settings name another one."""

    directory: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    credentials: grpc.ChannelCredentials | None = None
    process: "subprocess.Popen[bytes] | prefork.Process | None" = None
    command: str = "serve"
    program: Sequence[str] | None = None
    """A program to start, for tests about what a new interpreter reads; else `pdp` is forked."""
    before: str = ""
    """Python that tampers with a forked server before it starts."""

    def __post_init__(self) -> None:
        self.port, self.http_port = free_port(), free_port()
        key_file = self.directory / "issuer.pem"
        key_file.write_text(signing_key().public_pem)
        values = {
            "ISSUERS": [{"issuer": ISSUER, "public_key_file": str(key_file)}],
            "LISTEN": f"127.0.0.1:{self.port}",
            "HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "DATABASE_URL": f"sqlite:///{self.directory / 'pdp.db'}",
            "AUDIT_DIRECTORY": str(self.directory / "audit"),
            "LOG_LEVEL": "debug",
            **self.settings,
        }
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PDP_")},
            "XDG_CONFIG_HOME": str(self.directory / "config"),
            "PDP_SERVER": f"127.0.0.1:{self.port}",
            **{
                f"PDP_{name}": value if isinstance(value, str) else json.dumps(value)
                for name, value in values.items()
            },
        }

    # --- the process ----------------------------------------------------------------------------

    def start(self, *, ready: bool = True) -> None:
        file = self.directory / "pdp.db"
        if self.program is None and "DATABASE_URL" not in self.settings and not file.exists():
            from tests.kit.sqlite import make_sqlite  # takes a second, and not all servers need it

            make_sqlite(file)
        with (self.directory / "server.log").open("ab") as log:
            files = {"cwd": self.directory, "env": self.environment, "stdout": log, "stderr": log}
            if self.program is None:
                self.process = prefork.Process([self.command], before=self.before, **files)
            else:
                self.process = subprocess.Popen([*self.program, self.command], **files)
        if ready:
            self.wait_until_ready()

    def wait_until_ready(self, seconds: float = 30) -> None:
        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"the server ended: {self.log()}"
            # Another server may have taken the port, and answer in place of this one.
            return self.http("/readyz")[0] == 200 and listens(self.process.pid, self.http_port)

        eventually(is_ready, seconds=seconds, what="the server is ready")

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        try:
            # Longer than the process itself allows: it then prints what it waits for.
            return self.process.wait(60)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"the server does not stop: {self.log()}") from error

    def kill(self) -> None:
        """SIGKILL, to all that it consists of."""
        assert self.process is not None
        self.signal(signal.SIGKILL)
        self.process.wait(30)

    def signal(self, number: signal.Signals) -> None:
        """Returns, after SIGSTOP, once all of it has stopped: the others of its threads run on
        until one of them has found time to stop them."""
        pids = self.pids()
        for pid in reversed(pids):
            os.kill(pid, number)
        if number is signal.SIGSTOP:
            eventually(lambda: all(has_stopped(pid) for pid in pids))

    def pids(self) -> list[int]:
        """The process and its workers."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def log(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")

    def pdp(
        self, *arguments: str, stdin: str = "", seconds: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command line against this server's settings."""
        if self.program is None:
            return prefork.run(
                arguments, cwd=self.directory, env=self.environment, stdin=stdin, timeout=seconds
            )
        return subprocess.run(
            [*self.program, *arguments],
            cwd=self.directory,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def http(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.http_port}{path}", timeout=5
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    # --- its services ---------------------------------------------------------------------------

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        target = f"127.0.0.1:{self.port}"
        # Not the connection, or the pause before the next, of an earlier channel.
        alone = (("grpc.use_local_subchannel_pool", 1),)
        channel = (
            grpc.secure_channel(target, self.credentials, alone)
            if self.credentials
            else grpc.insecure_channel(target, alone)
        )
        with channel:
            yield channel


@dataclass(frozen=True)
class Stubs:
    """The services on one channel."""

    decision: PolicyDecisionServiceStub
    queries: AccessQueryServiceStub
    administration: PolicyAdministrationServiceStub
    audit: AuditServiceStub
    reviews: ReviewServiceStub
    channel: grpc.Channel


def stubs_on(channel: grpc.Channel) -> Stubs:
    return Stubs(
        PolicyDecisionServiceStub(channel),
        AccessQueryServiceStub(channel),
        PolicyAdministrationServiceStub(channel),
        AuditServiceStub(channel),
        ReviewServiceStub(channel),
        channel,
    )


@contextmanager
def running_server(
    directory: Path, policy: str = "", *, before: str = "", **settings: Any
) -> Iterator[tuple[ServerProcess, Stubs]]:
    """A server that is ready, with `policy` applied, and stubs to ask it."""
    server = ServerProcess(directory, settings, before=before)
    try:
        server.start()
        with server.channel() as channel:
            stubs = stubs_on(channel)
            if policy:
                from pdpapi.v1.administration_service_pb2 import ApplyRequest

                stubs.administration.Apply(ApplyRequest(document=policy), timeout=10)
            yield server, stubs
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


def token_of(user: str, **overrides: Any) -> str:
    """A session token of the issuer that `ServerProcess` trusts."""
    return session_token(now=time.time(), user_id=user, issuer=ISSUER, **overrides)


def has_stopped(pid: int) -> bool:
    """Whether no thread of a process goes on."""
    return all(
        thread.read_text().rpartition(")")[2].split()[0] in "TtZ"
        for thread in Path(f"/proc/{pid}/task").glob("*/stat")
    )

"""A real `pdp audit forward` process beside a server, and denials for it to forward."""

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, CheckItem

from tests.kit import prefork
from tests.kit.ports import free_port
from tests.kit.server import ServerProcess, Stubs
from tests.kit.waiting import eventually

_numbers = itertools.count()


def deny(stubs: Stubs, count: int) -> list[str]:
    """So many denials, none equal to another; their ids in the order of the log."""
    ids: list[str] = []
    while len(ids) < count:
        items = [
            CheckItem(permission=f"course:n{next(_numbers)}")
            for _ in range(min(1_000, count - len(ids)))
        ]
        request = BatchCheckRequest(actor_token="x", items=items)
        results = stubs.decision.BatchCheck(request, timeout=30).results
        ids += [result.decision_id for result in results]
    return ids


@dataclass
class ForwardProcess:
    """A forwarder in the directory of its server."""

    server: ServerProcess
    settings: dict[str, Any] = field(default_factory=dict)
    process: prefork.Process | None = None

    def __post_init__(self) -> None:
        self.http_port = free_port()
        self.cursor = self.server.directory / "forward.cursor"

    @property
    def environment(self) -> dict[str, str]:
        values = {
            "SERVER": f"127.0.0.1:{self.server.port}",
            "HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "CURSOR_FILE": str(self.cursor),
            "SETTLE_SECONDS": "0",
            "LOG_LEVEL": "debug",
            **self.settings,
        }
        return {
            **{k: v for k, v in self.server.environment.items() if not k.startswith("PDP_")},
            **{
                f"PDP_FORWARD_{name}": value if isinstance(value, str) else json.dumps(value)
                for name, value in values.items()
            },
        }

    def start(self) -> None:
        with (self.server.directory / "forward.log").open("ab") as log:
            self.process = prefork.Process(
                ["audit", "forward"],
                cwd=self.server.directory,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def log(self) -> str:
        return (self.server.directory / "forward.log").read_text(errors="replace")

    def metric(self, name: str) -> float:
        """A gauge of the process."""
        import urllib.request

        url = f"http://127.0.0.1:{self.http_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        raise AssertionError(f"there is no metric {name}")

    def ready(self) -> tuple[int, str]:
        """Status and text of /readyz; status 0: it does not answer."""
        import urllib.error
        import urllib.request

        try:
            url = f"http://127.0.0.1:{self.http_port}/readyz"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""


@contextmanager
def forwarding(server: ServerProcess, **settings: Any) -> Iterator[ForwardProcess]:
    """A forwarder that is started, and ended with the block."""
    forwarder = ForwardProcess(server, settings)
    try:
        forwarder.start()
        yield forwarder
    finally:
        if forwarder.process is not None and forwarder.process.poll() is None:
            forwarder.kill()


def ids_of(lines: Sequence[str]) -> list[str]:
    """The ids of OCSF events."""
    return [json.loads(line)["metadata"]["uid"] for line in lines]


def ids_in(path: Path) -> list[str]:
    """The ids in a file of OCSF events; a line that is being written does not count."""
    if not path.exists():
        return []
    return ids_of(
        [line for line in path.read_text().splitlines(keepends=True) if line[-1:] == "\n"]
    )


def without_repetitions(ids: Sequence[str]) -> list[str]:
    """Each id where it came first."""
    return list(dict.fromkeys(ids))


def await_forwarded(forwarder: ForwardProcess, count: int) -> None:
    """Waits until so many records are confirmed, by the metric of this process."""
    eventually(
        lambda: forwarder.ready()[0] and forwarder.metric("pdp_forward_records") >= count,
        seconds=60,
        what="the records are forwarded",
    )

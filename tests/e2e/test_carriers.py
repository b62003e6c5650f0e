"""The application under another ASGI server than the one that `pdp serve` embeds: inside Envoy."""

import subprocess
import sys
from pathlib import Path

from pdpapi.v1.administration_service_pb2 import ApplyRequest

from tests.kit.ports import free_port
from tests.kit.school import POLICY, ask, reason_of
from tests.kit.server import ServerProcess, stubs_on
from tests.kit.waiting import eventually
from tests.kit.wire.errors import rpc_error


def test_another_server_carries_the_same_application(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.port = free_port()
    pyvoy = str(Path(sys.executable).with_name("pyvoy"))
    command = [pyvoy, "pdp.asgi:application", "--lifespan"]
    with (tmp_path / "server.log").open("wb") as log:
        server.process = subprocess.Popen(
            [*command, "--port", str(server.port)],
            cwd=tmp_path,
            env=server.environment,
            stdout=log,
            stderr=log,
        )
    try:
        server.wait_until_ready(60)
        with server.channel() as channel:
            stubs = stubs_on(channel)
            stubs.administration.Apply(ApplyRequest(document=POLICY), timeout=10)
            eventually(
                lambda: reason_of(ask(stubs, "user_ivan", "course:edit")) == "ALLOWED_BY_RULE"
            )
            assert reason_of(ask(stubs, "user_sam", "course:edit")) != "ALLOWED_BY_RULE"
            error = rpc_error(lambda: stubs.administration.Apply(ApplyRequest(document="x: 1")))
            assert "INVALID_ARGUMENT" in str(error.code())
        assert '"event": "serving"' in server.log()
    finally:
        assert server.stop() == 0, server.log()
    # How long it may take to stop is up to the carrier.
    assert '"event": "stopping"' in server.log()

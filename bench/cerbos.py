"""Cerbos: its released server binary (from npm), its defaults, the equivalent policy, GOMAXPROCS=1.

The request messages are built from the descriptors that Cerbos itself serves by reflection.
"""

import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from bench import plan
from bench.load import Target, write_body
from bench.pdp import Ask, expect
from bench.processes import BenchError, free_port, pinned, wait_until
from bench.signer import Signer

VERSION = "0.55.0"
PACKAGE = "@cerbos/cerbos-linux-x64"
CHECK = "/cerbos.svc.v1.CerbosService/CheckResources"


@dataclass(frozen=True, slots=True)
class Cerbos:
    """A serving process and how to ask it."""

    pid: int
    port: int
    directory: Path
    ready_seconds: float


def install() -> Path:
    """The server binary, fetched once. Raises BenchError where it cannot be had."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise BenchError("the Cerbos package is for Linux on x86_64")
    prefix = plan.BUILD / f"cerbos-{VERSION}"
    binary = prefix / "node_modules" / PACKAGE / PACKAGE.rpartition("/")[2]
    if not binary.exists():
        prefix.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(prefix)]
        ran = subprocess.run(
            [*command, f"{PACKAGE}@{VERSION}"],
            capture_output=True,
            text=True,
            timeout=plan.INSTALL_SECONDS_MAX,
            check=False,
        )
        if ran.returncode or not binary.exists():
            raise BenchError(f"Cerbos could not be installed: {ran.stderr[-1000:]}")
    return binary


def write_policies(directory: Path, rules: int) -> Path:
    """The policies of `policies/cerbos`, repeated for as many kinds as make so many rules."""
    policies = directory / "policies"
    policies.mkdir(parents=True, exist_ok=True)
    source = plan.POLICIES / "cerbos"
    (policies / "derived_roles.yaml").write_text((source / "derived_roles.yaml").read_text())
    text = (source / "course.yaml").read_text()
    for kind in plan.kinds_of(rules):
        named = text.replace(f"resource: {plan.KIND}\n", f"resource: {kind}\n")
        (policies / f"{kind}.yaml").write_text(named)
    return policies


@contextmanager
def serving(directory: Path, signer: Signer, rules: int) -> Iterator[Cerbos]:
    """The server on the server core, without its log of requests."""
    binary = install()
    policies = write_policies(directory, rules)
    port, http_port = free_port(), free_port()
    environment = {
        "GOMAXPROCS": "1",
        "BENCH_GRPC_PORT": str(port),
        "BENCH_HTTP_PORT": str(http_port),
        "BENCH_JWKS": str(signer.key_set_file),
        "BENCH_POLICIES": str(policies),
    }
    log = directory / "server.log"
    config = plan.POLICIES / "cerbos" / "server.yaml"
    command = [str(binary), "server", f"--config={config}", "--log-level=warn"]
    command.append("--debug-listen-addr=")
    with pinned(command, plan.SERVER_CORE, log, environment, directory) as process:
        seconds = wait_until(lambda: _is_serving(port), process, "Cerbos", log)
        yield Cerbos(process.pid, port, directory, seconds)


def check_target(cerbos: Cerbos, signer: Signer, rules: int) -> Target:
    """The question with an allow for an answer. Raises BenchError where Cerbos answers wrongly."""
    with grpc.insecure_channel(f"127.0.0.1:{cerbos.port}") as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        request_type = GetMessageClass(
            pool.FindMessageTypeByName("cerbos.request.v1.CheckResourcesRequest")
        )
        response_type = GetMessageClass(
            pool.FindMessageTypeByName("cerbos.response.v1.CheckResourcesResponse")
        )
        ask: Ask = channel.unary_unary(CHECK)

        def answer(request: bytes) -> tuple[str, bytes]:
            raw: bytes = ask(request, timeout=30)
            result = MessageToDict(response_type.FromString(raw))["results"][0]
            return result["actions"][plan.ACTION], raw

        def request(owner: str, token: str) -> bytes:
            message = ParseDict(_question(rules, owner, token), request_type())
            return message.SerializeToString()

        token = signer.token(plan.USER, plan.ORGANIZATION)
        effect, _ = answer(request(plan.STRANGER, token))
        expect(effect == "EFFECT_DENY", "Cerbos must deny to who is not the owner")
        body = request(plan.USER, token)
        effect, raw = answer(body)
        expect(effect == "EFFECT_ALLOW", "Cerbos must allow to the owner")
        head, _, signature = token.rpartition(".")
        forged = f"{head}.{signature[::-1]}"
        try:
            answer(request(plan.USER, forged))
        except grpc.RpcError:
            pass
        else:
            raise BenchError("Cerbos must refuse a forged token")
    file = write_body(cerbos.directory / "check.bin", body)
    return Target(cerbos.pid, cerbos.port, CHECK, file, len(raw) + 5)


def _question(rules: int, owner: str, token: str) -> dict[str, Any]:
    resource = {
        "kind": plan.asked_kind(rules),
        "id": f"{plan.KIND}_1",
        "attr": {"owner": owner},
    }
    return {
        "requestId": "bench",
        "principal": {"id": plan.USER, "roles": [plan.ROLE]},
        "resources": [{"actions": [plan.ACTION], "resource": resource}],
        "auxData": {"jwt": {"token": token}},
    }


def _is_serving(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            ask: Ask = channel.unary_unary("/grpc.health.v1.Health/Check")
            answer = ask(b"", timeout=1)
        except grpc.RpcError:
            return False
    return bool(answer == b"\x08\x01")

"""Cerbos: its released server (from npm), its defaults, the equivalent policy, GOMAXPROCS=1.

The request messages are built from the descriptors that Cerbos itself serves by reflection.
"""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict

from bench import plan
from bench.load import Target, write_grpc
from bench.pdp import expect
from bench.peers import reflection
from bench.processes import BenchError, free_port, pinned, require, run, wait_until
from bench.signer import Signer

NAME = "Cerbos"
VERSION = "0.55.0"
PACKAGE = "@cerbos/cerbos-linux-x64"
CHECK = "/cerbos.svc.v1.CerbosService/CheckResources"

_LOG_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Cerbos:
    """A serving process and how to ask it."""

    pid: int
    port: int
    directory: Path
    decision_log: Path


def install() -> str:
    """Fetches the server once; its version. Raises BenchError if it cannot be had."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise BenchError("the Cerbos package is for Linux on x86_64")
    prefix = _prefix()
    if not _program().exists():
        require("npm")
        prefix.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(prefix)]
        run([*command, f"{PACKAGE}@{VERSION}"])
    return VERSION


@contextmanager
def checking(directory: Path, signer: Signer, rules: int) -> Iterator[Target]:
    """A server, and the question with an allow for an answer."""
    with serving(directory, signer, rules) as cerbos:
        yield allow_target(cerbos, signer, rules)


@contextmanager
def serving(
    directory: Path, signer: Signer, rules: int, *, logs_decisions: bool = False
) -> Iterator[Cerbos]:
    """The server on the server core, without its log of requests.

    With `logs_decisions`, it writes each decision to a file as one line of JSON before it answers:
    its audit backend `file`. Cerbos does not sync that file to the disk.
    """
    policies = _write_policies(directory, rules)
    port, http_port = free_port(), free_port()
    environment = {
        "GOMAXPROCS": "1",
        "BENCH_GRPC_PORT": str(port),
        "BENCH_HTTP_PORT": str(http_port),
        "BENCH_JWKS": str(signer.key_set_file),
        "BENCH_POLICIES": str(policies),
    }
    log, decision_log = directory / "server.log", directory / "decisions.log"
    config = plan.POLICIES / "cerbos" / "server.yaml"
    command = [str(_program()), "server", f"--config={config}", "--log-level=warn"]
    command.append("--debug-listen-addr=")
    if logs_decisions:
        # https://docs.cerbos.dev/cerbos/latest/configuration/audit#file
        command += [
            "--set=audit.enabled=true",
            "--set=audit.accessLogsEnabled=false",
            "--set=audit.decisionLogsEnabled=true",
            "--set=audit.backend=file",
            f"--set=audit.file.path={decision_log}",
        ]
    with pinned(command, plan.SERVER_CORE, log, environment, directory) as process:
        wait_until(lambda: reflection.is_serving(port), process, NAME, log)
        yield Cerbos(process.pid, port, directory, decision_log)


def allow_target(cerbos: Cerbos, signer: Signer, rules: int, items: int = 1) -> Target:
    """The question about so many courses, all allowed."""
    return _target(cerbos, signer, rules, items, allowed=True)


def denial_target(cerbos: Cerbos, signer: Signer, rules: int) -> Target:
    """The question with a denial for an answer, which is in the decision log.

    Raises BenchError if it is not.
    """
    target = _target(cerbos, signer, rules, 1, allowed=False)
    end = time.monotonic() + _LOG_SECONDS_MAX
    while "EFFECT_DENY" not in cerbos.decision_log.read_text():
        expect(time.monotonic() < end, "Cerbos must log its denials")
        time.sleep(0.05)
    return target


def _target(cerbos: Cerbos, signer: Signer, rules: int, items: int, *, allowed: bool) -> Target:
    """Raises BenchError if Cerbos answers wrongly."""
    token = signer.token(plan.USER, plan.ORGANIZATION)
    with reflection.asking(cerbos.port, CHECK) as (ask, message_type):
        request_type = message_type("cerbos.request.v1.CheckResourcesRequest")
        response_type = message_type("cerbos.response.v1.CheckResourcesResponse")

        def request(owner: str, proof: str = token) -> bytes:
            message = ParseDict(_question(rules, items, owner, proof), request_type())
            return message.SerializeToString()

        def effects(raw: bytes) -> set[str]:
            results = MessageToDict(response_type.FromString(raw))["results"]
            expect(len(results) == items, "Cerbos must answer every item")
            return {result["actions"][plan.ACTION] for result in results}

        denied, allow = request(plan.STRANGER), request(plan.USER)
        answers = {raw: ask(raw, timeout=30) for raw in (denied, allow)}
        expect(effects(answers[denied]) == {"EFFECT_DENY"}, "Cerbos must deny to a stranger")
        expect(effects(answers[allow]) == {"EFFECT_ALLOW"}, "Cerbos must allow to the owner")
        try:
            ask(request(plan.USER, signer.forged(token)), timeout=30)
        except grpc.RpcError:
            pass
        else:
            raise BenchError("Cerbos must refuse a forged token")
    body = allow if allowed else denied
    name = f"check-{items}" if allowed else "denial"
    file = write_grpc(cerbos.directory / f"{name}.bin", body)
    return Target(cerbos.pid, cerbos.port, CHECK, file, len(answers[body]) + 5)


def _question(rules: int, items: int, owner: str, token: str) -> dict[str, Any]:
    return {
        "requestId": "bench",
        "principal": {"id": plan.USER, "roles": [plan.ROLE]},
        "resources": [
            {
                "actions": [plan.ACTION],
                "resource": {
                    "kind": plan.asked_kind(rules),
                    "id": f"{plan.KIND}_{number}",
                    "attr": {"owner": owner},
                },
            }
            for number in range(items)
        ],
        "auxData": {"jwt": {"token": token}},
    }


def _write_policies(directory: Path, rules: int) -> Path:
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


def _prefix() -> Path:
    return plan.BUILD / f"cerbos-{VERSION}"


def _program() -> Path:
    return _prefix() / "node_modules" / PACKAGE / PACKAGE.rpartition("/")[2]

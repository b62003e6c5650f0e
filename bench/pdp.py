"""This PDP: `pdp serve` as anybody would start it, on a database filled for the measurement."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from pdpapi.v1.core_pb2 import Decision, Resource
from pdpapi.v1.decision_service_pb2 import (
    BatchCheckRequest,
    BatchCheckResponse,
    CheckItem,
    CheckRequest,
    CheckResponse,
)

from bench import plan
from bench.load import Target, write_grpc
from bench.processes import BenchError, free_port, pinned, wait_until
from bench.signer import ISSUER, Signer
from pdp.database.engine import open_engine
from pdp.document import PolicyDocument, parse_document
from pdp.facts import Store, migrate
from pdp.model import Entity, Permission, Rule

CHECK = "/pdpapi.v1.PolicyDecisionService/Check"
BATCH_CHECK = "/pdpapi.v1.PolicyDecisionService/BatchCheck"
ALLOW = Decision.DECISION_ALLOW
DENY = Decision.DECISION_DENY

A = TypeVar("A", bound=Message)
Ask: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, bytes]"
"""Bytes in, bytes out: what a channel makes without serializers."""


@dataclass(frozen=True, slots=True)
class Pdp:
    """A serving process and how to ask it."""

    pid: int
    port: int
    http_port: int
    directory: Path
    ready_seconds: float


def policy_of(rules: int) -> Iterator[Entity]:
    """The policy of `policies/pdp.yaml`, repeated for as many kinds as make so many rules."""
    document = parse_document((plan.POLICIES / "pdp.yaml").read_text())
    kinds = plan.kinds_of(rules)
    yield from _repeated_permissions(document, kinds)
    yield from document.roles or ()
    yield from _repeated_rules(document, kinds)
    for kind in ("user", "organization", "membership", "grant"):
        yield from document.section(kind) or ()


def _repeated_permissions(document: PolicyDocument, kinds: Sequence[str]) -> Iterator[Permission]:
    for kind in kinds:
        for permission in document.permissions or ():
            yield replace(permission, name=permission.name.replace(plan.KIND, kind))


def _repeated_rules(document: PolicyDocument, kinds: Sequence[str]) -> Iterator[Rule]:
    for kind in kinds:
        for rule in document.rules or ():
            yield replace(
                rule,
                id=rule.id.replace(plan.KIND, kind),
                permission=rule.permission.replace(plan.KIND, kind),
            )


def fill(url: str, entities: Iterator[Entity]) -> None:
    """Migrates a database and writes entities into it."""
    engine = open_engine(url)
    migrate(engine)
    with Store(engine).write() as transaction:
        transaction.apply_many(entities)
    engine.dispose()


@contextmanager
def serving(
    directory: Path,
    signer: Signer,
    url: str,
    clerk: Mapping[str, object] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Pdp]:
    """`pdp serve` on the server core, with default settings but for addresses, places, what it is
    told of Clerk, and more variables in `settings`."""
    directory.mkdir(parents=True, exist_ok=True)
    port, http_port = free_port(), free_port()
    environment = environment_of(directory, signer, url, port, http_port)
    environment["PDP_CLERK"] = json.dumps(clerk or {})
    environment.update(settings or {})
    log = directory / "server.log"
    command = [sys.executable, "-m", "pdp", "serve"]
    with pinned(command, plan.SERVER_CORE, log, environment, directory) as process:
        ready = f"http://127.0.0.1:{http_port}/readyz"
        seconds = wait_until(lambda: answers(ready), process, "pdp serve", log)
        yield Pdp(process.pid, port, http_port, directory, seconds)


@contextmanager
def serving_policy(directory: Path, signer: Signer, rules: int = plan.RULES) -> Iterator[Pdp]:
    """The same on SQLite, with a policy of so many rules."""
    directory.mkdir(parents=True)
    url = f"sqlite:///{directory / 'pdp.db'}"
    fill(url, policy_of(rules))
    with serving(directory, signer, url) as server:
        yield server


def environment_of(
    directory: Path, signer: Signer, url: str, port: int, http_port: int
) -> dict[str, str]:
    """The settings of a process."""
    issuer = {"issuer": ISSUER, "public_key_file": str(signer.public_key_file)}
    return {
        "PDP_ISSUERS": json.dumps([issuer]),
        "PDP_DATABASE_URL": url,
        "PDP_AUDIT_DIRECTORY": str(directory / "audit"),
        "PDP_LISTEN": f"127.0.0.1:{port}",
        "PDP_HTTP_LISTEN": f"127.0.0.1:{http_port}",
        "PDP_LOG_LEVEL": "warning",
    }


def check_request(signer: Signer, rules: int, *, owner: str) -> CheckRequest:
    """The question: may the bearer edit a course that belongs to `owner`?"""
    kind = plan.asked_kind(rules)
    resource = Resource(type=kind, id=f"{plan.KIND}_1", organization_id=plan.ORGANIZATION)
    resource.attributes["owner"] = owner
    return CheckRequest(
        actor_token=signer.token(plan.USER, plan.ORGANIZATION),
        permission=f"{kind}:{plan.ACTION}",
        resource=resource,
    )


def check_target(pdp: Pdp, signer: Signer, rules: int) -> Target:
    """The question with an allow for an answer. Raises BenchError if the PDP answers wrongly."""
    denied = _ask(pdp, CHECK, check_request(signer, rules, owner=plan.STRANGER), CheckResponse())
    expect(denied.decision == DENY, "this PDP must deny to a stranger")
    request = check_request(signer, rules, owner=plan.USER)
    allowed = _ask(pdp, CHECK, request, CheckResponse())
    expect(allowed.decision == ALLOW, f"this PDP must allow to the owner: {allowed}")
    forged = CheckRequest()
    forged.CopyFrom(request)
    forged.actor_token = signer.forged(request.actor_token)
    refused = _ask(pdp, CHECK, forged, CheckResponse())
    expect(refused.decision == DENY, "this PDP must refuse a forged token")
    return _target(pdp, "check", CHECK, request, allowed)


def denial_target(pdp: Pdp, signer: Signer, rules: int) -> Target:
    """The question with a denial for an answer, on record and synced before it goes out."""
    request = check_request(signer, rules, owner=plan.STRANGER)
    denied = _ask(pdp, CHECK, request, CheckResponse())
    expect(denied.decision == DENY, "this PDP must deny to a stranger")
    return _target(pdp, "denial", CHECK, request, denied)


def batch_target(pdp: Pdp, signer: Signer, rules: int) -> Target:
    """A thousand questions about a thousand courses, all allowed."""
    kind = plan.asked_kind(rules)
    request = BatchCheckRequest(actor_token=signer.token(plan.USER, plan.ORGANIZATION))
    for number in range(plan.BATCH_ITEMS):
        resource = Resource(
            type=kind, id=f"{plan.KIND}_{number}", organization_id=plan.ORGANIZATION
        )
        resource.attributes["owner"] = plan.USER
        request.items.append(CheckItem(permission=f"{kind}:{plan.ACTION}", resource=resource))
    answer = _ask(pdp, BATCH_CHECK, request, BatchCheckResponse())
    expect(
        [result.decision for result in answer.results] == [ALLOW] * plan.BATCH_ITEMS,
        "this PDP must allow every item of the batch",
    )
    return _target(pdp, "batch", BATCH_CHECK, request, answer)


def expect(holds: bool, otherwise: str) -> None:
    """Raises BenchError with `otherwise` if it does not hold."""
    if not holds:
        raise BenchError(otherwise)


def _target(pdp: Pdp, name: str, path: str, request: Message, answer: Message) -> Target:
    body = write_grpc(pdp.directory / f"{name}.bin", request.SerializeToString())
    return Target(pdp.pid, pdp.port, path, body, len(answer.SerializeToString()) + 5)


_RETRIES: Final = {
    "name": [{}],
    "retryPolicy": {
        "maxAttempts": 5,
        "initialBackoff": "0.5s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    },
}


def _ask(pdp: Pdp, path: str, request: Message, answer: A) -> A:
    """Asks again while a disk that hangs keeps a denial from the log."""
    options = [("grpc.service_config", json.dumps({"methodConfig": [_RETRIES]}))]
    with grpc.insecure_channel(f"127.0.0.1:{pdp.port}", options) as channel:
        ask: Ask = channel.unary_unary(path)
        answer.ParseFromString(ask(request.SerializeToString(), timeout=30))
    return answer


def answers(url: str) -> bool:
    """Whether a GET is answered with success."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False

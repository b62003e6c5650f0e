"""OpenFGA: tuples in memory, gRPC, its defaults, GOMAXPROCS=1.

Two things make its question the cheaper one: it takes the user's name on trust and verifies no
token, and its model has one kind of resource with eleven relations, however many rules the others
have. With a type for each of 100 kinds it answers about a fifth as many requests.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import plan
from bench.load import Target, write_grpc
from bench.pdp import answers, expect
from bench.peers import go, reflection, rest
from bench.processes import free_port, pinned, wait_until
from bench.signer import Signer

NAME = "OpenFGA"
VERSION = "1.22.1"
PACKAGE = "github.com/openfga/openfga/cmd/openfga"
CHECK = "/openfga.v1.OpenFGAService/Check"

_MEMBERS = f"role:{plan.ROLE}#member"


def install() -> str:
    """Builds the server once; its version. Raises BenchError if that fails."""
    go.install(PACKAGE, VERSION)
    return VERSION


@contextmanager
def checking(directory: Path, signer: Signer, rules: int) -> Iterator[Target]:
    """A server, and the question with an allow for an answer.

    Raises BenchError if it answers wrongly.
    """
    del signer, rules
    directory.mkdir(parents=True)
    port, http_port, metrics_port = free_port(), free_port(), free_port()
    log = directory / "server.log"
    command = [
        *(str(go.install(PACKAGE, VERSION)), "run", "--datastore-engine=memory"),
        *(f"--grpc-addr=127.0.0.1:{port}", f"--http-addr=127.0.0.1:{http_port}"),
        *(f"--metrics-addr=127.0.0.1:{metrics_port}", "--playground-enabled=false"),
        "--log-level=error",
    ]
    with pinned(command, plan.SERVER_CORE, log, {"GOMAXPROCS": "1"}, directory) as process:
        url = f"http://127.0.0.1:{http_port}"
        wait_until(lambda: answers(f"{url}/healthz"), process, NAME, log)
        body, answer = _ask(port, *_fill(url))
        file = write_grpc(directory / "check.bin", body)
        # An allow has two bytes, a denial none.
        yield Target(process.pid, port, CHECK, file, len(answer) + 5, 0)


def _fill(url: str) -> tuple[str, str]:
    """Writes the model and the tuples; the names of the store and the model."""
    store = rest.post_json(f"{url}/stores", {"name": "bench"})["id"]
    model = rest.post_json(f"{url}/stores/{store}/authorization-models", _model())
    course = f"{plan.KIND}:{plan.KIND}"
    tuples = [
        _tuple(f"user:{plan.USER}", "member", f"role:{plan.ROLE}"),
        _tuple(_MEMBERS, "instructor", f"{course}_1"),
        _tuple(f"user:{plan.USER}", "owner", f"{course}_1"),
        _tuple(_MEMBERS, "instructor", f"{course}_2"),
        _tuple(f"user:{plan.STRANGER}", "owner", f"{course}_2"),
    ]
    rest.post_json(f"{url}/stores/{store}/write", {"writes": {"tuple_keys": tuples}})
    return store, model["authorization_model_id"]


def _ask(port: int, store: str, model: str) -> tuple[bytes, bytes]:
    """The question and its answer, an allow."""
    with reflection.asking(port, CHECK) as (ask, message_type):
        request_type = message_type("openfga.v1.CheckRequest")
        response_type = message_type("openfga.v1.CheckResponse")

        def question(number: int) -> bytes:
            message: Any = request_type(store_id=store, authorization_model_id=model)
            message.tuple_key.user = f"user:{plan.USER}"
            message.tuple_key.relation = plan.ACTION
            message.tuple_key.object = f"{plan.KIND}:{plan.KIND}_{number}"
            asked: bytes = message.SerializeToString()
            return asked

        def allowed(number: int) -> bool:
            answer: Any = response_type.FromString(ask(question(number), timeout=30))
            return bool(answer.allowed)

        expect(not allowed(2), "OpenFGA must deny to a stranger")
        expect(allowed(1), "OpenFGA must allow to the owner")
        return question(1), ask(question(1), timeout=30)


def _model() -> dict[str, Any]:
    """The type of `policies/openfga`, and those that it names."""
    course = json.loads((plan.POLICIES / "openfga" / "course.json").read_text())
    member = {"directly_related_user_types": [{"type": "user"}]}
    role = {
        "type": "role",
        "relations": {"member": {"this": {}}},
        "metadata": {"relations": {"member": member}},
    }
    return {"schema_version": "1.1", "type_definitions": [{"type": "user"}, role, course]}


def _tuple(user: str, relation: str, resource: str) -> dict[str, str]:
    return {"user": user, "relation": relation, "object": resource}

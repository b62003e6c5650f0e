"""OPA: its REST API over HTTP/2, the token verified in Rego, GOMAXPROCS=1.

Twice: with its defaults, which verify the token at every request, and with its cache of verified
tokens, which has to be switched on.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import plan
from bench.load import JSON_HEADERS, Target
from bench.pdp import answers, expect
from bench.peers import go, rest
from bench.processes import free_port, pinned, wait_until
from bench.signer import ISSUER, Signer

NAME = "OPA"
CACHING_NAME = "OPA, tokens cached"
VERSION = "1.22.4"
PACKAGE = "github.com/open-policy-agent/opa"
PATH = "/v1/data/bench/allow"

_CACHED_TOKENS = 100


def install() -> str:
    """Builds the server once; its version. Raises BenchError if that fails."""
    go.install(PACKAGE, VERSION)
    return VERSION


@contextmanager
def checking(
    directory: Path, signer: Signer, rules: int, *, caches_tokens: bool = False
) -> Iterator[Target]:
    """A server, and the question with an allow for an answer.

    Raises BenchError if it answers wrongly.
    """
    directory.mkdir(parents=True)
    port = free_port()
    policy, data = directory / "policy.rego", directory / "data.json"
    policy.write_text(_policy(rules))
    data.write_text(
        json.dumps(
            {
                "keys": signer.key_set_file.read_text(),
                "issuer": ISSUER,
                "grants": {plan.USER: [plan.ROLE]},
            }
        )
    )
    log = directory / "server.log"
    command = [
        *(str(go.install(PACKAGE, VERSION)), "run", "--server", "--h2c", "--skip-version-check"),
        *(f"--addr=127.0.0.1:{port}", "--log-level=error", str(policy), str(data)),
    ]
    if caches_tokens:
        # https://www.openpolicyagent.org/docs/configuration#caching
        cache = "caching.inter_query_builtin_value_cache.named.io_jwt.max_num_entries"
        command.append(f"--set={cache}={_CACHED_TOKENS}")
    with pinned(command, plan.SERVER_CORE, log, {"GOMAXPROCS": "1"}, directory) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/health"), process, NAME, log)
        body, answer = _ask(url + PATH, signer, rules)
        file = directory / "check.json"
        file.write_bytes(body)
        # An allow and a denial differ by one byte.
        yield Target(process.pid, port, PATH, file, len(answer), 0, JSON_HEADERS)


def _ask(url: str, signer: Signer, rules: int) -> tuple[bytes, bytes]:
    """The question and its answer, an allow."""
    token = signer.token(plan.USER, plan.ORGANIZATION)

    def question(owner: str, proof: str) -> dict[str, dict[str, str]]:
        kind = plan.asked_kind(rules)
        who = {"token": proof, "owner": owner}
        return {"input": {**who, "kind": kind, "action": plan.ACTION, "id": f"{plan.KIND}_1"}}

    def allowed(owner: str, proof: str) -> bool:
        return bool(rest.post_json(url, question(owner, proof))["result"])

    expect(not allowed(plan.STRANGER, token), "OPA must deny to a stranger")
    expect(not allowed(plan.USER, signer.forged(token)), "OPA must refuse a forged token")
    expect(allowed(plan.USER, token), "OPA must allow to the owner")
    asked = question(plan.USER, token)
    return json.dumps(asked).encode(), rest.post(url, asked)


def _policy(rules: int) -> str:
    """The policy of `policies/opa`, repeated for as many kinds as make so many rules."""
    source = plan.POLICIES / "opa"
    text = (source / "course.rego").read_text()
    repeated = (text.replace(f'"{plan.KIND}"', f'"{kind}"') for kind in plan.kinds_of(rules))
    return "\n".join([(source / "main.rego").read_text(), *repeated])

"""`python -m tests.conformance`: a real PDP and a scripted one, until stdin is closed.

Prints one line of JSON, which clients/conformance/README.md describes. stdin also closes when
the parent is killed; and when this process is killed, no other stays behind.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from clients.python.tests.kit.answerer import Answerer, serve
from clients.python.tests.kit.certificates import Authority
from tests.conformance.scripted import Script
from tests.kit.server import ServerProcess, token_of
from tests.kit.tokens import ISSUER, PARTY, SigningKey, signing_key

FOLDER = Path(__file__).parents[2] / "clients" / "conformance"
API_KEY = "an-api-key-of-the-conformance-tests"
CALLERS = [
    {
        "name": "conformance",
        "api_key_sha256": hashlib.sha256(API_KEY.encode()).hexdigest(),
        "may": ["decide", "audit"],
    }
]
ISSUERS = [
    {"issuer": ISSUER, "public_key": signing_key().public_pem, "authorized_parties": [PARTY]}
]
TOKEN_SECONDS = 1_800


@contextmanager
def conformance(directory: Path) -> Iterator[dict[str, Any]]:
    """Both servers, and what is printed of them."""
    pdp = ServerProcess(directory, {"CALLERS": CALLERS, "ISSUERS": ISSUERS})
    applied = pdp.pdp("apply", str(FOLDER / "policy.yaml"))
    if applied.returncode:
        raise RuntimeError(applied.stderr)
    one = Answerer(answer=Script(_read("outcomes")["cases"]).answer)
    over_tls = Answerer(answer=one.answer)
    tls, credentials = _certificates(directory)
    servers = [serve(one, "127.0.0.1:0"), serve(over_tls, "127.0.0.1:0", credentials)]
    pdp.start()
    with _cleaning_up(pdp, directory):
        yield {
            "pdp": f"127.0.0.1:{pdp.port}",
            "scripted": one.address,
            "tls": {"target": over_tls.address.replace("127.0.0.1", "localhost"), **tls},
            "api_key": API_KEY,
            "tokens": _tokens(),
            "http": f"http://127.0.0.1:{pdp.http_port}",
            "directory": str(directory),
        }
    for server in servers:
        server.stop(None)


@contextmanager
def _cleaning_up(pdp: ServerProcess, directory: Path) -> Iterator[None]:
    """By another process, which reads a pipe of this one: that ends however this one ends."""
    assert pdp.process is not None
    clean = ("sh", "-c", 'read _; kill -9 "$0"; rm -rf "$1"', str(pdp.process.pid), str(directory))
    with subprocess.Popen(clean, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL):
        yield
    pdp.process.wait()


def _read(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def _certificates(directory: Path) -> tuple[dict[str, str], grpc.ServerCredentials]:
    """Files for a guard, and what a server asks them for."""
    authority = Authority("conformance")
    client, server = authority.issue("guard"), authority.issue("pdp")
    files = {}
    for name, pem in {"ca": authority.cert, "cert": client.cert, "key": client.key}.items():
        (directory / f"{name}.pem").write_bytes(pem)
        files[name] = str(directory / f"{name}.pem")
    return files, grpc.ssl_server_credentials(
        [(server.key, server.cert)], root_certificates=authority.cert, require_client_auth=True
    )


def _tokens() -> dict[str, str]:
    ends = int(time.time()) + TOKEN_SECONDS

    def token(user: str, organization: str = "org_school", **more: Any) -> str:
        session = user.replace("user", "sess", 1)
        claims = {"exp": ends, **more.pop("claims", {})}
        return token_of(
            user, organization_id=organization, session_id=session, claims=claims, **more
        )

    stranger = SigningKey(signing_key().kid, signing_key("stranger").private)
    return {
        "none": "",
        "admin": token("user_ada"),
        "instructor": token("user_ivan"),
        "student": token("user_sam"),
        "other_organization": token("user_olga", "org_college"),
        "expired": token("user_ada", claims={"exp": int(time.time()) - 60}),
        "forged": token("user_ada", key=stranger),
        "without_party": token("user_ada", without=["azp"]),
        "banned": token("user_bert"),
        "unknown_user": token("user_nobody"),
    }


def main() -> None:
    with conformance(Path(tempfile.mkdtemp(prefix="pdp-conformance-"))) as made:
        sys.stdout.write(json.dumps(made) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()

"""The main job, run for real: a server process, tokens signed with a fresh key, an allow, a denial
of each kind, a session that Clerk revokes, and what the security team sees. Everything lives in a
temporary directory."""

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from pdp_client import Denied, Guard, Resource
from standardwebhooks import Webhook

POLICY = Path(__file__).parent / "courses.yaml"
PDP = (sys.executable, "-m", "pdp")
START_SECONDS = 30
INSTANCE = "ins_demo"
WEBHOOK_SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pdp-demo-") as directory:
        run(Path(directory))


def run(directory: Path) -> None:
    grpc_port, http_port = free_port(), free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PDP_")},
        "PDP_ISSUERS": '[{"issuer": "http://localhost/pdp-development",'
        ' "public_key_file": "development.pem.pub"}]',
        "PDP_LISTEN": f"127.0.0.1:{grpc_port}",
        "PDP_HTTP_LISTEN": f"127.0.0.1:{http_port}",
        "PDP_SERVER": f"127.0.0.1:{grpc_port}",
        "PDP_CLERK": json.dumps({"instance_id": INSTANCE, "webhook_secrets": [WEBHOOK_SECRET]}),
        "PDP_LOG_LEVEL": "error",
    }

    def pdp(*arguments: str) -> str:
        done = subprocess.run(
            [*PDP, *arguments],
            check=False,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return done.stdout.strip()

    def token(user: str, seconds: int = 60) -> str:
        place = ("--organization", "org_school", "--seconds", str(seconds))
        return pdp("token", "mint", "--user", user, "--session", f"sess_{user}", *place)

    step("1. The policy: roles ADMIN, INSTRUCTOR and STUDENT, three people, one organization")
    with ThreadPoolExecutor() as pool:
        applied = pool.submit(pdp, "apply", str(POLICY))
        ivan = token("user_ivan")  # the first token makes the key
        print(applied.result().splitlines()[-1], flush=True)
    log = directory / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [*PDP, "serve"], cwd=directory, env=environment, stdout=stream, stderr=stream
        )
    try:
        with ThreadPoolExecutor() as pool:
            sam, old = pool.map(token, ("user_sam", "user_sam"), (60, -60))
        tokens = {"ivan": ivan, "sam": sam, "old": old}
        wait_until_ready(http_port, server, log)
        with Guard(f"127.0.0.1:{grpc_port}", deadline_seconds=5) as guard:
            algebra = Resource("course", "algebra")
            step("2. Ivan, INSTRUCTOR, edits the course that he owns: the owner condition holds")
            ask(guard, tokens["ivan"], "course:edit", algebra)
            step("3. Sam sends a token that expired a minute ago: it proves nothing")
            ask(guard, tokens["old"], "course:view", algebra)
            step("4. Sam, STUDENT, wants to edit the course: known, but not allowed")
            ask(guard, tokens["sam"], "course:edit", algebra)
            step("5. Clerk reports that Ivan's session was revoked; his token has not expired")
            session = {"id": "sess_user_ivan", "user_id": "user_ivan", "status": "revoked"}
            deliver(http_port, "session.revoked", session)
            ask(guard, tokens["ivan"], "course:edit", algebra)
        step("6. The security team sees the denials, which were on disk before they were answered")
        print(pdp("audit", "list"))
    finally:
        server.terminate()
        server.wait(30)
    print("\nThat was one process on SQLite. docs/quickstart.md connects it to a Clerk instance.")


def ask(guard: Guard, token: str, permission: str, resource: Resource) -> None:
    question = f"   require(token, {permission!r}, {resource.type}:{resource.id})"
    try:
        actor = guard.require(token, permission, resource)
    except Denied as denied:
        decision = denied.decision
        print(f"{question}\n   -> {denied.http_status} {decision.reason}: {decision.message}")
    else:
        print(f"{question}\n   -> allowed, for {actor.user_id} in {actor.organization_id}")


def deliver(port: int, event: str, data: dict[str, str]) -> None:
    """Posts a signed message, as Clerk does."""
    now, message = datetime.now(UTC), f"msg_{secrets.token_hex(12)}"
    milliseconds = int(now.timestamp() * 1000)
    body = json.dumps(
        {"type": event, "instance_id": INSTANCE, "timestamp": milliseconds, "data": data}
    )
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/webhooks/clerk",
        data=body.encode(),
        headers={
            "svix-id": message,
            "svix-timestamp": str(int(now.timestamp())),
            "svix-signature": Webhook(WEBHOOK_SECRET).sign(message, now, body),
        },
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        print(f"   POST /webhooks/clerk {event}\n   -> {answer.status}")


def step(text: str) -> None:
    print(f"\n{text}", flush=True)


def wait_until_ready(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"The server ended before it was ready:\n{log.read_text()}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1)
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"The server was not ready within {START_SECONDS} s:\n{log.read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    main()

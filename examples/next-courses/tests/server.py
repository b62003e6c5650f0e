"""A real PDP with the policy of this example, and a PostgreSQL with its courses.

Prints one line of JSON: where the PDP is, an API key, tokens by name, the URL of the database. Then
it does what each line of stdin says, `["stop"]` or the arguments of a `pdp` command, and answers by
a line of JSON. It ends when stdin is closed.
"""

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from tests.kit.clusters import started_cluster
from tests.kit.server import ServerProcess, token_of

API_KEY = "an-api-key-of-the-example"
TOKEN_SECONDS = 1_800
EXAMPLE = Path(__file__).parents[1]


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="pdp-next-courses-") as directory,
        started_cluster() as cluster,
    ):
        database = cluster.database()
        with psycopg.connect(database) as connection:
            connection.execute((EXAMPLE / "courses.sql").read_text(encoding="utf-8"))
        digest = hashlib.sha256(API_KEY.encode()).hexdigest()
        caller = {"name": "courses", "api_key_sha256": digest, "may": ["decide", "audit"]}
        server = ServerProcess(Path(directory), {"CALLERS": [caller]})
        server.environment["PDP_API_KEY"] = API_KEY
        applied = server.pdp("apply", str(EXAMPLE / "pdp.yaml"))
        if applied.returncode:
            raise SystemExit(applied.stderr)
        server.start()
        try:
            say(
                {
                    "pdp": f"127.0.0.1:{server.port}",
                    "api_key": API_KEY,
                    "tokens": tokens(),
                    "database": database,
                }
            )
            for line in sys.stdin:
                arguments = json.loads(line)
                say(stop(server) if arguments == ["stop"] else run(server, arguments))
        finally:
            stop(server)


def tokens() -> dict[str, str]:
    now = int(time.time())

    def token(user: str, ends: int = now + TOKEN_SECONDS) -> str:
        session = user.replace("user", "sess", 1)
        return token_of(
            user, organization_id="org_school", session_id=session, claims={"exp": ends}
        )

    return {
        "admin": token("user_ada"),
        "instructor": token("user_ivan"),
        "student": token("user_sam"),
        "expired": token("user_ivan", now - 60),
    }


def run(server: ServerProcess, arguments: list[str]) -> dict[str, object]:
    done = server.pdp(*arguments)
    return {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def stop(server: ServerProcess) -> dict[str, object]:
    if server.process is not None and server.process.poll() is None:
        server.stop()
    return {}


def say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

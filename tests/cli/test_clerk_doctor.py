"""`pdp clerk doctor`, as people meet it: real processes."""

import json
import time
from pathlib import Path

from tests.kit.clerk.events import OTHER_SECRET, SECRET
from tests.kit.server import ISSUER, ServerProcess
from tests.kit.tokens import session_token

SECRET_KEY = "sk_live_donottellanybodythiskey"
PASSWORD = "hunter2"


def machine(directory: Path, **settings: object) -> ServerProcess:
    clerk = {"webhook_secrets": [SECRET, OTHER_SECRET], "instance_id": "ins_main"}
    return ServerProcess(directory, {"CLERK": clerk, **settings})


def test_a_line_each_and_the_exit_status_says_whether_something_failed(
    tmp_path: Path, sqlite_url: str
) -> None:
    one = machine(tmp_path, DATABASE_URL=sqlite_url)
    sound = one.pdp("clerk", "doctor")
    assert sound.returncode == 0, sound.stdout + sound.stderr
    *lines, counted = sound.stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"ok", "warning"}
    assert counted.endswith(" 0 failed")
    refused = one.pdp("clerk", "doctor", "--token", "-", stdin="nothing\n")
    assert refused.returncode == 1
    assert "failed   token: TOKEN_MALFORMED" in refused.stdout
    one.environment["PDP_TOKEN"] = session_token(now=time.time(), issuer=ISSUER)
    unknown = one.pdp("clerk", "doctor")
    assert "ok       token: verifies: user_1" in unknown.stdout
    assert "failed   user user_1: is not known here" in unknown.stdout


def test_no_error_contains_a_secret(tmp_path: Path) -> None:
    clerk = {
        "webhook_secrets": [SECRET, SECRET],
        "instance_id": "ins_main",
        "secret_key": SECRET_KEY,
        "api_url": "http://127.0.0.1:9/v1",
        "push_claims": True,
    }
    url = f"postgresql://pdp:{PASSWORD}@127.0.0.1:1/pdp"
    one = machine(tmp_path, CLERK=clerk, DATABASE_URL=url)
    token = session_token(now=time.time() - 999, issuer=ISSUER)
    wrong = one.pdp("clerk", "doctor", "--token", token)
    assert wrong.returncode == 1
    one.environment["PDP_CLERK"] = json.dumps({**clerk, "webhook_secrets": [SECRET[:20]]})
    invalid = one.pdp("clerk", "doctor", "--token", token)
    assert invalid.returncode == 2
    assert "clerk.webhook_secrets" in invalid.stderr
    for done in (wrong, invalid):
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        for secret in (SECRET[6:20], SECRET_KEY[8:], PASSWORD, *token.split(".")):
            assert secret not in said

"""`make demo-console`: a server with a small invented company, its decisions of the last hours, and
a link that signs in to the console. Everything lives in a temporary directory, until Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from examples.company import ANALYST, company, history, later, write_history
from examples.demo import PDP, free_port, wait_until_ready

PAST = (sys.executable, str(Path(__file__).parent / "past.py"))
HOURS = 20.0
DECISIONS = 6_000


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pdp-console-") as directory:
        run(Path(directory))


def run(directory: Path) -> None:
    http_port, console_port = free_port(), free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PDP_")},
        "PDP_ISSUERS": '[{"issuer": "http://localhost/pdp-development",'
        ' "public_key_file": "development.pem.pub"}]',
        "PDP_LISTEN": f"127.0.0.1:{free_port()}",
        "PDP_HTTP_LISTEN": f"127.0.0.1:{http_port}",
        "PDP_CONSOLE__LISTEN": f"127.0.0.1:{console_port}",
        "PDP_AUDIT_ALLOWS": "true",
        "PDP_LOG_LEVEL": "error",
    }

    def pdp(*arguments: str, program: tuple[str, ...] = PDP) -> str:
        done = subprocess.run(
            [*program, *arguments],
            check=False,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return done.stdout.strip()

    made = company()
    (directory / "company.yaml").write_text(made.text, encoding="utf-8")
    pdp("token", "mint", "--user", ANALYST)  # makes the key of the issuer
    pdp("audit", "key", "--name", "demo.example", "--out", "audit-key.pem")
    environment["PDP_AUDIT_TREE"] = json.dumps(
        {
            "name": "demo.example",
            "signers": [{"key_file": "audit-key.pem"}],
            "checkpoint_seconds": 5,
        }
    )
    # Before its first decision; and one change after the last.
    pdp(str((HOURS + 1) * 3600), "apply", "company.yaml", program=PAST)
    now = time.time()
    (directory / "later.yaml").write_text(later(made), encoding="utf-8")
    pdp("apply", "later.yaml", "--yes", "--reason", "OPS-12: credits need approval")
    write_history(directory / "audit", history(made, now, HOURS, DECISIONS), now)
    log = directory / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [*PDP, "serve"], cwd=directory, env=environment, stdout=stream, stderr=stream
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        wait_until_ready(http_port, server, log)
        print(f"A company with {len(made.document.users or ())} users and {DECISIONS} decisions.")
        print(f"Open this within five minutes; it signs in {ANALYST}, once:\n")
        print(f"  {pdp('console', 'login', '--user', ANALYST)}\n", flush=True)
        print(f"The console is http://127.0.0.1:{console_port}. Ctrl-C ends it.", flush=True)
        server.wait()
    except KeyboardInterrupt:
        print()
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    main()

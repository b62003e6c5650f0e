"""`python -m tests.protocols.h2spec H2SPEC`: HTTP/2 as RFC 9113 has it, on a real `pdp serve`.

Exits with 1 unless exactly the cases of h2spec_known_failures.txt fail.
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Set
from pathlib import Path

from tests.kit.server import running_server
from tests.protocols import known_failures

KNOWN = Path(__file__).with_name("h2spec_known_failures.txt")
CASE_SECONDS = 5
"""How long a case waits for the frame that it expects; a few cases wait all that time."""
RUN_SECONDS_MAX = 400


def main(h2spec: str) -> int:
    """Runs every case once."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        report = directory / "report.xml"
        with running_server(directory) as (server, _):
            subprocess.run(
                [
                    *(h2spec, "--strict", "--host", "127.0.0.1", "--port", str(server.port)),
                    *("--timeout", str(CASE_SECONDS), "--junit-report", str(report)),
                ],
                capture_output=True,
                timeout=RUN_SECONDS_MAX,
                check=False,
            )
            assert "Traceback" not in server.log()
        run, failed = results(report.read_text(encoding="utf-8"))
    known = known_failures.read(KNOWN)
    wrong = known_failures.differences(run, failed, known)
    sys.stdout.write("".join(f"h2spec {line}\n" for line in wrong))
    sys.stdout.write(f"h2spec: {len(run)} cases, {len(failed)} failed, {len(known)} known\n")
    return bool(wrong)


def results(report: str) -> tuple[Set[str], Set[str]]:
    """The cases that were run, and those of them that failed, as package/number."""
    run, failed = set(), set()
    for suite in ET.fromstring(report).iter("testsuite"):
        for number, case in enumerate(suite.iter("testcase"), 1):
            name = f"{suite.get('package')}/{number}"
            run.add(name)
            if len(case):
                failed.add(name)
    return run, failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

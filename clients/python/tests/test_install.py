"""A stranger installs the guard from a checkout with the commands at the top of its README."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from clients.python.tests.kit.answerer import Answerer
from clients.python.tests.kit.readme import COMMANDS, EXAMPLES

ROOT = Path(__file__).parents[3]
ASK = """
import pdp_client
print(edit_course("token", "c1"))
print(pdp_client.__file__)
"""


def test_the_commands_of_the_readme_install_a_guard_that_works(tmp_path: Path, answerer: Answerer):
    checkout = tmp_path / "checkout"
    unwanted = shutil.ignore_patterns("tests", "__pycache__")
    shutil.copytree(ROOT / "clients" / "python", checkout / "clients" / "python", ignore=unwanted)
    example = EXAMPLES[0].replace("127.0.0.1:50051", answerer.address)
    example = example.replace('")  #', '", deadline_seconds=10)  #')  # on a slow machine too
    (checkout / "ask.py").write_text(example + ASK)
    # The versions that are locked, so that this tests what is here and not what is new out there.
    locked = (ROOT / "requirements" / "runtime.txt").read_text()
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("\n".join(re.findall(r"^[^ #]+==[^ ;\\]+", locked, re.MULTILINE)))
    # The pip of the tests installs into it: to install another one takes as long as all the rest.
    commands = COMMANDS[0].replace("-m venv ", "-m venv --without-pip ")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PIP_PYTHON": str(checkout / "venv/bin/python"),
        "PIP_CONSTRAINT": str(constraints),
        "PIP_NO_COMPILE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    said = subprocess.run(
        ["sh", "-e"],
        input=f"{commands}\npython ask.py\n",
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    answered, module = said.stdout.splitlines()[-2:]
    assert answered == "(200, 'edited by user_1')"
    assert module.startswith(str(checkout / "venv"))

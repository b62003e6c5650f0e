"""`pdp audit` with trees, beside a real server; and the page for auditors, command by command."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, CheckItem
from pyarrow.parquet import read_table

from pdp.audit import Recorder, Shipper, SqlDestination
from pdp.audit.segments import list_segments
from pdp.audit.transparency import file_signer, new_key_file
from pdp.database.engine import open_engine
from pdp.facts import FlipCount, FlipGroup, ShadowCounts, ShadowStore
from pdp.model import Actor, ResourceRef
from tests.cli.running import Run
from tests.kit.audit.records import decision_record
from tests.kit.audit.trees import TOOL, audit, run_tool, sign_trees
from tests.kit.audit.witness import Witness, serving
from tests.kit.server import ServerProcess, stubs_on
from tests.kit.sqlite import make_sqlite
from tests.kit.waiting import run as execute

PAGE = Path(__file__).parents[2] / "docs" / "auditing.md"
ORIGIN = "pdp"


class Operator:
    """Runs a server with a tree over its log, and keeps what an auditor asks for."""

    def __init__(self, directory: Path, witness: Witness) -> None:
        self.directory = directory
        self.elsewhere = directory / "elsewhere"
        self.witness = witness
        settings = {
            "name": "pdp.example.com",
            "signers": [{"key_file": str(directory / "audit-key.pem")}],
            "files": [str(self.elsewhere)],
            "checkpoint_seconds": 1,
            "witnesses": [witness.settings.model_dump()],
        }
        self.server = ServerProcess(directory, {"AUDIT_TREE": settings})
        (directory / "key.txt").write_text(f"{witness.log_key}\n")
        (directory / "witness.txt").write_text(f"{witness.key}\n")
        self.ids: list[str] = []
        self.run: Run | None = None

    def pdp(self, *arguments: str, status: int = 0) -> str:
        """What `pdp audit ARGUMENTS` prints, with the settings of the server."""
        assert self.run is not None
        done = self.run("audit", *arguments)
        assert done.status == status, done
        return done.out

    def use(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Runs commands in the process of the test."""
        self.run = run
        monkeypatch.chdir(self.directory)
        for name, value in self.server.environment.items():
            if name.startswith("PDP_"):
                monkeypatch.setenv(name, value)

    def deny(self, count: int) -> None:
        """Runs the server while it denies some questions."""
        self.server.start()
        permissions = [f"course:edit{number}" for number in range(len(self.ids), 999)][:count]
        items = [CheckItem(permission=permission) for permission in permissions]
        with self.server.channel() as channel:
            request = BatchCheckRequest(actor_token="x", items=items)
            results = stubs_on(channel).decision.BatchCheck(request, timeout=10).results
        self.ids += [result.decision_id for result in results]
        assert self.server.stop() == 0

    def checkpoint(self) -> str:
        [path] = (self.directory / "audit").glob("*/tree/*/checkpoint")
        return path.read_text()


@pytest.fixture
def operator(started: Operator, run: Run, monkeypatch: pytest.MonkeyPatch) -> Operator:
    started.use(run, monkeypatch)
    return started


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    directory = tmp_path_factory.mktemp("operator")
    key = new_key_file("pdp.example.com", directory / "audit-key.pem")
    with serving(Witness(key, "pdp.example.com/")) as witness:
        operator = Operator(directory, witness)
        operator.deny(20)
        (operator.directory / "older.note").write_text(operator.checkpoint())
        operator.deny(30)
        yield operator


def test_a_server_signs_checkpoints_and_sends_them_away(operator: Operator) -> None:
    [path] = operator.elsewhere.iterdir()
    notes = [json.loads(line)["checkpoint"] for line in path.read_text().splitlines()]
    assert notes[-1] == operator.checkpoint()
    assert operator.checkpoint().split("\n")[1] == str(1 + 50)
    said = operator.pdp("verify", "audit", "--checkpoint", "older.note")
    assert "50 records (50 compared with the database), 0 dropped, 50 decisions" in said
    assert "50" in operator.pdp("account").splitlines()[-2]
    wrong = operator.directory / "wrong.note"
    wrong.write_text((operator.directory / "older.note").read_text().replace("/pdp", "/pdq"))
    operator.pdp("verify", "audit", "--checkpoint", "wrong.note", status=1)


def test_a_server_collects_cosignatures_and_a_verifier_may_demand_them(
    operator: Operator, tmp_path: Path
) -> None:
    said = operator.pdp("verify", "audit", "--cosignatures", "1")
    assert f"{operator.witness.name} cosigned size 51 at " in said
    operator.pdp("verify", "audit", "--cosignatures", "2", status=1)
    operator.pdp("verify", "--cosignatures", "1", status=2)
    operator.pdp("verify", str(tmp_path), "--cosignatures", "1", status=1)
    stranger = ("--witness", str(Witness(operator.witness.log_key).key))
    operator.pdp("verify", "audit", *stranger, "--cosignatures", "1", status=1)
    # A proof for the cosigned checkpoint needs nobody's word but the witness's.
    [cosigned] = (operator.directory / "audit").glob("*/tree/*/cosigned")
    proof = operator.pdp("prove", operator.ids[7], "audit", "--checkpoint", str(cosigned))
    (tmp_path / "proof").write_text(proof)
    arguments = ["record", "--key", "key.txt", str(tmp_path / "proof"), "--witness"]
    assert run_tool(*arguments, "witness.txt")[0] == 0
    assert run_tool(*arguments, stranger[1])[0] == 1


def test_every_step_of_the_page_for_auditors_works(operator: Operator, tmp_path: Path) -> None:
    shutil.copy(TOOL, tmp_path / "verify_log.py")
    for name in ("key.txt", "older.note"):
        shutil.copy(operator.directory / name, tmp_path / name)
    shutil.copytree(operator.directory / "audit", tmp_path / "evidence")
    proof = operator.pdp("prove", operator.ids[7], "audit")
    (tmp_path / "record.tlog-proof").write_text(proof)
    (tmp_path / "consistency.proof").write_text(operator.pdp("consistency", "older.note", "audit"))
    commands = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    [install, *steps] = commands
    assert install == "pip install cryptography\n"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    outputs = []
    for number, step in enumerate(steps, start=1):
        done = subprocess.run(
            ["bash", "-e", "-c", step],
            cwd=tmp_path,
            env={"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == (1 if number == len(steps) else 0), (step, done)
        outputs.append(done.stdout)
    verified, kept, consistent, record, failed = outputs
    assert "OK pdp.example.com/pdp/" in verified
    assert (tmp_path / "newer.note").read_text() == operator.checkpoint()
    assert kept == ""
    assert "size 51 continues size 21" in consistent
    assert operator.ids[7] in record
    assert "BAD " in failed
    assert "record 20 at byte" in failed  # the first of the newest segment


def test_a_copy_of_a_directory_in_use_verifies(operator: Operator, tmp_path: Path) -> None:
    page = PAGE.with_name("evidence.md").read_text()
    [copy] = re.findall(r"```sh\n(mkdir evidence\n.*?)```", page, re.DOTALL)
    shutil.copytree(operator.directory / "audit", tmp_path / "audit")
    # The process goes on before the last command.
    first, _, second = copy.rpartition(")\n")
    subprocess.run(["bash", "-e", "-c", first + ")"], cwd=tmp_path, check=True)
    signer = file_signer("pdp.example.com", operator.directory / "audit-key.pem")
    recorder = Recorder(tmp_path / "audit", ORIGIN)
    recorder.start()
    execute(recorder.record([decision_record() for _ in range(300)]))
    recorder.stop()
    assert sign_trees(tmp_path / "audit" / ORIGIN, [signer], name="pdp.example.com")
    subprocess.run(["bash", "-e", "-c", second], cwd=tmp_path, check=True)
    assert audit(tmp_path / "evidence", [signer.key]) == 0
    assert audit(tmp_path / "audit", [signer.key]) == 0


def test_old_records_are_archived_held_and_released(operator: Operator, tmp_path: Path) -> None:
    out = str(tmp_path / "archive")
    said = operator.pdp("archive", "audit", "--before", "1h", "--out", out)
    assert "0 records archived, 0 held back" in said
    operator.pdp("archive", "audit", "--before", "now", "--out", out, status=2)
    operator.pdp("hold", "case-7", "--permission", "course:edit3", "--since", "2026-01-01T00:00:00")
    assert "case-7" in operator.pdp("holds")
    assert "permission=course:edit3" in operator.pdp("holds")
    operator.pdp("hold", "case-7", "--user", "user_1", status=2)
    operator.pdp("hold", "case-8", status=2)
    operator.pdp("release", "case-7")
    operator.pdp("release", "case-7", status=2)
    assert operator.pdp("holds") == ""


def test_a_user_is_erased_and_the_rest_still_verifies(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("audit-key.pem", "key.txt"):
        shutil.copy(operator.directory / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    make_sqlite(tmp_path / "pdp.db")
    monkeypatch.setenv("PDP_DATABASE_URL", f"sqlite:///{tmp_path / 'pdp.db'}")
    log, out = tmp_path / "audit", tmp_path / "archive"
    recorder = Recorder(log, ORIGIN)
    recorder.start()
    record = decision_record(actor=Actor("user_gone", "sess_1"))
    course = decision_record(resource=ResourceRef("course", "user_gone"))
    execute(recorder.record([record, course]))
    recorder.stop()
    signer = file_signer("pdp.example.com", tmp_path / "audit-key.pem")
    assert sign_trees(log / ORIGIN, [signer], name="pdp.example.com")
    erase = ("erase", "--user", "user_gone", "--reason")
    operator.pdp(*erase, "", status=2)
    operator.pdp(*erase, "user_gone wants it", status=2)
    operator.pdp(*erase, "request 7", "audit", status=1)  # still in a segment
    engine = open_engine(f"sqlite:///{tmp_path / 'pdp.db'}")
    Shipper(log, SqlDestination(engine)).ship()
    shadow = ShadowStore(engine)
    example = {"user": "user_gone", "resource": None, "decided_at": record.decided_at}
    flips = [FlipCount(FlipGroup("course:edit", "allow", "", ""), 1, [example])]
    shadow.add(shadow.set("", 1.0, 0.0).id, ShadowCounts(1, 1), flips)
    operator.pdp("archive", "audit", "--before", "1h", "--out", str(out), "--keep", "--parquet")
    said = operator.pdp(*erase, "request 7", "audit", str(out))
    assert "2 records erased, of which 2 denials" in said  # in SQL and in the archive
    assert "1 examples of the shadow removed" in said
    assert "1 records name a resource course:user_gone, which is no user: they remain" in said
    assert "user_gone" not in str(shadow.report())
    engine.dispose()
    assert not list(out.rglob("*.parquet"))
    assert "1 of them were erased on request" in operator.pdp("verify", "audit")
    operator.pdp("archive", "audit", "--before", "1h", "--out", str(out), "--keep", "--parquet")
    [copy] = out.rglob("*.parquet")
    rows = read_table(copy).to_pylist()
    assert [row["erased_at"] is not None for row in rows].count(True) == 1
    assert [row["resource_id"] for row in rows if "user_gone" in str(row)] == ["user_gone"]
    assert {row["decision_id"] for row in rows} >= {record.decision_id}
    assert audit(out, [signer.key], complete=True) == 0
    (tmp_path / "proof").write_text(operator.pdp("prove", record.decision_id, "audit"))
    tool = [sys.executable, str(TOOL), "record", "--key", "key.txt", "proof"]
    done = subprocess.run(tool, capture_output=True, text=True, check=True)
    assert "its text was erased on request" in done.stdout


def test_what_is_not_in_the_log_is_not_proven(operator: Operator) -> None:
    operator.pdp("prove", "01990000-0000-7000-8000-000000000000", "audit", status=1)
    assert list_segments(operator.directory / "audit" / ORIGIN)
    proof = operator.pdp("prove", operator.ids[-1], "audit", "--no-database")
    assert proof.startswith("c2sp.org/tlog-proof@v1\n")


def test_a_key_file_is_for_its_owner_and_never_overwritten(operator: Operator) -> None:
    path = operator.directory / "audit-key.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    operator.pdp("key", "--name", "pdp.example.com", "--out", "audit-key.pem", status=2)
    operator.pdp("key", "--name", "two words", "--out", "other.pem", status=2)
    made = operator.pdp("key", "--name", "pdp.example.com", "--out", "other.pem")
    assert made.startswith("pdp.example.com+")
    assert path.read_bytes() == before


def test_a_command_signs_instead_of_a_file(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key_file("pdp.example.com", tmp_path / "audit-key.pem")
    operator = Operator(tmp_path, Witness(key, url="http://127.0.0.1:9/"))
    from cryptography.hazmat.primitives import serialization

    private = serialization.load_pem_private_key((tmp_path / "audit-key.pem").read_bytes(), None)
    (tmp_path / "public.pem").write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    script = (
        "import base64, sys; from cryptography.hazmat.primitives.serialization import *; "
        "key = load_pem_private_key(open('audit-key.pem', 'rb').read(), None); "
        "print(base64.b64encode(key.sign(sys.stdin.buffer.read())).decode())"
    )
    signer = {"command": [sys.executable, "-c", script], "public_key_file": "public.pem"}
    operator.server.environment["PDP_AUDIT_TREE"] = json.dumps(
        {"name": "pdp.example.com", "signers": [signer], "checkpoint_seconds": 1}
    )
    operator.deny(3)
    operator.use(run, monkeypatch)
    assert operator.pdp("verify", "audit", "--key", "key.txt")

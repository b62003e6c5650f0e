"""Agreement with an independent implementation: tlog and note of golang.org/x/mod."""

import base64
import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pdp.audit.transparency.entries import entry_of
from pdp.audit.transparency.merkle import consistency_proof, inclusion_proof, range_root
from pdp.audit.transparency.notes import (
    Checkpoint,
    VerifierKey,
    open_note,
    sign_note,
    signatures_of,
)
from pdp.audit.transparency.tiles import TileReader, TileWriter
from tests.kit import soak
from tests.kit.audit.trees import new_signer
from tests.kit.audit.witness import Witness

SOURCE = Path(__file__).parent / "oracle"


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("go") is None:
        if os.environ.get("CI"):
            pytest.fail("go is not installed")
        pytest.skip("go is not installed: the oracle of trees and notes does not run")
    program = tmp_path_factory.mktemp("oracle") / "oracle"
    subprocess.run(["go", "build", "-o", program, "."], cwd=SOURCE, check=True)
    return program


def ask(program: Path, *questions: dict[str, Any]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [program], input=json.dumps(questions), capture_output=True, text=True, check=True
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def encoded(hashes: list[bytes]) -> list[str]:
    return [base64.b64encode(node).decode() for node in hashes]


@pytest.mark.soak
def test_roots_and_proofs_are_those_of_the_independent_implementation(
    oracle: Path, tmp_path: Path
) -> None:
    random.seed(20)
    questions, expected = [], []
    sizes = [1, 2, 255, 256, 257, 65_537]
    sizes += [random.randint(1, 3_000) for _ in range(soak.count(200, sample=10))]
    for number, size in enumerate(sizes):
        directory = tmp_path / str(number)
        directory.mkdir()
        entries = [entry_of(b"R", str(index).encode()) for index in range(size)]
        tiles = TileWriter(directory)
        tiles.append(entries)
        tiles.sync()
        reader = TileReader(directory, size)
        index, old = random.randrange(size), random.randint(1, size)
        path = encoded(inclusion_proof(reader.fetch, index, size))
        tail = encoded(consistency_proof(reader.fetch, old, size))
        [root, old_root] = encoded([tiles.root(), range_root(reader.fetch, 0, old)])
        record = base64.b64encode(entries[index]).decode()
        proofs = {"Path": path, "Tail": tail, "Root": root, "OldRoot": old_root}
        place = {"Tree": str(directory), "Size": size, "Index": index, "Old": old}
        questions += [{**place, **proofs, "Record": record}]
        expected += [(root, old_root, path, tail)]
    for answer, (root, old_root, path, tail) in zip(ask(oracle, *questions), expected, strict=True):
        assert answer["Problem"] == ""
        assert (answer["Root"], answer["OldRoot"]) == (root, old_root)
        assert (answer["Inclusion"] or [], answer["Consistency"] or []) == (path, tail)
        assert answer["Verified"]


def test_the_independent_implementation_refuses_a_wrong_proof(oracle: Path, tmp_path: Path) -> None:
    entries = [entry_of(b"R", str(index).encode()) for index in range(9)]
    tiles = TileWriter(tmp_path)
    tiles.append(entries)
    tiles.sync()
    reader = TileReader(tmp_path, 9)
    path = encoded(inclusion_proof(reader.fetch, 3, 9))
    [root] = encoded([tiles.root()])
    record = base64.b64encode(entries[4]).decode()
    place = {"Tree": str(tmp_path), "Size": 9, "Index": 3, "Old": 9, "Tail": []}
    [answer] = ask(oracle, {**place, "Path": path, "Root": root, "OldRoot": root, "Record": record})
    assert not answer["Verified"]


def test_notes_hold_in_both_directions(oracle: Path, tmp_path: Path) -> None:
    signer = new_signer(tmp_path)
    text = Checkpoint("pdp.example/one/000001-00000000", 5, bytes(32)).text()
    note = sign_note(text, [signer])
    private = signer.sign.__self__.private_bytes_raw()
    name = f"{signer.key.name}+{signer.key.id.hex()}"
    secret = f"PRIVATE+KEY+{name}+{base64.b64encode(bytes([1]) + private).decode()}"
    opened, refused, signed = ask(
        oracle,
        {"Key": str(signer.key), "Note": note},
        {"Key": str(signer.key), "Note": note.replace("\n5\n", "\n6\n")},
        {"PrivateKey": secret, "Text": text},
    )
    assert opened == {**opened, "Problem": "", "Text": text}
    assert refused["Problem"]
    assert signed["Signed"] == note
    assert open_note(signed["Signed"], [VerifierKey.parse(str(signer.key))]) == text


def test_a_cosigned_note_holds_for_the_independent_implementation(
    oracle: Path, tmp_path: Path
) -> None:
    signer = new_signer(tmp_path)
    witness = Witness(signer.key)
    text = Checkpoint("pdp.example/one/000001-00000000", 5, bytes(32)).text()
    note = sign_note(text, [signer])
    status, _, line = witness.answer(f"old 0\n\n{note}")
    assert status == 200
    cosigned = note + line.decode()
    held, missing, wrong = ask(
        oracle,
        *(
            {"Key": str(signer.key), "Note": one, "Witness": str(witness.key)}
            for one in (cosigned, note, note + witness.cosign(f"{text}more\n").decode())
        ),
    )
    assert held == {**held, "Problem": "", "Text": text}
    assert missing["Problem"]
    assert wrong["Problem"]
    _, signatures = signatures_of(cosigned, [signer.key, witness.key])
    assert set(signatures) == {signer.key, witness.key}

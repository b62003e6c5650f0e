"""`pdp audit verify` on trees: each changed file is found."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.audit.transparency.notes import Signer
from pdp.audit.transparency.tiles import DamagedTreeError
from pdp.audit.transparency.trees import StoredTree, read_tree
from pdp.audit.transparency.verification import verify_tree
from tests.kit.audit.logs import ORIGIN, write_log
from tests.kit.audit.trees import new_signer, only_tree, sign_trees


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return new_signer(tmp_path / "keys")


@pytest.fixture
def tree(tmp_path: Path, signer: Signer) -> StoredTree:
    write_log(tmp_path / "audit", 600)
    sign_trees(tmp_path / "audit" / ORIGIN, [signer])
    return only_tree(tmp_path / "audit" / ORIGIN)


def test_an_intact_tree_has_no_problem(tree: StoredTree, signer: Signer) -> None:
    report = verify_tree(tree, [signer.key], [tree.checkpoint])
    assert (report.problems, report.entries, report.decisions) == ([], 601, 600)


def test_a_flipped_bit_in_any_tile_is_found(
    tree: StoredTree, signer: Signer, tmp_path: Path
) -> None:
    files = [path for path in (tree.directory / "tile").rglob("*") if path.is_file()]
    assert len(files) == 3 + 3 + 1
    for path in files:
        for at in (0, path.stat().st_size // 2, path.stat().st_size - 1):
            copy = tmp_path / "copy"
            shutil.copytree(tree.directory, copy)
            changed = copy / path.relative_to(tree.directory)
            content = bytearray(changed.read_bytes())
            content[at] ^= 1
            changed.write_bytes(content)
            try:
                problems = verify_tree(read_tree(copy), [signer.key]).problems
            except DamagedTreeError as error:
                problems = [str(error)]
            assert problems, (path, at)
            shutil.rmtree(copy)


def test_a_checkpoint_of_another_key_is_found(tree: StoredTree, tmp_path: Path) -> None:
    other = new_signer(tmp_path / "other")
    assert verify_tree(tree, [other.key]).problems == ["no trusted key has signed the note"]


def test_a_tree_that_does_not_continue_an_older_checkpoint_is_found(
    tree: StoredTree, signer: Signer, tmp_path: Path
) -> None:
    for older in (
        replace(tree.checkpoint, size=300),
        replace(tree.checkpoint, size=900),
        replace(tree.checkpoint, root=bytes(32)),
    ):
        [problem] = verify_tree(tree, [signer.key], [older]).problems
        assert problem == f"it does not continue the checkpoint of size {older.size}"
    elsewhere = replace(tree.checkpoint, origin="another", size=900)
    assert verify_tree(tree, [signer.key], [elsewhere]).problems == []

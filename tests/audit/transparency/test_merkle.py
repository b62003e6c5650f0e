"""Trees of RFC 6962: proofs of both implementations against a tree that is computed naively."""

import random
from collections.abc import Sequence

import pytest

from pdp.audit.transparency.merkle import (
    ProofError,
    check_consistency,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    perfect_root,
    range_root,
    root_of_inclusion,
)
from tests.kit import soak
from tests.kit.audit.trees import load_tool, naive_root


def leaves_of(size: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(size)]


def test_the_test_vectors_of_certificate_transparency_hold() -> None:
    # Source: the reference data of RFC 6962's first implementation.
    entries = ["", "00", "10", "2021", "3031", "40414243"]
    leaves = [leaf_hash(bytes.fromhex(entry)) for entry in entries]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    }
    for size, root in roots.items():
        assert naive_root(leaves[:size]).hex() == root


@pytest.mark.soak
def test_every_proof_leads_to_the_root_and_no_other_proof_does() -> None:
    random.seed(6962)
    tool = load_tool()
    for size in range(1, soak.count(300, sample=66)):
        leaves = leaves_of(size)

        def fetch(level: int, index: int, leaves: list[bytes] = leaves) -> bytes:
            return perfect_root(leaves[index << level : (index + 1) << level])

        root = range_root(fetch, 0, size)
        assert root == naive_root(leaves)
        index = random.randrange(size)
        path = inclusion_proof(fetch, index, size)
        assert root_of_inclusion(leaves[index], index, size, path) == root
        assert tool.root_of_inclusion(leaves[index], index, size, path) == root
        for wrong in wrong_paths(path):
            with pytest.raises((ProofError, AssertionError)):
                assert root_of_inclusion(leaves[index], index, size, wrong) == root
            with pytest.raises((tool.Refused, AssertionError)):
                assert tool.root_of_inclusion(leaves[index], index, size, wrong) == root
        old = random.randint(1, size)
        old_root, path = naive_root(leaves[:old]), consistency_proof(fetch, old, size)
        check_consistency(old, old_root, size, root, path)
        before, after = tool.Checkpoint("o", old, old_root), tool.Checkpoint("o", size, root)
        tool.check_consistency(before, after, path)
        for wrong in wrong_paths(path):
            with pytest.raises(ProofError):
                check_consistency(old, old_root, size, root, wrong)
            with pytest.raises(tool.Refused):
                tool.check_consistency(before, after, wrong)


def test_a_checkpoint_of_another_history_is_not_continued() -> None:
    leaves = leaves_of(9)
    changed = [*leaves[:3], leaf_hash(b"another"), *leaves[4:]]

    def fetch(level: int, index: int) -> bytes:
        return perfect_root(changed[index << level : (index + 1) << level])

    for old in range(4, 10):
        path = consistency_proof(fetch, old, 9)
        with pytest.raises(ProofError):
            check_consistency(old, naive_root(leaves[:old]), 9, naive_root(changed), path)


def wrong_paths(path: Sequence[bytes]) -> list[list[bytes]]:
    another = leaf_hash(b"another")
    wrong = [[*path, another]]
    if path:
        wrong += [list(path[:-1]), [another, *path[1:]], [*path[:-1], another]]
    return wrong

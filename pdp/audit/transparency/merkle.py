"""Merkle trees of RFC 6962, section 2.1, with SHA-256. Pure: hashes come from a function.

A tree is read through `Fetch`: the hash of the perfect subtree at (level, index), which covers the
leaves from `index << level` to before `(index + 1) << level`.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256().digest()

Fetch = Callable[[int, int], bytes]


class ProofError(ValueError):
    """A proof does not lead to the root."""


def leaf_hash(entry: bytes) -> bytes:
    """Returns the hash of a leaf."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Returns the hash of an inner node."""
    return sha256(b"\1" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """Returns the root over hashes of one level; their number is a power of two."""
    level = list(hashes)
    while len(level) > 1:
        level = [
            sha256(b"\1" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=True)
        ]
    return level[0]


def range_root(fetch: Fetch, first: int, end: int) -> bytes:
    """Returns the hash of the leaves from `first` to before `end`, a subtree of a tree.

    Args:
        fetch: Reads the tree.
        first: A multiple of the largest power of two that is less than the number of leaves.
        end: At most the size of the tree.
    """
    size = end - first
    if size == 0:
        return EMPTY_ROOT
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return fetch(level, first >> level)
    middle = first + _split(size)
    return node_hash(range_root(fetch, first, middle), range_root(fetch, middle, end))


def inclusion_proof(fetch: Fetch, index: int, size: int) -> list[bytes]:
    """Returns the audit path of a leaf in the tree of the first `size` leaves."""
    first, end, path = 0, size, []
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            path.append(range_root(fetch, middle, end))
            end = middle
        else:
            path.append(range_root(fetch, first, middle))
            first = middle
    return path[::-1]


def consistency_proof(fetch: Fetch, old: int, new: int) -> list[bytes]:
    """Returns the proof that the tree of `old` leaves is a prefix of the tree of `new` leaves."""
    if old in {0, new}:
        return []
    first, end, path, is_whole = 0, new, [], True
    while old != end:
        middle = first + _split(end - first)
        if old <= middle:
            path.append(range_root(fetch, middle, end))
            end = middle
        else:
            path.append(range_root(fetch, first, middle))
            first, is_whole = middle, False
    if not is_whole:
        path.append(range_root(fetch, first, end))
    return path[::-1]


def root_of_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Returns the root that a path leads to (RFC 9162, 2.1.3.2). Raises ProofError."""
    if not 0 <= index < size:
        raise ProofError("the index is not in the tree")
    root = leaf
    for sibling, is_left in _directed(index, size - 1, path):
        root = node_hash(sibling, root) if is_left else node_hash(root, sibling)
    return root


def check_consistency(
    old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]
) -> None:
    """Checks a consistency proof (RFC 9162, 2.1.4.2). Raises ProofError."""
    if not 0 <= old <= new:
        raise ProofError("the older tree is larger")
    if old in {0, new}:
        if path or (old == new and old_root != new_root) or (old == 0 and old_root != EMPTY_ROOT):
            raise ProofError("the roots differ")
        return
    rest = list(path)
    if old & (old - 1) == 0:
        rest.insert(0, old_root)
    if not rest:
        raise ProofError("the proof is too short")
    skipped = (old ^ (old - 1)).bit_length() - 1  # the trailing ones of old - 1
    before = after = rest[0]
    for sibling, is_left in _directed((old - 1) >> skipped, (new - 1) >> skipped, rest[1:]):
        if is_left:
            before = node_hash(sibling, before)
            after = node_hash(sibling, after)
        else:
            after = node_hash(after, sibling)
    if before != old_root or after != new_root:
        raise ProofError("the newer tree does not continue the older one")


def _directed(node: int, last: int, path: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yields each hash of a proof, and whether it is the left sibling. Raises ProofError."""
    for sibling in path:
        if last == 0:
            raise ProofError("the proof is too long")
        is_left = bool(node & 1) or node == last
        if is_left:
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        yield sibling, is_left
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ProofError("the proof is too short")


def _split(size: int) -> int:
    """Returns the largest power of two that is less than `size`."""
    return 1 << (size - 1).bit_length() - 1

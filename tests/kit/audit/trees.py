"""Logs with trees, for tests."""

import importlib.util
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

from pdp.audit.transparency import VerifierKey, file_signer, new_key_file
from pdp.audit.transparency.merkle import EMPTY_ROOT, node_hash
from pdp.audit.transparency.notes import Signer
from pdp.audit.transparency.trees import OriginTrees, StoredTree, stored_trees

NAME = "pdp.example"
TOOL = Path(__file__).parents[3] / "tools" / "verify_log.py"


def load_tool() -> ModuleType:
    """The stand-alone file of auditors, as a module."""
    if "verify_log" not in sys.modules:
        spec = importlib.util.spec_from_file_location("verify_log", TOOL)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["verify_log"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["verify_log"])
    return sys.modules["verify_log"]


def run_tool(*arguments: str) -> tuple[int, str]:
    """Runs the file of auditors; its exit status, and what it prints."""
    with redirect_stdout(io.StringIO()) as output:
        status: int = load_tool().main(arguments)
    return status, output.getvalue()


def new_signer(directory: Path, name: str = NAME, file: str = "key.pem") -> Signer:
    """A signer with a new key in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    new_key_file(name, directory / file)
    return file_signer(name, directory / file)


def sign_trees(
    origin: Path, signers: Sequence[Signer], published: Sequence[str] = (), name: str = NAME
) -> list[str]:
    """Extends the trees of an origin to the end of its segments; the new checkpoints."""
    trees = OriginTrees(origin, name, signers, lambda _: published)
    try:
        trees.extend()
        return [note for _, note in trees.checkpoint()]
    finally:
        trees.close()


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """The definition of RFC 6962, 2.1."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else EMPTY_ROOT
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    return node_hash(naive_root(leaves[:split]), naive_root(leaves[split:]))


def only_tree(origin: Path) -> StoredTree:
    [tree] = stored_trees(origin)
    return tree


def audit(
    directory: Path, keys: Sequence[VerifierKey], *checkpoints: Path, complete: bool = False
) -> int:
    """The exit status of `verify_log.py directory`, which prints."""
    arguments = ["directory", *(["--complete"] if complete else [])]
    arguments += [part for key in keys for part in ("--key", str(key))]
    arguments += [part for path in checkpoints for part in ("--checkpoint", str(path))]
    status: int = load_tool().main([*arguments, str(directory)])
    return status

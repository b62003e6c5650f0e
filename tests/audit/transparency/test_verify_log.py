"""The stand-alone file of auditors: it needs nothing of the package, and no attack fools it."""

import base64
import gzip
import json
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from pdp.audit.segments import list_segments
from pdp.audit.transparency.notes import Checkpoint, Signer, sign_note
from pdp.audit.transparency.tiles import TileWriter
from tests.kit.audit.logs import ORIGIN, write_log
from tests.kit.audit.trees import (
    TOOL,
    audit,
    load_tool,
    new_signer,
    only_tree,
    run_tool,
    sign_trees,
)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return new_signer(tmp_path / "keys")


@pytest.fixture
def log(tmp_path: Path, signer: Signer) -> Path:
    write_log(tmp_path / "audit", 30)
    sign_trees(tmp_path / "audit" / ORIGIN, [signer])
    return tmp_path / "audit"


def tree_of(log: Path) -> Path:
    return only_tree(log / ORIGIN).directory


def put_archive(tree: Path, signer: Signer, content: bytes, name: str = "1-31.jsonl.gz") -> Path:
    """An archived file with a note that describes it."""
    path = tree / "records" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    first, _, end = name.removesuffix(".jsonl.gz").partition("-")
    origin = (tree / "checkpoint").read_text().partition("\n")[0]
    digest = sha256(content).hexdigest()
    text = f"pdp-audit-archive/v1\n{origin}\n{first} {end}\n{digest}\n"
    path.with_name(path.name + ".note").write_text(sign_note(text, [signer]))
    return path


def test_it_runs_without_the_package_and_names_its_exit_status(log: Path, signer: Signer) -> None:
    def verify(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            # -I: neither the working directory nor PYTHONPATH leads to the package.
            [sys.executable, "-I", TOOL, "directory", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    key = str(signer.key)
    done = verify("--key", key, str(log))
    assert (done.returncode, done.stderr) == (0, "")
    assert "30 records (30 with their text here), 30 decisions" in done.stdout
    assert verify("--key", key, str(log / "nothing")).returncode == 2
    assert verify("--key", key, str(log.parent / "keys")).returncode == 2
    assert verify("--key", "nonsense+", str(log)).returncode == 1
    source = TOOL.read_text()
    assert "import pdp" not in source
    assert "from pdp" not in source


def test_edits_before_the_first_checkpoint_are_beyond_any_proof(
    tmp_path: Path, signer: Signer
) -> None:
    # What no checkpoint covers, nobody can prove: the documentation says so.
    write_log(tmp_path / "audit", 10)
    origin = tmp_path / "audit" / ORIGIN
    whole = list_segments(origin)[0][1].read_bytes()
    sign_trees(origin, [signer])
    first = only_tree(origin)
    shutil.rmtree(origin)
    write_log(tmp_path / "audit", 9)
    sign_trees(origin, [signer])
    assert whole
    assert audit(tmp_path / "audit", [signer.key]) == 0
    # But the first checkpoint is enough.
    (tmp_path / "first.note").write_text(first.note)
    assert audit(tmp_path / "audit", [signer.key], tmp_path / "first.note") == 1


def test_a_split_view_is_found_from_either_side(
    log: Path, signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(log, tmp_path / "other")
    for view in ("audit", "other"):
        write_log(tmp_path / view, 5)
        [note] = sign_trees(tmp_path / view / ORIGIN, [signer])
        (tmp_path / f"{view}.note").write_text(note)
    for view, seen in (("audit", "other"), ("other", "audit")):
        assert audit(tmp_path / view, [signer.key]) == 0
        assert audit(tmp_path / view, [signer.key], tmp_path / f"{view}.note") == 0
        assert audit(tmp_path / view, [signer.key], tmp_path / f"{seen}.note") == 1
    assert "does not continue the older checkpoint of size 36" in capsys.readouterr().out


def test_a_checkpoint_of_the_same_size_that_was_signed_again_is_found(
    log: Path, signer: Signer, tmp_path: Path
) -> None:
    tree = only_tree(log / ORIGIN)
    again = Checkpoint(tree.checkpoint.origin, tree.checkpoint.size, bytes(32))
    mine = tmp_path / "mine.note"
    mine.write_text(sign_note(again.text(), [signer]))
    assert audit(log, [signer.key], mine) == 1
    tool = load_tool()
    (tmp_path / "proof").write_text(f"old {again.size}\n\n{tree.note}")
    arguments = ["consistency", "--key", str(signer.key), str(mine), str(tmp_path / "proof")]
    assert tool.main(arguments) == 1


def test_the_tree_of_an_older_checkpoint_must_be_there(
    log: Path, signer: Signer, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.note"
    mine.write_text(only_tree(log / ORIGIN).note)
    shutil.rmtree(tree_of(log))
    assert audit(log, [signer.key]) == 2
    assert audit(log, [signer.key], mine) == 1
    write_log(log, 1)
    sign_trees(log / ORIGIN, [signer])
    assert audit(log, [signer.key]) == 0
    assert audit(log, [signer.key], mine) == 1


def test_two_trees_of_one_origin_are_refused(log: Path, signer: Signer) -> None:
    tree = tree_of(log)
    shutil.copytree(tree, tree.with_name("000009-00000000"))
    assert audit(log, [signer.key]) == 1


@pytest.mark.parametrize(
    "name",
    ["..%2f1-31.jsonl.gz", "1-31.jsonl.gz.new", "-1-31.jsonl.gz", "1-31.jsonl", "31-1.jsonl.gz",
     "1-999999.jsonl.gz", "0001-31.jsonl.gz\n", ".hidden"],
)  # fmt: skip
def test_a_name_that_is_none_of_an_archive_is_refused(log: Path, signer: Signer, name: str) -> None:
    path = put_archive(tree_of(log), signer, gzip.compress(b""))
    path.rename(path.with_name(name))
    path.with_name(path.name + ".note").rename(path.with_name(name + ".note"))
    assert audit(log, [signer.key]) == 1


def test_a_symbolic_link_does_not_lead_out_of_the_directory(
    log: Path, signer: Signer, tmp_path: Path
) -> None:
    tree = tree_of(log)
    outside = tmp_path / "outside"
    for path in (tree / "tile/0/000.p/31", tree / "tile/entries/000.p/31"):
        shutil.copy(path, outside)
        path.unlink()
        path.symlink_to(outside)
        assert audit(log, [signer.key]) == 1
        path.unlink()
        shutil.copy(outside, path)
    path = put_archive(tree, signer, gzip.compress(b""))
    path.rename(outside)
    path.symlink_to(outside)
    assert audit(log, [signer.key]) == 1
    shutil.rmtree(tree / "records")
    assert audit(log, [signer.key]) == 0
    (log / "loop").symlink_to(log)
    assert audit(log, [signer.key]) == 0


def test_a_decompression_bomb_is_read_in_small_parts_and_refused(
    log: Path, signer: Signer, tmp_path: Path
) -> None:
    # 1 GiB of one line, then 100 million lines: with the key, so that the digest holds.
    import resource

    zeros = gzip.compress(bytes(1 << 26), 9)
    for bomb in (zeros * 16, gzip.compress(b"\n" * (1 << 26), 9) * 2):
        put_archive(tree_of(log), signer, bomb)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert audit(log, [signer.key]) == 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_a_file_that_is_no_gzip_or_is_cut_off_is_refused(log: Path, signer: Signer) -> None:
    whole = gzip.compress(b"{}\n" * 30)
    for content in (b"", b"text", whole[:-9], whole[:20], whole + b"more"):
        put_archive(tree_of(log), signer, content)
        assert audit(log, [signer.key]) == 1


def test_a_file_of_checkpoints_with_a_huge_or_malformed_line_is_refused(
    log: Path, signer: Signer, tmp_path: Path
) -> None:
    note = only_tree(log / ORIGIN).note
    mine = tmp_path / "mine.jsonl"
    line = json.dumps({"checkpoint": note})
    mine.write_text(f"{line}\n{line}\n")
    assert audit(log, [signer.key], mine) == 0
    unsigned = json.dumps({"checkpoint": note.replace("\n31\n", "\n30\n")})
    for wrong in ("{}", "[]", '{"checkpoint": 1}', '{"checkpoint": "x"}', unsigned):
        mine.write_text(f"{line}\n{wrong}\n")
        assert audit(log, [signer.key], mine) == 1
    # What a crash has cut off is skipped, and what is before and after it is checked.
    nested = '{"checkpoint":' + "[" * 30_000
    for cut in ("{", line[:-9], f"{line}{line}", nested, f'{{"checkpoint": "{"x" * (1 << 20)}"}}'):
        mine.write_text(f"{line}\n{cut}\n{line}\n")
        assert audit(log, [signer.key], mine) == 0
        mine.write_text(f"{line}\n{cut}\n{unsigned}\n")
        assert audit(log, [signer.key], mine) == 1
    # Nothing is left to compare with.
    mine.write_text(line[:-9])
    assert audit(log, [signer.key], mine) == 2
    status, output = run_tool("consistency", "--key", str(signer.key), str(mine), str(mine))
    assert (status, "holds no checkpoint" in output) == (2, True)


def test_a_record_whose_json_is_deeply_nested_is_reported_and_not_followed(
    log: Path, signer: Signer
) -> None:
    put_archive(tree_of(log), signer, gzip.compress(b"[" * 500_000 + b"\n"))
    assert audit(log, [signer.key]) == 1


def test_a_signed_tree_of_malformed_entries_is_refused(tmp_path: Path, signer: Signer) -> None:
    genesis = b'S{"origin":"o","log_id":"l","why":"w","previous":null,"first_position":0}'
    for number, entries in enumerate(
        (
            [b"R" + bytes(32)],
            [genesis, b"R"],
            [genesis, b""],
            [genesis, b'G{"dropped":"many"}'],
            [genesis, b"G" + b"[" * 60_000],
            [genesis, genesis],
            [b"S{}"],
        )
    ):
        directory = tmp_path / str(number) / "tree"
        directory.mkdir(parents=True)
        tiles = TileWriter(directory)
        tiles.append(entries)
        tiles.sync()
        checkpoint = Checkpoint(f"o/{number}", tiles.size, tiles.root())
        (directory / "checkpoint").write_text(sign_note(checkpoint.text(), [signer]))
        assert audit(tmp_path / str(number), [signer.key]) == 1


def test_what_a_log_says_cannot_write_to_the_terminal(
    tmp_path: Path, signer: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = load_tool()
    tool.say("\x1b[2Jred\u202e\n")
    assert capsys.readouterr().out == "\\x1b[2Jred\\u202e\\n\n"


def test_a_key_of_another_kind_is_refused(log: Path, signer: Signer) -> None:
    content = b"\x04" + signer.key.public
    key_id = sha256(signer.key.name.encode() + b"\n" + content).digest()[:4].hex()
    witness = f"{signer.key.name}+{key_id}+{base64.b64encode(content).decode()}"
    arguments = ["directory", "--key", witness, str(log)]
    assert load_tool().main(arguments) == 1

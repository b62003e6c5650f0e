"""Trees over segments: what they cover, how they continue, and when another one begins."""

import shutil
from pathlib import Path

import pytest

from pdp.audit import Recorder, encode
from pdp.audit.segments import KIND_GAP, KIND_RECORD, list_segments
from pdp.audit.transparency import DamagedTreeError
from pdp.audit.transparency.entries import KIND_DAMAGED, KIND_GENESIS, entry_of, parse_genesis
from pdp.audit.transparency.merkle import leaf_hash, range_root
from pdp.audit.transparency.notes import (
    Checkpoint,
    Signer,
    open_checkpoint,
    sign_note,
    unverified_checkpoint,
)
from pdp.audit.transparency.tiles import TileReader, TileWriter, tile_path
from pdp.audit.transparency.trees import OriginTrees, StoredTree, read_tree, stored_trees
from tests.kit.audit.logs import ORIGIN, frames_of, write_log
from tests.kit.audit.records import decision_record
from tests.kit.audit.trees import NAME, audit, naive_root, new_signer, only_tree, sign_trees
from tests.kit.waiting import run


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return new_signer(tmp_path / "keys")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def entries_of(tree: StoredTree) -> list[bytes]:
    reader = TileReader(tree.directory, tree.checkpoint.size)
    return [reader.entry(index) for index in range(tree.checkpoint.size)]


def test_a_tree_holds_an_entry_for_each_frame_of_the_log(log: Path, signer: Signer) -> None:
    write_log(log, 300, 5, segment_bytes=40_000)
    [note] = sign_trees(log / ORIGIN, [signer])
    tree = only_tree(log / ORIGIN)
    entries = entries_of(tree)
    frames = frames_of(log / ORIGIN)
    assert entries[0][:1] == KIND_GENESIS
    assert entries[1:] == [entry_of(frame.kind, frame.payload) for frame in frames]
    checkpoint = open_checkpoint(note, [signer.key])
    assert checkpoint.size == len(frames) + 1
    assert checkpoint.root == naive_root([leaf_hash(entry) for entry in entries])
    assert checkpoint.origin == f"{NAME}/{ORIGIN}/{tree.directory.name}"
    assert audit(log, [signer.key], complete=True) == 0


@pytest.mark.parametrize("batches", [(1, 254, 1), (255,), (256, 256), (100, 500, 70)])
def test_a_tree_grows_from_checkpoint_to_checkpoint_as_at_once(
    log: Path, signer: Signer, batches: tuple[int, ...]
) -> None:
    for number, size in enumerate(batches, start=1):
        write_log(log, size)
        [note] = sign_trees(log / ORIGIN, [signer])
        (log / f"{number}.note").write_text(note)
    tree = only_tree(log / ORIGIN)
    leaves = [leaf_hash(entry) for entry in entries_of(tree)]
    assert tree.checkpoint.root == naive_root(leaves)
    for path in log.glob("*.note"):
        old = unverified_checkpoint(path.read_text())
        assert old.root == naive_root(leaves[: old.size])
        assert audit(log, [signer.key], path) == 0


def test_three_levels_of_tiles_hold_what_a_naive_tree_holds(tmp_path: Path) -> None:
    entries = [b"R" + number.to_bytes(32, "big") for number in range(66_000)]
    leaves = [leaf_hash(entry) for entry in entries]
    tiles = TileWriter(tmp_path)
    for first in range(0, len(entries), 9_000):
        tiles.append(entries[first : first + 9_000])
        tiles.sync()
        tiles.remove_outdated()
        tiles = TileWriter(tmp_path, tiles.size)
    reader = TileReader(tmp_path, tiles.size)
    assert tiles.root() == range_root(reader.fetch, 0, tiles.size) == naive_root(leaves)
    assert tile_path(tmp_path, "2", 0, 1).is_file()
    assert tile_path(tmp_path, "entries", 1, 256) == tmp_path / "tile/entries/001"
    assert tile_path(tmp_path, "0", 1_234_067, 7) == tmp_path / "tile/0/x001/x234/067.p/7"


def test_a_tile_that_a_checkpoint_covers_is_not_written_again(tmp_path: Path) -> None:
    """A reader, or a crash, could find it cut off."""
    writer = TileWriter(tmp_path)
    writer.append(b"%d" % number for number in range(300))
    writer.sync()
    above = tile_path(tmp_path, "1", 0, 1)
    written = above.stat()
    writer.append([b"more"])
    writer.sync()
    assert (above.stat().st_mtime_ns, TileReader(tmp_path, 301).tile(1, 0)) == (
        written.st_mtime_ns,
        [TileReader(tmp_path, 300).fetch(8, 0)],
    )
    # What a crash has left of a tile is replaced.
    above.write_bytes(b"")
    writer.append([b"more"])
    writer.sync()
    assert len(above.read_bytes()) == 32


def test_counts_of_equal_denials_and_gaps_are_part_of_their_entries(
    log: Path, signer: Signer
) -> None:
    recorder = Recorder(log, ORIGIN)
    recorder.start()
    for _ in range(3):
        run(recorder.record([decision_record(token_id="equal")]))
    recorder.stop()
    sign_trees(log / ORIGIN, [signer])
    entries = entries_of(only_tree(log / ORIGIN))
    assert [entry[:1] for entry in entries] == [KIND_GENESIS, KIND_RECORD, KIND_GAP, KIND_GAP]
    assert b'"count":3' in entries[-1]


def test_another_log_in_the_directory_has_another_tree_that_names_the_first(
    log: Path, signer: Signer
) -> None:
    write_log(log, 3)
    [first] = sign_trees(log / ORIGIN, [signer])
    for _, path in list_segments(log / ORIGIN):
        path.unlink()
    write_log(log, 4)
    sign_trees(log / ORIGIN, [signer])
    _, second = stored_trees(log / ORIGIN)
    assert second.genesis.previous == first
    assert second.genesis.why == "another log"
    assert audit(log, [signer.key]) == 0


def test_frames_that_no_tree_has_read_begin_another_tree(log: Path, signer: Signer) -> None:
    write_log(log, 3)
    [first] = sign_trees(log / ORIGIN, [signer])
    write_log(log, 40, 40, 40, segment_bytes=2_000)
    list_segments(log / ORIGIN)[1][1].unlink()
    sign_trees(log / ORIGIN, [signer])
    _, second = stored_trees(log / ORIGIN)
    assert (second.genesis.why, second.genesis.first_position) == ("frames are missing", 43)
    assert second.genesis.previous is not None
    previous = unverified_checkpoint(second.genesis.previous)
    assert previous.origin == unverified_checkpoint(first).origin


def test_a_directory_from_a_backup_is_continued_in_a_tree_that_names_the_published_checkpoint(
    log: Path, signer: Signer
) -> None:
    write_log(log, 5)
    sign_trees(log / ORIGIN, [signer])
    shutil.copytree(log, log.with_name("backup"))
    write_log(log, 5)
    [published] = sign_trees(log / ORIGIN, [signer])
    shutil.rmtree(log)
    shutil.copytree(log.with_name("backup"), log)
    write_log(log, 7)
    sign_trees(log / ORIGIN, [signer], [published])
    restored, second = stored_trees(log / ORIGIN)
    assert restored.checkpoint.size == 6
    assert (second.genesis.why, second.genesis.previous) == ("restored directory", published)
    assert second.checkpoint.size == 1 + 7
    write_log(log, 1)
    [newest] = sign_trees(log / ORIGIN, [signer], [second.note])
    assert unverified_checkpoint(newest).origin == second.checkpoint.origin


def test_a_tree_that_somebody_else_has_written_is_not_continued(
    log: Path, signer: Signer, tmp_path: Path
) -> None:
    # An intruder without the key makes a tree that holds in itself, while the process is down.
    write_log(log, 5)
    attacker = new_signer(tmp_path / "attacker")
    [forged] = sign_trees(log / ORIGIN, [attacker])
    write_log(log, 2)
    sign_trees(log / ORIGIN, [signer])
    _, own = stored_trees(log / ORIGIN)
    assert own.genesis.why == "checkpoint without a trusted signature"
    assert own.genesis.previous == forged
    assert own.checkpoint.size == 1 + 7
    write_log(log, 1)
    [newest] = sign_trees(log / ORIGIN, [signer])
    assert unverified_checkpoint(newest).origin == own.checkpoint.origin


def test_a_forged_tree_beside_the_own_one_is_ignored(
    log: Path, signer: Signer, tmp_path: Path
) -> None:
    write_log(log, 5)
    sign_trees(log / ORIGIN, [signer])
    own = only_tree(log / ORIGIN)
    forged = own.directory.with_name("000009-00000000")
    shutil.copytree(own.directory, forged)
    attacker = new_signer(tmp_path / "attacker")
    (forged / "checkpoint").write_text(sign_note(own.checkpoint.text(), [attacker]))
    write_log(log, 1)
    [newest] = sign_trees(log / ORIGIN, [signer])
    assert unverified_checkpoint(newest).origin == own.checkpoint.origin


def test_a_published_checkpoint_of_another_key_does_not_fork_the_log(
    log: Path, signer: Signer, tmp_path: Path
) -> None:
    write_log(log, 5)
    [note] = sign_trees(log / ORIGIN, [signer])
    origin = unverified_checkpoint(note).origin
    attacker = new_signer(tmp_path / "attacker")
    forged = sign_note(Checkpoint(origin, 100, bytes(32)).text(), [attacker])
    write_log(log, 5)
    [newest] = sign_trees(log / ORIGIN, [signer], [forged])
    assert unverified_checkpoint(newest).origin == origin


def test_while_keys_rotate_the_tree_is_continued(log: Path, signer: Signer, tmp_path: Path) -> None:
    newer = new_signer(tmp_path / "newer")
    origins = set()
    for signers in ([signer], [newer, signer], [newer]):
        write_log(log, 3)
        [note] = sign_trees(log / ORIGIN, signers)
        origins.add(open_checkpoint(note, [signers[0].key]).origin)
    assert len(origins) == 1


def test_a_damaged_frame_has_an_entry_that_says_so(log: Path, signer: Signer) -> None:
    write_log(log, 10)
    [(_, path)] = list_segments(log / ORIGIN)
    content = bytearray(path.read_bytes())
    content[content.index(b'"jti_') + 5] ^= 1
    path.write_bytes(content)
    sign_trees(log / ORIGIN, [signer])
    entries = entries_of(only_tree(log / ORIGIN))
    assert entries[1] == KIND_DAMAGED
    assert len(entries) == 11


def test_a_torn_tail_is_not_part_of_the_tree(log: Path, signer: Signer) -> None:
    write_log(log, 4)
    [(_, path)] = list_segments(log / ORIGIN)
    path.write_bytes(path.read_bytes()[:-10])
    sign_trees(log / ORIGIN, [signer])
    assert only_tree(log / ORIGIN).checkpoint.size == 1 + 3


def test_two_processes_never_extend_one_tree(log: Path, signer: Signer) -> None:
    write_log(log, 1)
    trees = OriginTrees(log / ORIGIN, NAME, [signer])
    with pytest.raises(OSError, match="another process"):
        OriginTrees(log / ORIGIN, NAME, [signer])
    trees.close()
    sign_trees(log / ORIGIN, [signer])


def test_a_tree_whose_tiles_do_not_have_the_signed_root_is_not_continued(
    log: Path, signer: Signer
) -> None:
    write_log(log, 20)
    sign_trees(log / ORIGIN, [signer])
    tree = only_tree(log / ORIGIN)
    path = tile_path(tree.directory, "0", 0, 21)
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedTreeError):
        sign_trees(log / ORIGIN, [signer])


def test_a_tree_that_lost_its_checkpoint_is_left_as_it_is_and_another_begins(
    log: Path, signer: Signer
) -> None:
    write_log(log, 2)
    sign_trees(log / ORIGIN, [signer])
    first = only_tree(log / ORIGIN).directory
    (first / "checkpoint").unlink()
    sign_trees(log / ORIGIN, [signer])
    assert only_tree(log / ORIGIN).directory.name > first.name
    assert (first / "tile").is_dir()


def test_partial_tiles_go_once_the_full_tile_is_signed(log: Path, signer: Signer) -> None:
    for _ in range(3):
        write_log(log, 100)
        sign_trees(log / ORIGIN, [signer])
    tree = only_tree(log / ORIGIN).directory
    assert not (tree / "tile/entries/000.p").exists()
    assert [path.name for path in (tree / "tile/0/001.p").iterdir()] == ["45"]


def test_a_first_entry_that_is_malformed_is_refused() -> None:
    for entry in (b"", b"S", b"S{}", b"Rabc", b'S{"origin":1}'):
        with pytest.raises(DamagedTreeError):
            parse_genesis(entry)


def test_a_record_is_proven_by_its_canonical_bytes() -> None:
    record = decision_record()
    assert entry_of(KIND_RECORD, encode(record)) == entry_of(KIND_RECORD, encode(record))
    with pytest.raises(DamagedTreeError):
        entry_of(KIND_GAP, bytes(70_000))


def test_a_tree_without_a_readable_checkpoint_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text("nonsense")
    with pytest.raises(DamagedTreeError):
        read_tree(tmp_path)

"""Random edits of logs and archives: each is found, given one older checkpoint.

The attacker can write all files. For the last edits they have the key too: then only the older
checkpoint, which they cannot change, shows that the history is another one.
"""

import contextlib
import gzip
import io
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from pdp.audit import Recorder, Shipper, SqlDestination
from pdp.audit.segments import (
    KIND_RECORD,
    NO_DIGEST,
    Frame,
    Header,
    encode_frame,
    encode_header,
    list_segments,
    read_header,
    segment_path,
)
from pdp.audit.transparency.archives import archive
from pdp.audit.transparency.entries import entry_of
from pdp.audit.transparency.notes import Checkpoint, Signer, sign_note
from pdp.audit.transparency.tiles import TileWriter
from pdp.database.engine import open_engine
from tests.kit import soak
from tests.kit.audit.logs import ORIGIN, frames_of, write_log
from tests.kit.audit.records import decision_record
from tests.kit.audit.trees import audit, new_signer, only_tree, sign_trees
from tests.kit.sqlite import make_sqlite
from tests.kit.waiting import run

FRAMES_PER_SEGMENT = 60


@dataclass(frozen=True)
class Case:
    """A log, what it was before, and the checkpoint that an auditor has."""

    directory: Path
    earlier: Path
    older: Path
    older_size: int
    signer: Signer

    def verify(self, directory: Path) -> int:
        return audit(directory, [self.signer.key], self.older, complete=True)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Segments and a tree, as a process has them."""
    directory = tmp_path_factory.mktemp("live")
    signer = new_signer(directory / "keys")
    log = directory / "audit"
    write_log(log, 100, 100, segment_bytes=20_000)
    record_equal(log)
    sign_trees(log / ORIGIN, [signer])
    shutil.copytree(log, directory / "earlier")
    write_log(log, 100, 100, segment_bytes=20_000)
    [note] = sign_trees(log / ORIGIN, [signer])
    (directory / "older.note").write_text(note)
    older = only_tree(log / ORIGIN).checkpoint.size
    write_log(log, 90, segment_bytes=20_000)
    sign_trees(log / ORIGIN, [signer])
    newest = list_segments(log / ORIGIN)[-1][1]
    if newest.stat().st_size < 1_000:
        newest.unlink()  # a header alone, of which nothing is proven
    case = Case(log, directory / "earlier", directory / "older.note", older, signer)
    assert case.verify(log) == 0
    return case


@pytest.fixture(scope="module")
def archived(live: Case, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """An archive of the same log."""
    directory = tmp_path_factory.mktemp("archived")
    make_sqlite(directory / "pdp.db")
    engine = open_engine(f"sqlite:///{directory / 'pdp.db'}")
    for name, source in (("earlier", live.earlier), ("audit", live.directory)):
        shutil.copytree(source, directory / name)
        Shipper(directory / name, SqlDestination(engine)).ship()
        tree = only_tree(directory / name / ORIGIN)
        out = directory / f"out-{name}"
        done = archive(engine, tree, out, 2e9, [live.signer], remove=False)
        assert done.records
    engine.dispose()
    case = replace(live, directory=directory / "out-audit", earlier=directory / "out-earlier")
    assert case.verify(case.directory) == 0
    return case


def record_equal(log: Path) -> None:
    """Records denials that fold: their counts are frames of the log."""
    recorder = Recorder(log, ORIGIN)
    recorder.start()
    for _ in range(3):
        run(recorder.record([decision_record(token_id="equal")]))
    recorder.stop()


# --- edits ----------------------------------------------------------------------------------------


def files_of(directory: Path) -> list[Path]:
    found = (path for path in directory.rglob("*") if path.is_file() and path.name != "lock")
    return sorted(found)


def write(path: Path, content: bytes) -> None:
    """Replaces a file: a copy shares its files with the original."""
    path.unlink()
    path.write_bytes(content)


def flip(case: Case, copy: Path, dice: random.Random) -> None:
    path = dice.choice(files_of(copy))
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    write(path, content)


def cut(case: Case, copy: Path, dice: random.Random) -> None:
    path = dice.choice(files_of(copy))
    content = path.read_bytes()
    write(path, content[: dice.randrange(len(content))])


def remove(case: Case, copy: Path, dice: random.Random) -> None:
    needed = [path for path in files_of(copy) if not is_outdated(path)]
    dice.choice(needed).unlink()


def is_outdated(path: Path) -> bool:
    """Whether a partial tile is no longer needed: the layout allows to delete it."""
    if not path.parent.name.endswith(".p"):
        return False
    return int(path.name) < max(int(other.name) for other in path.parent.iterdir())


def replay(case: Case, copy: Path, dice: random.Random) -> None:
    """Puts an old file back, or all of them."""
    old = {path.relative_to(case.earlier): path for path in files_of(case.earlier)}
    changed = [
        name
        for name, path in old.items()
        if (copy / name).is_file() and (copy / name).read_bytes() != path.read_bytes()
    ]
    if dice.random() < 0.2 or not changed:
        shutil.rmtree(copy)
        shutil.copytree(case.earlier, copy)
        return
    name = dice.choice(changed)
    write(copy / name, old[name].read_bytes())


def edit_frames(case: Case, copy: Path, dice: random.Random) -> None:
    """Drops, swaps or changes records in one file, and repairs what needs no key."""
    archives = list(copy.rglob("*.jsonl.gz"))
    if archives:
        path = dice.choice(archives)
        lines = gzip.decompress(path.read_bytes()).splitlines()
        edit(lines, dice)
        write(path, gzip.compress(b"".join(line + b"\n" for line in lines)))
        note = path.with_name(path.name + ".note")
        digest = sha256(path.read_bytes()).hexdigest()
        text, _, signatures = note.read_text().rpartition("\n\n")
        write(note, f"{text.rpartition(chr(10))[0]}\n{digest}\n\n{signatures}".encode())
        return
    frames = frames_of(copy / ORIGIN)
    edit(frames, dice)
    rewrite_segments(copy / ORIGIN, frames)


def forge(case: Case, copy: Path, dice: random.Random) -> None:
    """Changes a record that the older checkpoint covers, and makes everything new, with the key or
    with another one."""
    frames = frames_of(case.directory / ORIGIN) if list(copy.rglob("*.segment")) else None
    key = dice.choice([case.signer, new_signer(copy.parent / str(dice.random()))])
    if frames is None:
        # The note of the file is signed again, and the tree is made of the new texts.
        path = dice.choice(list(copy.rglob("*.jsonl.gz")))
        lines = gzip.decompress(path.read_bytes()).splitlines()
        edit(lines, dice, before=case.older_size // 2)
        write(path, gzip.compress(b"".join(line + b"\n" for line in lines)))
        tree = only_tree_below(copy)
        entries = [entry_of(KIND_RECORD, line) for line in lines]
        resign(tree, entries, key)
        digest = sha256(path.read_bytes()).hexdigest()
        end = len(entries) + 1
        renamed = path.with_name(f"1-{end}.jsonl.gz")
        path.with_name(path.name + ".note").unlink()
        path.rename(renamed)
        origin = (tree / "checkpoint").read_text().partition("\n")[0]
        text = f"pdp-audit-archive/v1\n{origin}\n1 {end}\n{digest}\n"
        renamed.with_name(renamed.name + ".note").write_text(sign_note(text, [key]))
        return
    edit(frames, dice, before=case.older_size - 2)
    rewrite_segments(copy / ORIGIN, frames)
    entries = [entry_of(frame.kind, frame.payload) for frame in frames]
    resign(only_tree_below(copy), entries, key)


def only_tree_below(copy: Path) -> Path:
    [checkpoint] = copy.rglob("checkpoint")
    return checkpoint.parent


def edit(items: list, dice: random.Random, before: int | None = None) -> None:
    """Drops, swaps, repeats or changes an item, or cuts the end off."""
    end = len(items) if before is None else before
    index = dice.randrange(end - 1)
    match dice.randrange(5):
        case 0:
            del items[index]
        case 1:
            other = (index + dice.randrange(1, end - 1)) % (end - 1)
            items[index], items[other] = items[other], items[index]
        case 2:
            items.insert(index, items[dice.randrange(end)])
        case 3:
            item = items[index]
            if isinstance(item, Frame):
                items[index] = replace(item, payload=item.payload.replace(b"e", b"a", 1) + b" ")
            else:
                items[index] = item.replace(b"course:edit", b"course:view") + b" "
        case 4:
            del items[index:]


def rewrite_segments(origin: Path, frames: Sequence[Frame]) -> None:
    """Writes the frames into new segments of the same log, with a chain that holds."""
    segments = list_segments(origin)
    first, _ = read_header(segments[0][1])
    for _, path in segments:
        path.unlink()
    digest, size, position = NO_DIGEST, 0, 0
    for number, start in enumerate(range(0, len(frames), FRAMES_PER_SEGMENT), start=1):
        header = Header(first.origin, first.log_id, number, position, digest, size)
        content, digest = encode_header(header)
        for frame in frames[start : start + FRAMES_PER_SEGMENT]:
            part, digest = encode_frame(digest, frame.kind, frame.payload)
            content += part
            position += 1
        size = len(content)
        segment_path(origin, number).write_bytes(content)


def resign(tree: Path, entries: Sequence[bytes], signer: Signer) -> None:
    """Makes the tree new, of other entries, and signs it."""
    origin = (tree / "checkpoint").read_text().partition("\n")[0]
    bundle = next(iter(sorted((tree / "tile/entries").glob("000*"))))
    content = (next(bundle.iterdir()) if bundle.is_dir() else bundle).read_bytes()
    genesis = content[2 : 2 + int.from_bytes(content[:2], "big")]
    shutil.rmtree(tree / "tile")
    tiles = TileWriter(tree)
    tiles.append([genesis, *entries])
    tiles.sync()
    note = sign_note(Checkpoint(origin, tiles.size, tiles.root()).text(), [signer])
    write(tree / "checkpoint", note.encode())


EDITS: Sequence[Callable[[Case, Path, random.Random], None]] = (
    flip,
    flip,
    cut,
    remove,
    replay,
    edit_frames,
    forge,
)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["live", "archived"])
def test_each_of_many_random_edits_is_found_given_one_older_checkpoint(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    case: Case = request.getfixturevalue(kind)
    undetected = []
    for seed in range(soak.count(5_000, sample=30)):
        dice = random.Random(seed)
        name = EDITS[seed % len(EDITS)]
        copy = tmp_path / "copy" / "audit"
        shutil.copytree(case.directory, copy, copy_function=os.link)
        name(case, copy, dice)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            status = case.verify(copy)
        if status != 1 and not is_same(case.directory, copy):
            undetected.append((seed, name.__name__, status, output.getvalue()))
        shutil.rmtree(copy.parent)
    assert undetected == []
    assert case.verify(case.directory) == 0


def is_same(first: Path, second: Path) -> bool:
    """Whether an edit has changed nothing."""
    contents = [
        {path.relative_to(root): path.read_bytes() for path in files_of(root)}
        for root in (first, second)
    ]
    return contents[0] == contents[1]


def test_an_edit_with_the_key_is_not_found_without_an_older_checkpoint(
    live: Case, tmp_path: Path
) -> None:
    # The control of the test above: the older checkpoint is what finds it.
    copy = tmp_path / "audit"
    shutil.copytree(live.directory, copy)
    frames = frames_of(copy / ORIGIN)
    del frames[10]
    rewrite_segments(copy / ORIGIN, frames)
    tree = only_tree_below(copy)
    resign(tree, [entry_of(frame.kind, frame.payload) for frame in frames], live.signer)
    assert audit(copy, [live.signer.key], complete=True) == 0
    assert live.verify(copy) == 1


def test_the_first_bad_record_is_named(
    live: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "audit"
    shutil.copytree(live.directory, copy)
    frames = frames_of(copy / ORIGIN)
    changed = frames[70].payload.replace(b"course:edit", b"course:view")
    frames[70] = replace(frames[70], payload=changed)
    rewrite_segments(copy / ORIGIN, frames)
    assert live.verify(copy) == 1
    output = capsys.readouterr().out
    assert "record 70 at byte" in output
    assert "is not what the tree says" in output

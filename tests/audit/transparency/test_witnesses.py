"""Witnesses cosign what a process signs, and whatever they answer, the log goes on."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pdp.audit import Recorder, Shipper, SqlDestination
from pdp.audit.transparency import Notary, witnesses
from pdp.audit.transparency.archives import copy_tree
from pdp.audit.transparency.notes import NoteError, Signer, VerifierKey, signatures_of
from pdp.audit.transparency.publishing import Publisher
from pdp.audit.transparency.trees import stored_trees
from pdp.audit.transparency.verification import verify_tree
from pdp.audit.transparency.witnesses import COSIGNED, cosigned_note, witness_publishers
from pdp.database.engine import open_engine
from pdp.settings.audit_tree import AuditTreeSettings
from tests.kit.audit.logs import ORIGIN, write_log
from tests.kit.audit.records import decision_record
from tests.kit.audit.trees import NAME, new_signer, only_tree, run_tool, sign_trees
from tests.kit.audit.witness import Answer, Witness, serving
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually, run


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return new_signer(tmp_path / "keys")


@pytest.fixture
def log(tmp_path: Path, signer: Signer) -> Path:
    """The directory of a log with a tree of 5 entries."""
    write_log(tmp_path / "audit", 4)
    sign_trees(tmp_path / "audit" / ORIGIN, [signer])
    return tmp_path / "audit" / ORIGIN


@pytest.fixture
def witness(signer: Signer) -> Iterator[Witness]:
    with serving(Witness(signer.key, NAME)) as witness:
        yield witness


def grow(log: Path, signer: Signer, count: int) -> None:
    write_log(log.parent, count)
    sign_trees(log, [signer])


def ask(publisher: Publisher, log: Path) -> bool:
    """Asks for the newest checkpoint, in this thread; whether the witness has cosigned it."""
    tree = only_tree(log)
    publisher.offer(tree.checkpoint.origin, tree.note, tree.directory)
    publisher.stop()  # sends what waits
    return publisher.waiting() == 0


def cosigned_by(log: Path, *asked: Witness) -> tuple[int, set[str]]:
    """The size of the cosigned checkpoint, and whose cosignatures on it hold."""
    found = cosigned_note(only_tree(log).directory)
    if found is None:
        return 0, set()
    _, signatures = signatures_of(found[0], [witness.key for witness in asked])
    return found[1].size, {key.name for key in signatures}


def test_a_witness_cosigns_each_checkpoint_that_continues_the_one_before(
    log: Path, signer: Signer, witness: Witness
) -> None:
    [publisher] = witness_publishers([witness.settings])
    for size in (5, 8, 300, 301):
        if size > 5:
            grow(log, signer, size - only_tree(log).checkpoint.size)
        assert ask(publisher, log)
        assert cosigned_by(log, witness) == (size, {witness.name})
    assert witness.statuses == [200] * 4
    # Nothing is asked twice, also not by another process.
    assert ask(witness_publishers([witness.settings])[0], log)
    assert len(witness.asked) == 4
    # A process that does not know what the witness has seen asks the witness.
    grow(log, signer, 5)
    assert ask(witness_publishers([witness.settings])[0], log)
    assert witness.statuses[4:] == [409, 200]
    assert cosigned_by(log, witness) == (306, {witness.name})


def test_the_cosignatures_of_all_witnesses_are_in_one_note(
    log: Path, signer: Signer, witness: Witness
) -> None:
    with serving(Witness(signer.key, NAME, "witness.example/w2")) as other:
        first, second = witness_publishers([witness.settings, other.settings])
        assert ask(first, log)
        assert ask(second, log)
        assert cosigned_by(log, witness, other) == (5, {witness.name, other.name})
        grow(log, signer, 1)
        other.attack = lambda _: (503, "text/plain", b"")
        assert ask(first, log)
        assert not ask(second, log)
        # The newest counts, and the cosignature that is missing is added when it is there.
        assert cosigned_by(log, witness, other) == (6, {witness.name})
        other.attack = None
        second.stop()
        assert cosigned_by(log, witness, other) == (6, {witness.name, other.name})
        # An older checkpoint does not replace a newer one.
        grow(log, signer, 1)
        older = only_tree(log)
        grow(log, signer, 1)
        assert ask(first, log)
        second.offer(older.checkpoint.origin, older.note, older.directory)
        second.stop()
        assert cosigned_by(log, witness, other) == (8, {witness.name})


def test_a_witness_refuses_a_rewritten_history_and_both_verifiers_name_it(
    tmp_path: Path, log: Path, signer: Signer, witness: Witness
) -> None:
    [publisher] = witness_publishers([witness.settings])
    shutil.copytree(log, tmp_path / "before")
    grow(log, signer, 3)
    assert ask(publisher, log)
    cosigned = (only_tree(log).directory / COSIGNED).read_bytes()
    demands = ["--key", str(signer.key), "--witness", str(witness.key), "--cosignatures", "1"]
    keys, of_witness = [signer.key], [witness.key]
    report = verify_tree(only_tree(log), keys, witnesses=of_witness, cosignatures=1)
    assert (report.problems, report.cosigned_size) == ([], 8)
    assert set(report.cosigned_at) == {witness.name}
    status, output = run_tool("directory", *demands, str(log))
    assert (status, f"{witness.name} cosigned size 8" in output) == (0, True)
    # The holder of the key has the older directory again, and writes another history.
    shutil.rmtree(log)
    shutil.move(tmp_path / "before", log)
    grow(log, signer, 9)
    assert not ask(publisher, log)
    assert not ask(witness_publishers([witness.settings])[0], log)
    assert set(witness.statuses[1:]) == {409, 422}
    report = verify_tree(only_tree(log), keys, witnesses=of_witness, cosignatures=1)
    assert report.problems == ["0 witnesses have cosigned it, and not 1"]
    status, output = run_tool("directory", *demands, str(log))
    assert (status, "0 witnesses have cosigned it, and not 1" in output) == (1, True)
    # With what the witness cosigned before it is no better.
    (only_tree(log).directory / COSIGNED).write_bytes(cosigned)
    report = verify_tree(only_tree(log), keys, witnesses=of_witness, cosignatures=1)
    assert report.problems == ["it does not continue the checkpoint of size 8"]
    status, output = run_tool("directory", *demands, str(log))
    assert (status, "does not continue the older checkpoint of size 8" in output) == (1, True)


def test_one_key_under_several_names_is_one_witness_and_the_key_of_the_log_is_none(
    tmp_path: Path, log: Path
) -> None:
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    log_key = VerifierKey(NAME, public)
    shutil.rmtree(log)
    write_log(log.parent, 4)
    sign_trees(log, [Signer(log_key, private.sign)])
    first = Witness(log_key)
    second = Witness(log_key, name="witness.example/w2", private=first.private)
    itself = Witness(log_key, name="witness.example/w3", private=private)
    asked = [first, second, itself]
    note = only_tree(log).note
    text = note.rpartition("\n\n")[0] + "\n"
    lines = b"".join(witness.cosign(text) for witness in asked)
    (only_tree(log).directory / COSIGNED).write_bytes(note.encode() + lines)
    keys = [witness.key for witness in asked]
    demands = ["--key", str(log_key)]
    for key in keys:
        demands += ["--witness", str(key)]
    for wanted, problems in ((1, []), (2, ["1 witnesses have cosigned it, and not 2"])):
        report = verify_tree(only_tree(log), [log_key], witnesses=keys, cosignatures=wanted)
        assert report.problems == problems
        status, output = run_tool("directory", *demands, "--cosignatures", str(wanted), str(log))
        assert (status, all(one in output for one in problems)) == (len(problems), True)


def cosigns(edit: Callable[[str], str]) -> Callable[[Witness, str], Answer]:
    """Cosigns another text than that of the checkpoint."""

    def answer(witness: Witness, body: str) -> Answer:
        text = body.partition("\n\n")[2].rpartition("\n\n")[0] + "\n"
        return 200, "text/plain", witness.cosign(edit(text))

    return answer


def smuggled(witness: Witness, body: str) -> Answer:
    """A cosignature that holds for the checkpoint and the beginning of the answer."""
    text = body.partition("\n\n")[2].rpartition("\n\n")[0] + "\n"
    more = "\n\u2014 a.example AAAAAAAAAAAA\n"
    return 200, "text/plain", more[1:].encode() + b"\n" + witness.cosign(text + more)


def at(time: int) -> Callable[[Witness, str], Answer]:
    def answer(witness: Witness, body: str) -> Answer:
        text = body.partition("\n\n")[2].rpartition("\n\n")[0] + "\n"
        return 200, "text/plain", witness.cosign(text, time)

    return answer


def says(status: int, content: bytes, kind: str = "text/x.tlog.size") -> Callable[..., Answer]:
    return lambda *_: (status, kind, content)


ATTACKS: dict[str, Callable[[Witness, str], Answer]] = {
    "garbage": says(200, b"\xff\x00 garbage"),
    "nothing": says(200, b""),
    "a line of nobody": says(200, "\u2014 other.example AAAAAAAA\n".encode()),
    "no end of the line": says(200, b"\xe2\x80\x94 witness.example/w1 AAAA"),
    "many lines": says(200, "\u2014 other.example AAAAAAAA\n".encode() * 200),
    "a huge body": says(200, bytes(1 << 20)),
    "another size": cosigns(lambda text: text.replace("\n5\n", "\n6\n")),
    "another origin": cosigns(lambda text: "other/" + text),
    "more than the checkpoint": cosigns(lambda text: text + "more\n"),
    "a smuggled text": smuggled,
    "no time": at(0),
    "a time of no calendar": at(253_402_300_800),
    "a redirection": says(302, b""),
    "not found": says(404, b""),
    "an error": says(500, b""),
    "a larger size": says(409, b"6\n"),
    "an enormous size": says(409, b"9" * 18 + b"\n"),
    "no size": says(409, b"-1\n"),
    "a size of many digits": says(409, b"9" * 5000 + b"\n"),
    "a size that is no size": says(409, b"3\n", "text/plain"),
    "another size each time": says(409, b"3\n"),
}


def test_whatever_a_witness_answers_only_a_cosignature_that_holds_is_stored(
    log: Path, witness: Witness
) -> None:
    for name, attack in ATTACKS.items():
        [publisher] = witness_publishers([witness.settings])
        witness.asked.clear()
        witness.attack = lambda body: attack(witness, body)  # noqa: B023
        assert not ask(publisher, log), name
        assert len(witness.asked) <= 2, name
        assert cosigned_by(log) == (0, set()), name
        witness.attack = None
        publisher.stop()  # positive control: asked again, the honest answer is stored
        assert cosigned_by(log, witness) == (5, {witness.name}), name
        (only_tree(log).directory / COSIGNED).unlink()


def test_a_compressed_answer_is_not_decompressed(log: Path, witness: Witness) -> None:
    answer = witness.answer

    def compressed(body: str) -> Answer:
        return (200, "text/plain\r\ncontent-encoding: gzip", answer(body)[2])

    [publisher] = witness_publishers([witness.settings])
    witness.attack = compressed
    assert ask(publisher, log)
    assert cosigned_by(log, witness) == (5, {witness.name})


def test_a_witness_that_hangs_is_given_up(
    log: Path, signer: Signer, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witnesses, "SEND_SECONDS_MAX", 0.3)
    released = threading.Event()

    def hang(_: str) -> Answer:
        released.wait(60)
        return 200, "text/plain", b""

    witness.attack = hang
    watch = Stopwatch()
    assert not ask(witness_publishers([witness.settings])[0], log)
    assert watch.seconds < 3
    released.set()


def test_somebody_elses_file_is_replaced(log: Path, witness: Witness) -> None:
    tree = only_tree(log)
    bigger = tree.note.replace("\n5\n", "\n99\n")
    for content in (b"\xff", b"", b"garbage", bigger.encode()):
        (tree.directory / COSIGNED).write_bytes(content)
        assert verify_tree(tree, [witness.log_key]).problems == []
        assert ask(witness_publishers([witness.settings])[0], log)
        assert cosigned_by(log, witness) == (5, {witness.name})


def test_the_copy_of_a_tree_has_its_cosignatures(
    tmp_path: Path, log: Path, signer: Signer, witness: Witness
) -> None:
    older = only_tree(log)
    [publisher] = witness_publishers([witness.settings])
    assert ask(publisher, log)
    (tmp_path / "copy").mkdir()
    copy_tree(older, tmp_path / "copy")
    assert (tmp_path / "copy" / COSIGNED).is_file()
    # The copy of a smaller checkpoint has none of a larger one, which it could not hold.
    grow(log, signer, 3)
    assert ask(publisher, log)
    (tmp_path / "smaller").mkdir()
    copy_tree(older, tmp_path / "smaller")
    assert not (tmp_path / "smaller" / COSIGNED).exists()


def test_a_process_collects_cosignatures_and_a_failing_witness_delays_neither_log_nor_others(
    tmp_path: Path, sqlite_url: str, signer: Signer, witness: Witness
) -> None:
    engine = open_engine(sqlite_url)
    released = threading.Event()

    def hang(_: str) -> Answer:
        released.wait(60)
        return 200, "text/plain", b""

    with serving(Witness(signer.key, NAME, "witness.example/w2", attack=hang)) as hanging:
        recorder = Recorder(tmp_path / "audit", ORIGIN)
        asked = witness_publishers([hanging.settings, witness.settings])
        notary = Notary(recorder, NAME, [signer], [], checkpoint_seconds=0.05, witnesses=asked)
        shipper = Shipper(tmp_path / "audit", SqlDestination(engine), recorder, notary=notary)
        parts = (recorder, notary, shipper)
        for part in parts:
            part.start()
        log = tmp_path / "audit" / ORIGIN
        for count in (3, 4):
            for _ in range(count):
                run(recorder.record([decision_record()]))
            size = count + 1 if count == 3 else 8
            eventually(lambda: [tree.checkpoint.size for tree in stored_trees(log)] == [size])  # noqa: B023
            eventually(lambda: cosigned_by(log, witness) == (size, {witness.name}))  # noqa: B023
        failing = notary.gauges()["pdp_audit_witnesses_failing"][1]
        released.set()
        eventually(lambda: failing() == 1)
        for part in (recorder, shipper, notary):
            part.stop()
        assert cosigned_by(log, witness)[1] == {witness.name}
    engine.dispose()


def test_a_key_that_is_not_of_a_witness_is_refused(signer: Signer, witness: Witness) -> None:
    settings = witness.settings
    for wrong in (str(signer.key), "nonsense", str(witness.key).replace("+", "-")):
        with pytest.raises(NoteError):
            witness_publishers([settings.model_copy(update={"key": wrong})])
    with pytest.raises(NoteError, match="two witnesses"):
        witness_publishers([settings, settings])
    other_name = Witness(signer.key, name="witness.example/w2", private=witness.private)
    with pytest.raises(NoteError, match="two witnesses"):
        witness_publishers([settings, settings.model_copy(update={"key": str(other_name.key)})])
    with pytest.raises(ValueError, match="https"):
        AuditTreeSettings(
            name=NAME,
            signers=[{"key_file": "k"}],
            witnesses=[{"url": "http://example.com/", "key": str(witness.key)}],
        )

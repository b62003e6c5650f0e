"""Signed notes: what neither the package nor the file of auditors may accept."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pdp.audit.transparency.notes import (
    Checkpoint,
    NoteError,
    Signer,
    VerifierKey,
    open_checkpoint,
    sign_note,
)
from tests.kit.audit.trees import load_tool, new_signer

CHECKPOINT = Checkpoint("pdp.example/one/000001-00000000", 7, bytes(range(32)))
TEXT = CHECKPOINT.text()
Open = Callable[[str, list[VerifierKey]], tuple[str, int, bytes]]


def by_package(note: str, keys: list[VerifierKey]) -> tuple[str, int, bytes]:
    found = open_checkpoint(note, keys)
    return found.origin, found.size, found.root


def by_tool(note: str, keys: list[VerifierKey]) -> tuple[str, int, bytes]:
    tool = load_tool()
    try:
        found = tool.open_checkpoint(note, [tool.Key.parse(str(key), b"\x01") for key in keys])
    except tool.Refused as problem:
        raise NoteError(str(problem)) from None
    return found.origin, found.size, found.root


@pytest.fixture(params=[by_package, by_tool])
def open_it(request: pytest.FixtureRequest) -> Open:
    opener: Open = request.param
    return opener


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return new_signer(tmp_path)


def test_a_signed_checkpoint_is_read_back(open_it: Open, signer: Signer) -> None:
    found = open_it(sign_note(TEXT, [signer]), [signer.key])
    assert found == (CHECKPOINT.origin, CHECKPOINT.size, CHECKPOINT.root)


def test_a_checkpoint_that_two_keys_signed_holds_for_each_of_them(
    open_it: Open, signer: Signer, tmp_path: Path
) -> None:
    newer = new_signer(tmp_path, file="new.pem")
    note = sign_note(TEXT, [newer, signer])
    assert open_it(note, [signer.key]) == open_it(note, [newer.key])
    assert open_it(note, [signer.key, newer.key])


def test_two_signature_lines_of_one_key_are_refused(open_it: Open, signer: Signer) -> None:
    note = sign_note(TEXT, [signer])
    line = note.rpartition("\n\n")[2]
    with pytest.raises(NoteError):
        open_it(note + line, [signer.key])


def test_a_wrong_signature_beside_a_right_one_is_refused(
    open_it: Open, signer: Signer, tmp_path: Path
) -> None:
    newer = new_signer(tmp_path, file="new.pem")
    wrong = Signer(newer.key, lambda _: bytes(64))
    line = f"\u2014 {wrong.key.name} {base64.b64encode(wrong.key.id + bytes(64)).decode()}\n"
    with pytest.raises(NoteError):
        open_it(sign_note(TEXT, [signer]) + line, [signer.key, newer.key])


def test_a_signature_under_the_name_or_the_id_of_another_key_is_refused(
    open_it: Open, signer: Signer
) -> None:
    attacker = Ed25519PrivateKey.generate()
    public = attacker.public_key().public_bytes_raw()
    same_name = Signer(VerifierKey(signer.key.name, public), attacker.sign)
    with pytest.raises(NoteError):
        open_it(sign_note(TEXT, [same_name]), [signer.key])
    signature = base64.b64encode(signer.key.id + attacker.sign(TEXT.encode())).decode()
    with pytest.raises(NoteError):
        open_it(f"{TEXT}\n\u2014 {signer.key.name} {signature}\n", [signer.key])
    other_name = VerifierKey("other.example", signer.key.public)
    with pytest.raises(NoteError):
        open_it(sign_note(TEXT, [signer]), [other_name])


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.replace("\n7\n", "\n8\n"),
        lambda note: note.replace("\n7\n", "\n07\n"),
        lambda note: note.replace("\n7\n", "\n7\n\n"),
        lambda note: note[:-1],
        lambda note: note + "\n",
        lambda note: note.replace("\u2014 ", "- "),
        lambda note: note.replace("\n\n", "\n"),
        lambda note: "\n" + note,
        lambda note: note + "\u2014 broken\n",
        lambda note: note * 101,
        lambda note: "x" * 20_000 + note,
        lambda _: "",
        lambda _: "\n\n",
    ],
)
def test_a_changed_note_is_refused(
    open_it: Open, signer: Signer, change: Callable[[str], str]
) -> None:
    with pytest.raises(NoteError):
        open_it(change(sign_note(TEXT, [signer])), [signer.key])


def test_no_bit_of_a_note_can_be_flipped(open_it: Open, signer: Signer) -> None:
    content = sign_note(TEXT, [signer]).encode()
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            note = changed.decode()
        except UnicodeDecodeError:
            continue
        with pytest.raises(NoteError):
            open_it(note, [signer.key])


def test_the_text_of_an_archive_is_no_checkpoint_though_the_key_signed_it(
    open_it: Open, signer: Signer
) -> None:
    text = f"pdp-audit-archive/v1\n{CHECKPOINT.origin}\n1 9\n{'0' * 64}\n"
    with pytest.raises(NoteError):
        open_it(sign_note(text, [signer]), [signer.key])


def test_a_key_whose_signature_does_not_match_signs_nothing(signer: Signer) -> None:
    with pytest.raises(NoteError):
        sign_note(TEXT, [Signer(signer.key, lambda _: bytes(64))])


@pytest.mark.parametrize("text", ["", "a+b+c", "name+00000000+AQ==", "name"])
def test_a_malformed_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(text)
    tool = load_tool()
    with pytest.raises(tool.Refused):
        tool.Key.parse(text, b"\x01")


def test_a_verifier_key_with_the_id_of_another_key_is_refused(
    signer: Signer, tmp_path: Path
) -> None:
    other = new_signer(tmp_path, file="other.pem").key
    confused = str(other).replace(other.id.hex(), signer.key.id.hex())
    with pytest.raises(NoteError):
        VerifierKey.parse(confused)
    tool = load_tool()
    with pytest.raises(tool.Refused):
        tool.Key.parse(confused, b"\x01")
    assert VerifierKey.parse(str(other)) == other


def test_a_cosignature_of_a_witness_is_checked(signer: Signer) -> None:
    tool = load_tool()
    witness = Ed25519PrivateKey.generate()
    public = witness.public_key().public_bytes_raw()
    key = tool.Key("witness.example", b"\x04", public)
    log_key = tool.Key.parse(str(signer.key), b"\x01")
    note = sign_note(TEXT, [signer])
    stamp = (1_790_000_000).to_bytes(8, "big")

    def cosigned(time: int) -> str:
        signature = witness.sign(f"cosignature/v1\ntime {time}\n{TEXT}".encode())
        return f"{note}\u2014 {key.name} {base64.b64encode(key.id + stamp + signature).decode()}\n"

    assert tool.open_checkpoint(cosigned(1_790_000_000), [log_key], [key]).size == 7
    for wrong in (note, cosigned(1_790_000_001)):
        with pytest.raises(tool.Refused):
            tool.open_checkpoint(wrong, [log_key], [key])
    # A witness does not stand in for the log.
    with pytest.raises(tool.Refused):
        tool.open_checkpoint(cosigned(1_790_000_000), [], [key])

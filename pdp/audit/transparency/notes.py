"""Signed notes and checkpoints (https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint),
and cosignatures of witnesses (https://c2sp.org/tlog-cosignature)."""

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

NOTE_BYTES_MAX: Final = 16 << 10
SIGNATURES_MAX: Final = 100
LOG_KEY: Final = b"\x01"
WITNESS_KEY: Final = b"\x04"
"""Kinds of keys: one signs notes, the other cosigns checkpoints, with the time."""
COSIGNED_AT_MAX: Final = 253_402_300_800
"""The year 10000 in Unix seconds: no later time can be shown."""
_ID_BYTES: Final = 4
_TIME_BYTES: Final = 8
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9./_-]{0,199}\Z", re.ASCII)
_SIZE: Final = re.compile(r"(0|[1-9][0-9]{0,17})\Z", re.ASCII)
_LINE: Final = re.compile(r"\u2014 ([^\s+]+) (\S+)\Z")


class NoteError(ValueError):
    """A note is malformed, or no trusted key has signed it."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name. As text: `<name>+<id>+<key>`."""

    name: str
    public: bytes
    kind: bytes = LOG_KEY

    @property
    def id(self) -> bytes:
        """The key id in signature lines: it depends on the name too."""
        return sha256(self.name.encode() + b"\n" + self.kind + self.public).digest()[:_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{_encode(self.kind + self.public)}"

    @classmethod
    def parse(cls, text: str, kind: bytes = LOG_KEY) -> "VerifierKey":
        """Parses a key of a kind. Raises NoteError."""
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        content = _decode(encoded)
        if len(content) != 1 + 32 or content[:1] != kind:
            wanted = "a witness's key" if kind == WITNESS_KEY else "an Ed25519 key"
            raise NoteError(f"the verifier key is not {wanted}")
        key = cls(check_name(name), content[1:], kind)
        if key.id.hex() != key_id:
            raise NoteError("the id of the verifier key does not match the key")
        return key

    def holds(self, signature: bytes, text: str) -> bool:
        """Returns whether this key has signed a text."""
        if self.kind == WITNESS_KEY:
            time = cosigned_at(signature)
            if len(signature) != _TIME_BYTES + 64 or not 0 < time < COSIGNED_AT_MAX:
                return False
            text, signature = f"cosignature/v1\ntime {time}\n{text}", signature[_TIME_BYTES:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs notes with one key."""

    key: VerifierKey
    sign: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """States the size and the root of a log."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Returns the text that is signed."""
        return f"{self.origin}\n{self.size}\n{_encode(self.root)}\n"


def check_name(name: str) -> str:
    """Returns the name if it can name a key and begin an origin. Raises NoteError."""
    if not _NAME.match(name):
        raise NoteError(
            "a log name is 1 to 200 letters, digits, '.', '/', '_' and '-', e.g. pdp.example.com"
        )
    return name


def sign_note(text: str, signers: Sequence[Signer]) -> str:
    """Returns a note. Raises NoteError: a signature does not hold."""
    lines = []
    for signer in signers:
        signature = signer.sign(text.encode())
        if not signer.key.holds(signature, text):
            raise NoteError(f"the signature of {signer.key.name} does not match its public key")
        lines.append(signature_line(signer.key, signature))
    return text + "\n" + "".join(lines)


def signature_line(key: VerifierKey, signature: bytes) -> str:
    """Returns the line of a signature in a note."""
    return f"\u2014 {key.name} {_encode(key.id + signature)}\n"


def cosigned_at(signature: bytes) -> int:
    """Returns when a witness made a cosignature, in Unix seconds, by its own word."""
    return int.from_bytes(signature[:_TIME_BYTES], "big")


def open_note(note: str, keys: Iterable[VerifierKey]) -> str:
    """Returns the text of a note that at least one of the keys has signed.

    Lines of other keys are ignored. A wrong signature of one of the keys is refused even if others
    hold, and so are two lines of one key.

    Raises:
        NoteError: The note is malformed, or it is not signed by these keys.
    """
    text, signatures = signatures_of(note, keys)
    if not signatures:
        raise NoteError("no trusted key has signed the note")
    return text


def signatures_of(note: str, keys: Iterable[VerifierKey]) -> tuple[str, dict[VerifierKey, bytes]]:
    """Returns the text of a note, and the signatures of those keys that have signed it. See
    `open_note`. Raises NoteError."""
    text, separator, signatures = note.rpartition("\n\n")
    text += "\n"
    lines = signatures.split("\n")
    if not separator or lines.pop() != "" or not 0 < len(lines) <= SIGNATURES_MAX:
        raise NoteError("not a signed note")
    if len(note.encode()) > NOTE_BYTES_MAX or any(c < " " and c != "\n" for c in note):
        raise NoteError("not a signed note")
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.id), key) != key:
            raise NoteError("two verifier keys have one name and one id")
    signed: dict[VerifierKey, bytes] = {}
    for line in lines:
        found = _LINE.match(line)
        content = b"" if found is None else _decode(found[2])
        if found is None or len(content) <= _ID_BYTES:
            raise NoteError("a signature line is malformed")
        identity = found[1], content[:_ID_BYTES]
        signer = known.get(identity)
        if signer is None:
            continue
        if signer in signed or not signer.holds(content[_ID_BYTES:], text):
            raise NoteError(f"a signature of {signer.name} does not hold")
        signed[signer] = content[_ID_BYTES:]
    return text, signed


def parse_checkpoint(text: str) -> Checkpoint:
    """Parses the text of a note as a checkpoint. Raises NoteError."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0] or not _SIZE.match(lines[1]):  # noqa: PLR2004
        raise NoteError("not a checkpoint")
    root = _decode(lines[2])
    if len(root) != 32:  # noqa: PLR2004
        raise NoteError("not a checkpoint")
    return Checkpoint(lines[0], int(lines[1]), root)


def open_checkpoint(note: str, keys: Iterable[VerifierKey]) -> Checkpoint:
    """Returns the checkpoint in a note that one of the keys has signed. Raises NoteError."""
    return parse_checkpoint(open_note(note, keys))


def unverified_checkpoint(note: str) -> Checkpoint:
    """Returns the checkpoint in a note, without a check of signatures. Raises NoteError."""
    return parse_checkpoint(note.rpartition("\n\n")[0] + "\n")


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decode(text: str) -> bytes:
    """Decodes base64 in its one canonical form. Raises NoteError."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        raise NoteError("not base64") from None
    if _encode(content) != text:
        raise NoteError("not canonical base64")
    return content

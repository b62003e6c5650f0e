"""Verifies a decision log offline. One file: needs Python 3.11 and `cryptography`, nothing else.

    python verify_log.py directory --key KEY [--checkpoint FILE]... DIRECTORY
    python verify_log.py record --key KEY [--checkpoint FILE] PROOF
    python verify_log.py consistency --key KEY OLD_CHECKPOINT PROOF

`directory` checks an audit directory, or an archive, below which there are trees. `record` checks
the proof of one record, as `pdp audit prove` prints it. `consistency` checks that a checkpoint
continues an older one.

Keep a checkpoint from a place that the operator of the log cannot change, and give it with
`--checkpoint`. Whoever has the key can make another log that is consistent in itself; they cannot
make one that continues a checkpoint which you have.

Exit status: 0 everything holds; 1 something does not; 2 something could not be read, or there was
nothing to check.

Formats: RFC 6962 (hashes), c2sp.org/tlog-tiles, c2sp.org/signed-note, c2sp.org/tlog-checkpoint,
c2sp.org/tlog-cosignature, c2sp.org/tlog-proof.
"""

import argparse
import base64
import gzip
import itertools
import json
import os
import re
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WIDTH = 256
NOTE_BYTES_MAX = 16 << 10
PROOF_BYTES_MAX = 4 << 20
RECORD_BYTES_MAX = 1 << 20
PROBLEMS_MAX = 20
"""How many problems of one tree are printed."""
LOG_KEY, COSIGNER_KEY = b"\x01", b"\x04"
NO_DIGEST = bytes(32)
ARCHIVE = "pdp-audit-archive/v1"
_SIGNATURE = re.compile("\u2014 ([^\\s+]+) (\\S+)\\Z")
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,17})\Z", re.ASCII)
_SEGMENT = re.compile(r"\d{10}\.segment\Z", re.ASCII)
_ARCHIVED = re.compile(r"(\d{1,18})-(\d{1,18})\.jsonl\.gz\Z", re.ASCII)


class Refused(Exception):
    """Something does not hold. The message says what."""


class Unreadable(Exception):
    """Something that the user named cannot be read."""


# --- signed notes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """A public key with its name."""

    name: str
    kind: bytes
    public: bytes

    @property
    def id(self) -> bytes:
        """The key id: it depends on name, kind and key."""
        return sha256(self.name.encode() + b"\n" + self.kind + self.public).digest()[:4]

    @classmethod
    def parse(cls, text: str, kind: bytes) -> "Key":
        """Parses `<name>+<id>+<key>`. Raises Refused."""
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        content = decode64(encoded)
        if not name or any(c.isspace() for c in name) or len(content) != 33:
            raise Refused(f"not a verifier key: {text!r}")
        key = cls(name, content[:1], content[1:])
        if key.kind != kind or key.id.hex() != key_id:
            raise Refused(f"the verifier key of {name!r} is of another kind, or its id is wrong")
        return key

    def check(self, signature: bytes, text: str) -> None:
        """Raises Refused if this key has not signed the text."""
        message = text
        if self.kind == COSIGNER_KEY:
            if len(signature) != 72:
                raise Refused(f"a cosignature of {self.name} is malformed")
            time = cosigned_at(signature)
            if not 0 < time < 253_402_300_800:
                raise Refused(f"a cosignature of {self.name} has no time that can be shown")
            message, signature = f"cosignature/v1\ntime {time}\n{text}", signature[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message.encode())
        except InvalidSignature:
            raise Refused(f"a signature of {self.name} does not hold") from None


def cosigned_at(signature: bytes) -> int:
    """When a witness made a cosignature, in Unix seconds, by its own word."""
    (time,) = struct.unpack(">Q", signature[:8])
    return int(time)


@dataclass(frozen=True)
class Checkpoint:
    """Size and root of a log."""

    origin: str
    size: int
    root: bytes


def signatures_of(note: str, keys: Sequence[Key]) -> tuple[str, dict[Key, bytes]]:
    """Returns the text of a note, and the signatures of the given keys.

    Raises:
        Refused: It is malformed; a signature of a given key does not hold, or is there twice.
    """
    text, separator, signatures = note.rpartition("\n\n")
    text += "\n"
    lines = signatures.split("\n")
    if not separator or lines.pop() or not 0 < len(lines) <= 100:
        raise Refused("not a signed note")
    if len(note.encode()) > NOTE_BYTES_MAX or any(c < " " and c != "\n" for c in note):
        raise Refused("not a signed note")
    known: dict[tuple[str, bytes], Key] = {}
    for key in keys:
        if known.setdefault((key.name, key.id), key) != key:
            raise Refused("two of the given keys have one name and one id")
    signed: dict[Key, bytes] = {}
    for line in lines:
        found = _SIGNATURE.match(line)
        content = decode64(found[2]) if found else b""
        if not found or len(content) <= 4:
            raise Refused("a signature line is malformed")
        signer = known.get((found[1], content[:4]))
        if signer is None:
            continue
        if signer in signed:
            raise Refused(f"{signer.name} has signed twice")
        signer.check(content[4:], text)
        signed[signer] = content[4:]
    return text, signed


def open_note(note: str, keys: Sequence[Key], witnesses: Sequence[Key] = ()) -> str:
    """Returns the text of a note that a key has signed, and each witness cosigned.

    Raises:
        Refused: As `signatures_of`; or no key has signed it, or a witness has not.
    """
    text, signed = signatures_of(note, (*keys, *witnesses))
    if signed.keys().isdisjoint(keys):
        raise Refused("no given key has signed it")
    for witness in witnesses:
        if witness not in signed:
            raise Refused(f"the witness {witness.name} has not cosigned it")
    return text


def open_checkpoint(note: str, keys: Sequence[Key], witnesses: Sequence[Key] = ()) -> Checkpoint:
    """Returns the checkpoint in a note. Raises Refused."""
    lines = open_note(note, keys, witnesses).split("\n")
    if len(lines) != 4 or not lines[0] or not _NUMBER.match(lines[1]):
        raise Refused("not a checkpoint")
    root = decode64(lines[2])
    if len(root) != 32:
        raise Refused("not a checkpoint")
    return Checkpoint(lines[0], int(lines[1]), root)


def decode64(text: str) -> bytes:
    """Decodes base64 in its one canonical form. Raises Refused."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused("not base64") from None
    if base64.b64encode(content).decode() != text:
        raise Refused("not canonical base64")
    return content


@dataclass(frozen=True)
class Witnesses:
    """Third parties, and how many of them must have cosigned each tree."""

    keys: Sequence[Key] = ()
    count: int = 0

    def check(self, directory: Path, keys: Sequence[Key]) -> list[Checkpoint]:
        """Returns the cosigned checkpoint of a tree, if there is one, and says who cosigned it.
        Raises Refused, Unreadable."""
        found, signed = [], {}
        if self.keys and (directory / "cosigned").is_file():
            with open_file(directory / "cosigned") as file:
                content = file.read(NOTE_BYTES_MAX + 1)
            try:
                note = content.decode()
            except UnicodeDecodeError:
                raise Refused("cosigned: not a signed note") from None
            found = [open_checkpoint(note, keys)]
            signed = signatures_of(note, self.keys)[1]
        for key, signature in signed.items():
            when = datetime.fromtimestamp(cosigned_at(signature), UTC).isoformat()
            say(f"{found[0].origin}: {key.name} cosigned size {found[0].size} at {when}")
        # A key under two names is one witness, and a key of the log is none.
        third = {key.public: key.name for key in signed}
        for key in keys:
            third.pop(key.public, None)
        names = set(third.values())
        if len(names) < self.count:
            raise Refused(f"{len(names)} witnesses have cosigned it, and not {self.count}")
        return found


NO_WITNESSES = Witnesses()


def read_checkpoints(path: Path, keys: Sequence[Key], witnesses: Sequence[Key]) -> list[Checkpoint]:
    """Reads a note, or JSON lines with a note in `checkpoint` each. Raises Refused, Unreadable."""
    with open_file(path) as file:
        if file.read(1) != b"{":
            file.seek(0)
            note = file.read(NOTE_BYTES_MAX + 1)
            try:
                return [open_checkpoint(note.decode(), keys, witnesses)]
            except UnicodeDecodeError:
                raise Refused("not a signed note") from None
        file.seek(0)
        found: list[Checkpoint] = []
        for number in itertools.count(1):
            line = file.readline(4 * NOTE_BYTES_MAX)
            if not line:
                if not found:
                    raise Unreadable(f"{path} holds no checkpoint")
                return found
            try:
                note = json.loads(line)
            except (ValueError, RecursionError):
                say(f"not checked: line {number} of {path}, which a crash has cut off")
                continue
            if not isinstance(note, dict) or not isinstance(note.get("checkpoint"), str):
                raise Refused(f"{path}: line {number} holds no checkpoint")
            found.append(open_checkpoint(note["checkpoint"], keys, witnesses))
    return found


# --- Merkle trees ---------------------------------------------------------------------------------


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(b"\1" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over 2^n hashes."""
    level = list(hashes)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [sha256(b"\1" + left + right).digest() for left, right in pairs]
    return level[0]


def root_of(levels: Sequence[Sequence[bytes]]) -> bytes:
    """The root of a tree, from the hashes of the last tile of each level."""
    root: bytes | None = None
    for hashes in levels:
        end = len(hashes)
        while end:
            width = end & -end
            subtree = perfect_root(hashes[end - width : end])
            root = subtree if root is None else node_hash(subtree, root)
            end -= width
    return sha256().digest() if root is None else root


def root_of_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to. Raises Refused."""
    if not 0 <= index < size:
        raise Refused("the index is not in the tree")
    root = leaf
    for sibling, is_left in _directed(index, size - 1, path):
        root = node_hash(sibling, root) if is_left else node_hash(root, sibling)
    return root


def check_consistency(old: Checkpoint, new: Checkpoint, path: Sequence[bytes]) -> None:
    """Raises Refused if the proof does not show that `new` continues `old`."""
    if old.origin != new.origin:
        raise Refused("the checkpoints are of two logs")
    if not 0 < old.size <= new.size:
        raise Refused("the older checkpoint is larger, or empty")
    if old.size == new.size:
        if path or old.root != new.root:
            raise Refused("two checkpoints of one size differ: the log shows two histories")
        return
    rest = list(path)
    if old.size & (old.size - 1) == 0:
        rest.insert(0, old.root)
    if not rest:
        raise Refused("the proof is too short")
    skipped = (old.size ^ (old.size - 1)).bit_length() - 1
    before = after = rest[0]
    steps = _directed((old.size - 1) >> skipped, (new.size - 1) >> skipped, rest[1:])
    for sibling, is_left in steps:
        if is_left:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
        else:
            after = node_hash(after, sibling)
    if before != old.root or after != new.root:
        raise Refused("the newer checkpoint does not continue the older one")


def _directed(node: int, last: int, path: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    for sibling in path:
        if last == 0:
            raise Refused("the proof is too long")
        is_left = bool(node & 1) or node == last
        if is_left:
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        yield sibling, is_left
        node, last = node >> 1, last >> 1
    if last != 0:
        raise Refused("the proof is too short")


# --- a tree on disk -------------------------------------------------------------------------------


@dataclass
class Findings:
    """What was found about one tree."""

    problems: list[str] = field(default_factory=list)
    entries: int = 0
    records: int = 0
    """Entries of records."""
    seen: int = 0
    """Records whose text is here and is what the entry says."""
    erased: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    """By the id of the erasure: what remains of records whose text was erased."""
    changes: int = 0
    """Entries of administration records."""
    damaged: int = 0
    dropped: int = 0
    folded: dict[str, int] = field(default_factory=dict)
    """By decision id: how many decisions a record counts."""
    genesis: dict[str, object] = field(default_factory=dict)

    @property
    def decisions(self) -> int:
        """Records, and how often they occurred, and dropped records."""
        return self.records + sum(self.folded.values()) - len(self.folded) + self.dropped

    def add(self, problem: str) -> None:
        """Adds a problem."""
        self.problems.append(problem)


def tile_path(directory: Path, kind: str, index: int, width: int) -> Path:
    """The path of a tile; see c2sp.org/tlog-tiles."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03d}")
    path = directory.joinpath("tile", kind, *groups)
    return path if width == WIDTH else path.with_name(path.name + ".p") / str(width)


def read_bundle(content: bytes, width: int) -> list[bytes]:
    """The entries of a bundle. Raises Refused."""
    if (
        len(content) == 35 * width
        and content[::35] == bytes(width)
        and content[1::35] == b"\x21" * width
    ):
        return [content[at : at + 33] for at in range(2, len(content), 35)]  # records alone
    entries, at, end = [], 0, len(content)
    while at < end:
        start = at + 2
        at = start + int.from_bytes(content[at:start], "big")
        entries.append(content[start:at])
    if at != end or len(entries) != width:
        raise Refused("it does not hold the entries that its place requires")
    return entries


class Tree:
    """Checks a tree against its checkpoint and older ones, tile by tile."""

    def __init__(self, directory: Path, checkpoint: Checkpoint, findings: Findings) -> None:
        self.directory = directory
        self.size = checkpoint.size
        self.checkpoint = checkpoint
        self.findings = findings
        self._expected: set[Path] = set()
        self._last: tuple[int, list[bytes]] = -1, []

    def bundles(self, older: Sequence[Checkpoint]) -> Iterator[tuple[int, list[bytes]]]:
        """Yields the entries by bundle, each with its first index. Checks all hashes on the way.

        Raises Refused at the first tile that does not hold.
        """
        levels: list[list[bytes]] = [[]]
        waiting = sorted(older, key=lambda checkpoint: checkpoint.size)
        for first in range(0, self.size, WIDTH):
            index, width = first // WIDTH, min(WIDTH, self.size - first)
            content = self._tile("entries", index, width)
            try:
                entries = read_bundle(content, width)
            except Refused as problem:
                raise Refused(f"entry bundle {index}: {problem}") from None
            leaves = [sha256(b"\0" + entry).digest() for entry in entries]
            if self._tile("0", index, width) != b"".join(leaves):
                raise Refused(self._first_difference(index, leaves))
            self._check_partial("entries", index, content)
            self._check_partial("0", index, b"".join(leaves))
            while waiting and waiting[0].size <= first + width:
                old = waiting.pop(0)
                if root_of([leaves[: old.size - first], *levels[1:]]) != old.root:
                    raise Refused(
                        f"the tree does not continue the older checkpoint of size {old.size}: "
                        f"an entry before {old.size} was changed"
                    )
            yield first, entries
            if width == WIDTH:
                levels[0] = leaves
                self._carry(levels, index)
            else:
                levels[0] = leaves
        self._check_upper_partials(levels)
        if root_of(levels) != self.checkpoint.root:
            raise Refused("the tree does not have the root that the checkpoint states")
        for old in waiting:
            raise Refused(f"the tree ends at {self.size}, before the older checkpoint {old.size}")

    def check_files(self) -> None:
        """Finds files that are no part of the tree, and that were not checked."""
        for path in sorted((self.directory / "tile").rglob("*")):
            is_other = path.is_symlink() or (path.is_file() and path not in self._expected)
            if is_other and not self._is_beyond(path):
                self.findings.add(f"{path}: no part of the tree")

    def entry(self, index: int) -> bytes:
        """An entry of a tree that was checked."""
        bundle = index // WIDTH
        if self._last[0] != bundle:
            width = min(WIDTH, self.size - bundle * WIDTH)
            self._last = bundle, read_bundle(self._tile("entries", bundle, width), width)
        return self._last[1][index % WIDTH]

    def _is_beyond(self, path: Path) -> bool:
        """Whether a tile is of a later size: the process has written it and not signed it yet."""
        kind, *groups = path.relative_to(self.directory / "tile").parts
        width = WIDTH
        if len(groups) > 1 and groups[-2].endswith(".p"):
            width = int(groups.pop()) if groups[-1].isdecimal() else 0
            groups[-1] = groups[-1].removesuffix(".p")
        digits = "".join(groups).replace("x", "")
        if not (digits.isdecimal() and width and (kind == "entries" or kind.isdecimal())):
            return False
        level = 0 if kind == "entries" else int(kind)
        return level < 8 and int(digits) * WIDTH + width > self.size >> 8 * level

    def _carry(self, levels: list[list[bytes]], index: int) -> None:
        for level in itertools.count():
            if len(levels[level]) < WIDTH:
                return
            if level:
                content = b"".join(levels[level])
                if self._tile(str(level), index, WIDTH) != content:
                    raise Refused(f"tile {level}/{index} does not hold the hashes below it")
                self._check_partial(str(level), index, content)
            if level + 1 == len(levels):
                levels.append([])
            levels[level + 1].append(perfect_root(levels[level]))
            levels[level] = []
            index //= WIDTH

    def _check_upper_partials(self, levels: list[list[bytes]]) -> None:
        for level, hashes in enumerate(levels):
            if level and hashes:
                index = (self.size >> 8 * level) // WIDTH
                if self._tile(str(level), index, len(hashes)) != b"".join(hashes):
                    raise Refused(f"tile {level}/{index} does not hold the hashes below it")
                self._check_partial(str(level), index, b"".join(hashes))

    def _check_partial(self, kind: str, index: int, content: bytes) -> None:
        """Checks the older, smaller versions of a tile."""
        partial = tile_path(self.directory, kind, index, 1).parent
        if not partial.is_dir():
            return
        for path in partial.iterdir():
            if path in self._expected or self._is_beyond(path):
                continue
            self._expected.add(path)
            width = int(path.name) if _NUMBER.match(path.name) else 0
            start = _prefix(content, width) if kind == "entries" else content[: 32 * width]
            if path.is_symlink() or not path.is_file() or not width or read_tile(path) != start:
                self.findings.add(f"{path}: not the beginning of its tile")

    def _tile(self, kind: str, index: int, width: int) -> bytes:
        for candidate in {width, WIDTH}:
            path = tile_path(self.directory, kind, index, candidate)
            try:
                content = read_tile(path)
            except Unreadable:
                if path.is_symlink():
                    raise Refused(f"{path}: is a symbolic link") from None
                continue
            self._expected.add(path)
            if candidate == width:
                return content
            # A full tile, which the process has written and not signed yet.
            return _prefix(content, width) if kind == "entries" else content[: 32 * width]
        raise Refused(f"tile {kind}/{index} is missing")

    def _first_difference(self, index: int, leaves: list[bytes]) -> str:
        stored = self._tile("0", index, len(leaves))
        for number, leaf in enumerate(leaves):
            if stored[32 * number : 32 * number + 32] != leaf:
                return f"entry {index * WIDTH + number} is not what its leaf hash says"
        return f"tile 0/{index} is too long"


def _prefix(content: bytes, width: int) -> bytes:
    """The first entries of a bundle."""
    at = 0
    for _ in range(width):
        at += 2 + int.from_bytes(content[at : at + 2], "big")
    return content[:at]


def read_tile(path: Path) -> bytes:
    """The content of a tile: at most 256 entries of 64 KiB. Raises Unreadable, also for a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            return file.read(WIDTH * (2 + (1 << 16)))
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None


def open_file(path: Path) -> BinaryIO:
    """Opens a file. Raises Unreadable."""
    try:
        return path.open("rb")
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None


# --- the texts of records -------------------------------------------------------------------------


def archived_texts(tree: Tree, keys: Sequence[Key]) -> Iterator[tuple[int, int, Path]]:
    """Yields first index, end and path of the archived files of a tree, in order. Raises
    Refused."""
    directory = tree.directory / "records"
    found = []
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.name.endswith(".note"):
            if not path.with_suffix("").is_file():
                raise Refused(f"{path}: the file that it describes is missing")
            continue
        name = _ARCHIVED.match(path.name)
        if name is None or path.is_symlink():
            raise Refused(f"{path}: not a file of an archive")
        first, end = int(name[1]), int(name[2])
        check_archive_note(path, tree.checkpoint.origin, first, end, keys)
        found.append((first, end, path))
    found.sort()
    for (_, end, _), (first, _, path) in itertools.pairwise(found):
        if first < end:
            raise Refused(f"{path}: repeats records of the file before")
    yield from found


def check_archive_note(path: Path, origin: str, first: int, end: int, keys: Sequence[Key]) -> None:
    """Checks the signed note that states what an archived file holds. Raises Refused."""
    note = path.with_name(path.name + ".note")
    if not note.is_file():
        raise Refused(f"{path}: its signed note is missing")
    with open_file(note) as file:
        content = file.read(NOTE_BYTES_MAX + 1)
    try:
        text = open_note(content.decode(), keys)
    except (Refused, UnicodeDecodeError) as problem:
        raise Refused(f"{note}: {problem}") from None
    digest = sha256()
    with open_file(path) as file:
        while part := file.read(1 << 20):
            digest.update(part)
    if text != f"{ARCHIVE}\n{origin}\n{first} {end}\n{digest.hexdigest()}\n":
        raise Refused(f"{path}: not the file that its note describes")


class Texts:
    """The lines of a compressed file, read in parts of bounded length."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = gzip.GzipFile(fileobj=open_file(path))
        self._lines: list[bytes] = []
        self._next = 0
        self._rest = b""

    def take(self, count: int) -> list[bytes]:
        """The next lines: fewer than `count` only at the end. Raises Refused."""
        while len(self._lines) - self._next < count and self._read():
            pass
        found = self._lines[self._next : self._next + count]
        self._next += len(found)
        return found

    def _read(self) -> bool:
        """Reads the next part; False: there is none."""
        try:
            part = self._file.read(1 << 18)
        except (OSError, EOFError, zlib.error):
            raise Refused(f"{self._path}: cannot be decompressed") from None
        *lines, rest = (self._rest + part).split(b"\n")
        if len(rest) > RECORD_BYTES_MAX or (rest and not part):
            raise Refused(f"{self._path}: a line is cut off or too long")
        self._lines = self._lines[self._next :] + lines
        self._next, self._rest = 0, rest
        return bool(part)


@dataclass(frozen=True)
class Header:
    """The header of a segment."""

    log_id: str
    sequence: int
    position: int
    previous_digest: bytes
    previous_bytes: int
    digest: bytes
    offset: int
    """The byte after the header."""


def check_segments(tree: Tree, directory: Path) -> None:
    """Checks the chain of an origin's segments, and each frame against the tree."""
    findings, log_id = tree.findings, str(tree.findings.genesis["log_id"])
    first = int(str(tree.findings.genesis["first_position"]))
    end = first + tree.size - 1
    previous: tuple[int, int, bytes, int] | None = None  # sequence, position, digest, offset
    paths = sorted(path for path in directory.iterdir() if _SEGMENT.match(path.name))
    headers = [read_header(path) for path in paths]
    last: Path | None = None
    for number, (path, header) in enumerate(zip(paths, headers, strict=True)):
        if isinstance(header, str):
            findings.add(f"{path}: {header}")
            previous = None
            continue
        if header.log_id != log_id:
            previous = None
            continue
        if path.name != f"{header.sequence:010d}.segment":
            findings.add(f"{path}: has the number of another segment")
        follower = headers[number + 1] if number + 1 < len(headers) else None
        valid = None
        if isinstance(follower, Header) and follower.log_id == log_id:
            valid = follower.previous_bytes
        if previous is not None and previous != (
            header.sequence - 1,
            header.position,
            header.previous_digest,
            header.previous_bytes,
        ):
            findings.add(f"{path}: does not continue the segment before it")
        previous = _check_segment(tree, path, header, valid, first)
        last = path
        if previous is None:
            return
    is_short = previous is not None and previous[1] < end
    if is_short and last is not None and not last.with_suffix(".kept").is_file():
        findings.add(f"{last}: ends before record {end - 1}, which the checkpoint covers")


def _check_segment(
    tree: Tree, path: Path, header: Header, valid: int | None, first: int
) -> tuple[int, int, bytes, int] | None:
    """Returns sequence, position, digest and offset of the end; None: a problem was found."""
    findings = tree.findings
    position, digest, offset = header.position, header.digest, header.offset
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size if valid is None else valid
        file.seek(offset)
        while offset < size:
            index = position - first + 1
            prefix = file.read(36)
            length = int.from_bytes(prefix[:4], "big")
            body = (
                file.read(length)
                if len(prefix) == 36 and 1 <= length <= RECORD_BYTES_MAX + 1
                else b""
            )
            stored = prefix[4:]
            if not body or len(body) < length or sha256(digest + body).digest() != stored:
                if valid is None and index >= tree.size:
                    break  # a torn write after the checkpoint, which was never acknowledged
                findings.add(
                    f"{path}: record {position} at byte {offset} does not continue the chain"
                )
                return None
            if 0 < index < tree.size:
                entry = tree.entry(index)
                if entry != entry_of(body[:1], body[1:]) and entry != b"X":
                    findings.add(
                        f"{path}: record {position} at byte {offset} is not what the tree says"
                        + _named(body[1:])
                    )
                    return None
                findings.seen += entry[:1] == b"R"
            offset += 36 + length
            position += 1
            digest = stored
    return header.sequence, position, digest, offset


def read_header(path: Path) -> Header | str:
    """The header of a segment, or what is wrong with it."""
    with open_file(path) as file:
        prefix = file.read(8 + 36)
        length = int.from_bytes(prefix[8:12], "big")
        if prefix[:8] != b"PDPAUD1\n" or not 1 <= length <= RECORD_BYTES_MAX:
            return "does not start as a segment"
        body, offset = file.read(length), file.tell()
    try:
        data = json.loads(body[1:])
        previous = bytes.fromhex(data["previous_digest"])
        header = Header(
            str(data["log_id"]),
            int(data["sequence"]),
            int(data["position"]),
            previous,
            int(data["previous_bytes"]),
            sha256(previous + body).digest(),
            offset,
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return "the header is malformed"
    if len(body) < length or body[:1] != b"H" or header.digest != prefix[12:]:
        return "the digest of the header does not hold"
    return header


def entry_of(kind: bytes, payload: bytes) -> bytes:
    """The entry of a frame: gaps are part of it, other payloads by their digest."""
    return kind + (payload if kind == b"G" else sha256(payload).digest())


@dataclass(frozen=True)
class Tombstone:
    """What remains of a record whose text was erased on request."""

    digest: bytes
    """That of the text."""
    erasure: str
    remains: dict[str, object]


def read_tombstone(text: bytes) -> Tombstone | None:
    """The tombstone in the place of a text; None: the text is no tombstone."""
    if b'"erased":{"at":' not in text:
        return None
    try:
        data = json.loads(text)
        return Tombstone(
            bytes.fromhex(data["erased"]["digest"]), str(data["erased"]["erasure"]), data
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def recorded_digest(text: bytes) -> bytes:
    """The digest of the text that was recorded, also for a tombstone."""
    tombstone = read_tombstone(text)
    return sha256(text).digest() if tombstone is None else tombstone.digest


def _named(payload: bytes) -> str:
    try:
        return f" (it calls itself {json.loads(payload)['decision_id']!r})"
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


# --- one tree -------------------------------------------------------------------------------------


def check_tree(
    directory: Path,
    keys: Sequence[Key],
    older: Sequence[Checkpoint],
    witnesses: Witnesses = NO_WITNESSES,
) -> tuple[Checkpoint | None, Findings]:
    """Checks a tree, and all texts of records that are with it."""
    findings = Findings()
    try:
        with open_file(directory / "checkpoint") as file:
            note = file.read(NOTE_BYTES_MAX + 1)
        try:
            checkpoint = open_checkpoint(note.decode(), keys)
        except UnicodeDecodeError:
            raise Refused("not a signed note") from None
    except Refused as problem:
        findings.add(f"checkpoint: {problem}")
        return None, findings
    tree = Tree(directory, checkpoint, findings)
    mine = [old for old in older if old.origin == checkpoint.origin]
    try:
        for cosigned in witnesses.check(directory, keys):
            if cosigned.origin != checkpoint.origin:
                raise Refused("the cosigned checkpoint is of another tree")
            mine.append(cosigned)
        _check_entries(tree, keys, mine)
        tree.check_files()
        if directory.parent.name == "tree":
            check_segments(tree, directory.parent.parent)
    except Refused as problem:
        findings.add(str(problem))
    return checkpoint, findings


def _check_entries(tree: Tree, keys: Sequence[Key], older: Sequence[Checkpoint]) -> None:
    archives = list(archived_texts(tree, keys))
    for archived in archives:
        if not archived[0] < archived[1] <= tree.size:
            raise Refused(f"{archived[2]}: the tree has no such entries")
    files = iter(archives)
    first = end = 0
    path: Path | None = None
    texts: Texts | None = None
    for start, entries in tree.bundles(older):
        alone = _account(tree.findings, start, entries)
        stop = start + len(entries)
        at = start
        while at < stop:
            if at >= end:
                if texts is not None and texts.take(1):
                    raise Refused(f"{path}: holds more records than the tree")
                first, end, path = next(files, (tree.size, tree.size, None))
                texts = Texts(path) if path is not None else None
            at = max(at, min(first, stop))
            here = entries[at - start : min(end, stop) - start]
            records = here if alone else [entry for entry in here if entry[:1] == b"R"]
            found = texts.take(len(records)) if texts is not None else []
            digests = [sha256(text).digest() for text in found]
            if [entry[1:] for entry in records] != digests:
                if [entry[1:] for entry in records] != list(map(recorded_digest, found)):
                    raise Refused(_first_bad_text(path, at, here, found))
                for tombstone in filter(None, map(read_tombstone, found)):
                    tree.findings.erased.setdefault(tombstone.erasure, []).append(tombstone.remains)
                    tree.findings.seen -= 1
            tree.findings.seen += len(found)
            at = max(at, min(end, stop)) if first < stop else stop
    if texts is not None and texts.take(1):
        raise Refused(f"{path}: holds more records than the tree")


def _first_bad_text(
    path: Path | None, at: int, entries: Sequence[bytes], texts: Sequence[bytes]
) -> str:
    rest = iter(texts)
    for index, entry in enumerate(entries, start=at):
        if entry[:1] != b"R":
            continue
        text = next(rest, None)
        if text is None:
            return f"{path}: record {index} is missing"
        if recorded_digest(text) != entry[1:]:
            return f"{path}: record {index} is not what the tree says{_named(text)}"
    return f"{path}: holds more records than the tree"


def _account(findings: Findings, start: int, entries: Sequence[bytes]) -> bool:
    """Accounts for entries. Returns whether all of them are records."""
    findings.entries += len(entries)
    is_long = set(map(len, entries)) == {33}
    if start and is_long and b"".join(entries)[::33] == b"R" * len(entries):
        findings.records += len(entries)  # nearly all bundles
        return True
    for index, entry in enumerate(entries, start=start):
        kind = entry[:1]
        if kind == b"R" and len(entry) == 33:
            findings.records += 1
        elif kind == b"A" and len(entry) == 33:
            findings.changes += 1
        elif kind == b"G":
            _account_gap(findings, index, entry)
        elif entry == b"X":
            findings.damaged += 1
        elif kind == b"S" and index == 0:
            findings.genesis = read_genesis(entry)
        elif kind in b"SX" or len(entry) != 33:
            raise Refused(f"entry {index} is malformed")
    if start == 0 and not findings.genesis:
        raise Refused("entry 0 does not say which log this is")
    return False


def _account_gap(findings: Findings, index: int, entry: bytes) -> None:
    try:
        gap = json.loads(entry[1:])
        if "count" in gap:
            known = findings.folded.get(gap["decision_id"], 1)
            findings.folded[str(gap["decision_id"])] = max(known, int(gap["count"]))
        else:
            findings.dropped += int(gap["dropped"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Refused(f"entry {index} is not a gap") from None


def read_genesis(entry: bytes) -> dict[str, object]:
    """The first entry. Raises Refused."""
    try:
        data = json.loads(entry[1:])
        genesis = {name: data[name] for name in ("origin", "log_id", "why", "previous")}
        return {**genesis, "first_position": int(data["first_position"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Refused("entry 0 is malformed") from None


# --- commands -------------------------------------------------------------------------------------


def find_trees(directory: Path) -> list[Path]:
    """The directories of trees below a directory. Symbolic links are not followed."""
    if not directory.is_dir():
        raise Unreadable(f"{directory}: not a directory")
    found = []
    for path, names, files in os.walk(directory):
        if "checkpoint" in files:
            found.append(Path(path))
            names.clear()
        names.sort()
    return found


def verify_directory(
    directory: Path,
    keys: Sequence[Key],
    older: Sequence[Checkpoint],
    witnesses: Witnesses,
    *,
    complete: bool,
) -> int:
    """Checks all trees below a directory; returns the exit status."""
    trees = find_trees(directory)
    failed = 0
    origins: dict[str, int] = {}
    for path in trees:
        checkpoint, findings = check_tree(path, keys, older, witnesses)
        missing = findings.records - findings.seen - sum(map(len, findings.erased.values()))
        if complete and missing and not findings.problems:
            findings.add(f"{missing} records are not here")
        if checkpoint is not None:
            if checkpoint.origin in origins:
                findings.add("another directory has a tree of this origin")
            origins[checkpoint.origin] = checkpoint.size
        for problem in findings.problems[:PROBLEMS_MAX]:
            say(f"BAD {path}: {problem}")
        failed += bool(findings.problems)
        if checkpoint is not None and not findings.problems:
            _say_tree(checkpoint, findings)
    for old in older:
        if old.origin not in origins:
            say(f"BAD the tree of the older checkpoint {old.origin} of size {old.size} is not here")
            failed += 1
    if not trees:
        say(f"nothing was checked: there is no tree below {directory}")
        return 1 if failed else 2
    if not older:
        say("not checked: whether the log continues an older checkpoint (give one)")
    return 1 if failed else 0


def _say_tree(checkpoint: Checkpoint, findings: Findings) -> None:
    say(
        f"OK {checkpoint.origin}: {findings.entries} entries, {findings.records} records "
        f"({findings.seen} with their text here), {findings.decisions} decisions, of which "
        f"{findings.dropped} were dropped"
    )
    if findings.changes:
        say(f"  {findings.changes} administration records, whose texts are in a database")
    for erasure, remains in findings.erased.items():
        denials = sum(record.get("effect") == "DENY" for record in remains)
        say(
            f"  erased on request: the texts of {len(remains)} records, by their operator's word "
            f"{denials} denials (erasure {erasure})"
        )
    if findings.damaged:
        say(f"  {findings.damaged} frames were damaged before the tree read them")
    genesis = findings.genesis
    if genesis["first_position"] or genesis["previous"]:
        before = str(genesis["previous"] or "no known tree").split("\n")
        say(
            f"  begins at record {genesis['first_position']}: {genesis['why']}; "
            f"after {' '.join(before[:2])}"
        )


def verify_record(
    proof: Path, keys: Sequence[Key], witnesses: Sequence[Key], trusted: Sequence[Checkpoint]
) -> int:
    """Checks the proof of one record, and prints the record."""
    lines, note = read_proof(proof)
    if len(lines) < 3 or lines[0] != "c2sp.org/tlog-proof@v1":
        raise Refused("not a proof of a record")
    if not lines[1].startswith("extra ") or not lines[2].startswith("index "):
        raise Refused("the proof does not hold the record")
    content, number = decode64(lines[1][6:]), lines[2][6:]
    if not _NUMBER.match(number):
        raise Refused("the index is not a number")
    checkpoint = open_checkpoint(note, keys, witnesses)
    for known in trusted:
        if known.origin != checkpoint.origin or (
            known.size == checkpoint.size and known.root != checkpoint.root
        ):
            raise Refused("the proof is for another log than your checkpoint")
        if known.size != checkpoint.size:
            raise Refused("the proof is for another checkpoint than yours: ask for one of yours")
    tombstone = read_tombstone(content[1:]) if content[:1] == b"E" else None
    entry = entry_of(content[:1], content[1:])
    leaf = leaf_hash(entry if tombstone is None else b"R" + tombstone.digest)
    path = [decode64(line) for line in lines[3:]]
    if root_of_inclusion(leaf, int(number), checkpoint.size, path) != checkpoint.root:
        raise Refused("the record is not in the log at this place")
    say(f"OK entry {number} of {checkpoint.origin} (size {checkpoint.size}):")
    if tombstone is not None:
        say("its text was erased on request. What remains is not proven, except for the place:")
    say(content[1:].decode("ascii", "backslashreplace"))
    return 0


def verify_consistency(
    old: Sequence[Checkpoint], proof: Path, keys: Sequence[Key], witnesses: Sequence[Key]
) -> int:
    """Checks that a newer checkpoint continues older ones."""
    lines, note = read_proof(proof)
    if not lines or not lines[0].startswith("old "):
        raise Refused("not a proof of consistency")
    new = open_checkpoint(note, keys, witnesses)
    path = [decode64(line) for line in lines[1:]]
    for checkpoint in old:
        check_consistency(checkpoint, new, path)
        say(f"OK {new.origin}: size {new.size} continues size {checkpoint.size}")
    return 0


def read_proof(path: Path) -> tuple[list[str], str]:
    """The lines of a proof, and the note after them. Raises Refused, Unreadable."""
    with open_file(path) as file:
        content = file.read(PROOF_BYTES_MAX + 1)
    if len(content) > PROOF_BYTES_MAX:
        raise Refused("the proof is too long")
    try:
        head, separator, note = content.decode().partition("\n\n")
    except UnicodeDecodeError:
        raise Refused("not a proof") from None
    if not separator:
        raise Refused("the proof holds no checkpoint")
    return head.split("\n"), note


def say(line: str) -> None:
    """Prints a line; what does not print is escaped."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    sys.stdout.write(text.encode("ascii", "backslashreplace").decode() + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n", 1)[0], allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("directory", "record", "consistency"):
        command = commands.add_parser(name, allow_abbrev=False)
        command.add_argument("--key", action="append", required=True, help="verifier key, or file")
        command.add_argument("--witness", action="append", default=[], help="key of a cosigner")
        if name != "consistency":
            command.add_argument("--checkpoint", action="append", default=[], type=Path)
        else:
            command.add_argument("old", type=Path, help="the older checkpoint")
        if name == "directory":
            command.add_argument("--complete", action="store_true", help="every text must be here")
            command.add_argument(
                "--cosignatures", type=int, default=0, help="how many witnesses of each tree"
            )
        command.add_argument("path", type=Path)
    options = parser.parse_args(arguments)
    try:
        keys = [Key.parse(_key_text(text), LOG_KEY) for text in options.key]
        witnesses = [Key.parse(_key_text(text), COSIGNER_KEY) for text in options.witness]
        paths = [options.old] if options.command == "consistency" else options.checkpoint
        older = [found for path in paths for found in read_checkpoints(path, keys, witnesses)]
        if options.command == "directory":
            asked = Witnesses(witnesses, options.cosignatures)
            return verify_directory(options.path, keys, older, asked, complete=options.complete)
        if options.command == "record":
            return verify_record(options.path, keys, witnesses, older)
        return verify_consistency(older, options.path, keys, witnesses)
    except Refused as problem:
        say(f"BAD {problem}")
        return 1
    except (Unreadable, OSError) as problem:
        say(f"cannot be read: {problem}")
        return 2


def _key_text(text: str) -> str:
    return text if "+" in text else Path(text).read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

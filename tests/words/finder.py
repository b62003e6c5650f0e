"""Finds words of `words.yaml` in the files of the project."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

ROOT = Path(__file__).parents[2]
SUFFIXES = {".md", ".py", ".proto", ".go", ".ts", ".tsx", ".yaml", ".toml"}
NOT_PROSE = re.compile(r"`[^`\n]*`|\]\([^)\n]*\)|https?://\S+")
FENCE = re.compile(r"^ *(```|~~~)")


@dataclass(frozen=True)
class WordList:
    """`words.yaml`, read."""

    pattern: re.Pattern[str]
    instead: dict[str, str]
    paths: tuple[str, ...]
    exempt: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """One word, where it is, and what to write instead."""

    path: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r}: write {self.instead}"


def word_list() -> WordList:
    """Reads `words.yaml`."""
    text = yaml.safe_load((Path(__file__).parent / "words.yaml").read_text())
    groups = {f"w{number}": words for number, words in enumerate(text["instead_of"])}
    pattern = "|".join(
        rf"(?P<{name}>(?<![\w-])(?:{words})(?![\w-]))" for name, words in groups.items()
    )
    instead = {name: text["instead_of"][words] for name, words in groups.items()}
    return WordList(
        re.compile(pattern, re.IGNORECASE), instead, tuple(text["paths"]), tuple(text["exempt"])
    )


def find(words: WordList, path: str, text: str) -> Iterator[Found]:
    """The words in a text. Code in Markdown is left out."""
    markdown = PurePosixPath(path).suffix == ".md"
    in_code = False
    for number, line in enumerate(text.splitlines(), start=1):
        if markdown and FENCE.match(line):
            in_code = not in_code
        if in_code or (markdown and line.startswith("    ")):
            continue
        for match in words.pattern.finditer(NOT_PROSE.sub(" ", line)):
            assert match.lastgroup is not None
            yield Found(path, number, match[0], words.instead[match.lastgroup])


def files(paths: tuple[str, ...]) -> list[str]:
    """Files below the paths that git knows, or would if they were added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    named = {PurePosixPath(name) for name in done.stdout.splitlines()}
    mine = PurePosixPath(__file__).relative_to(ROOT).parent
    return sorted(
        str(path)
        for path in named
        if path.suffix in SUFFIXES and mine not in path.parents and (ROOT / path).exists()
    )


def exempted(words: WordList, path: str) -> str | None:
    """The entry of the list of exemptions that covers the path."""
    parents = [path, *map(str, PurePosixPath(path).parents)]
    return next((entry for entry in words.exempt if entry in parents), None)


def complaints(words: WordList) -> list[str]:
    """Each word outside of the exempt paths, and each exemption that is no longer needed."""
    wrong: list[str] = []
    needed: set[str] = set()
    for path in files(words.paths):
        entry = exempted(words, path)
        if entry in needed:
            continue  # one word is enough to need the exemption
        for found in find(words, path, (ROOT / path).read_text()):
            if entry is not None:
                needed.add(entry)
                break
            wrong.append(str(found))
    unneeded = [entry for entry in words.exempt if entry not in needed]
    return wrong + [f"{entry} needs no exemption: remove it" for entry in unneeded]

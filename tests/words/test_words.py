"""The check of words finds what it must, and leaves names alone."""

from dataclasses import replace

import pytest

from tests.words.finder import exempted, find, word_list

WORDS = word_list()


def words_in(text: str, path: str = "docs/page.md") -> list[str]:
    return [found.word for found in find(WORDS, path, text)]


@pytest.mark.parametrize(
    "text",
    ["A denial is put on record.", "It stays open for ever.", "Whoever asks is told.", "Two doors"],
)
def test_a_word_of_the_list_is_found(text: str) -> None:
    assert words_in(text)


@pytest.mark.parametrize(
    "text",
    ["the setting `stay_open`", "STAYED_OPEN", "the wall clock", "[rules](page.md#the-walls)"],
)
def test_names_and_link_targets_are_left_alone(text: str) -> None:
    assert words_in(text) == []


def test_code_in_markdown_is_left_alone_and_comments_in_python_are_not() -> None:
    assert words_in("```\nforeign resource\n```\nplain\n") == []
    assert words_in("# what a foreign resource is", "pdp/module.py") == ["foreign resource"]


def test_a_word_is_named_with_its_line_and_with_what_to_write() -> None:
    (found,) = find(WORDS, "docs/page.md", "Fine.\nThe barrier stands.\n")
    assert str(found) == "docs/page.md:2: 'stands': write is, holds, applies"


def test_an_exempt_path_covers_what_is_below_it_and_nothing_beside_it() -> None:
    words = replace(WORDS, exempt=("pdp/wire",))
    assert exempted(words, "pdp/wire/server.py") == "pdp/wire"
    assert exempted(words, "pdp/wires.py") is None

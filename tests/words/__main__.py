"""`make words`: fails on a word of `words.yaml`, and on an exemption that is no longer needed."""

import sys

from tests.words.finder import exempted, found_in_project, word_list


def main() -> int:
    words = word_list()
    found = found_in_project(words)
    wrong = [str(one) for one in found if exempted(words, one.path) is None]
    needed = {exempted(words, one.path) for one in found}
    wrong += [
        f"{entry} needs no exemption: remove it" for entry in words.exempt if entry not in needed
    ]
    sys.stdout.write("".join(f"{line}\n" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

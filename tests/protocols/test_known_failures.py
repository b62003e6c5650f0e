"""Lists of known failures hold in both directions."""

from pathlib import Path

import pytest

from tests.protocols import known_failures
from tests.protocols.h2spec import results

REPORT = """<testsuites>
<testsuite package="http2/3.5"><testcase/><testcase><error>x</error></testcase></testsuite>
<testsuite package="http2/4.2"><testcase><failure>x</failure></testcase></testsuite>
</testsuites>"""


def test_a_failure_that_is_not_listed_and_an_entry_that_passes_are_both_wrong() -> None:
    run, failed = results(REPORT)
    assert (run, failed) == (
        {"http2/3.5/1", "http2/3.5/2", "http2/4.2/1"},
        {"http2/3.5/2", "http2/4.2/1"},
    )
    assert not known_failures.differences(run, failed, dict.fromkeys(failed, "why"))
    assert known_failures.differences(run, failed, {"http2/3.5/2": "x", "http2/3.5/1": "x"}) == [
        "http2/4.2/1: failed, and is not known to fail",
        "http2/3.5/1: passed, but is listed as failing",
    ]
    assert known_failures.differences(set(), set(), {}), "a suite that ran nothing proves nothing"


def test_each_entry_gives_a_reason(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("# a comment\n\na/1: because: so\n")
    assert known_failures.read(listed) == {"a/1": "because: so"}
    for text in ("a/1", "a/1: ", "a/1: x\na/1: y"):
        listed.write_text(text)
        with pytest.raises(ValueError, match="no reason"):
            known_failures.read(listed)
    for path in Path(__file__).parent.glob("*.txt"):
        known_failures.read(path)

"""The tables that the bench writes into docs/performance.md."""

from xml.etree import ElementTree

import pytest

from bench import page, plan
from bench.series import CERBOS, LOADED, PDP
from tests.bench.made_up import content, measurement, series

CONTENT = content(
    series(PDP, LOADED, measurement(8_000)), series(CERBOS, LOADED, measurement(2_000))
)


def test_the_page_has_a_place_for_the_tables_and_keeps_the_rest():
    before = plan.PAGE.read_text()
    after = page.put_into(before, page.tables(CONTENT))
    assert "| Check | 1,100 | this PDP | 8,000 | 1.000 | 2.000 | 4.00 | 100% | 100 |" in after
    assert after.partition(page.BEGIN)[0] == before.partition(page.BEGIN)[0]
    assert after.partition(page.END)[2] == before.partition(page.END)[2]
    assert page.put_into(after, page.tables(CONTENT)) == after


def test_a_page_without_that_place_is_refused():
    with pytest.raises(ValueError, match="no place"):
        page.put_into("# Performance\n", page.tables(CONTENT))


def test_figures_of_a_quick_run_say_so():
    quick = content(series(PDP, LOADED, measurement(8_000)))
    quick["parts"]["check"]["quick"] = True
    assert "not for comparison" in page.tables(quick)
    assert "not for comparison" not in page.tables(CONTENT)


def test_the_plot_has_a_bar_for_each_subject():
    drawn = page.picture(CONTENT)
    assert drawn is not None
    texts = [each.text for each in ElementTree.fromstring(drawn).iter() if each.text]
    assert texts.index(PDP) < texts.index(CERBOS)  # the fastest first
    assert {"8,000", "2,000"} <= set(texts)
    assert page.picture({"parts": {}}) is None


def test_what_failed_is_named():
    failed = {**CONTENT, "failed": {"edges": "no h2load"}, "left_out": {"OPA": "no go"}}
    assert page.missing(failed) == "FAILED edges: no h2load\nLEFT OUT OPA: no go"

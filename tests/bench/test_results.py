"""The conclusions of the bench from its figures."""

import pytest

from bench.results import NOT_MEASURED, Results, Target
from bench.series import ALLOWS, BATCH, BESIDE_BATCHES, CERBOS, DENIALS, LOADED, PDP, UNLOADED
from tests.bench.made_up import content, measurement, series


def _target(results: Results, name: str) -> Target:
    (found,) = [each for each in results.targets() if each.name == name]
    return found


def test_a_ratio_is_the_median_of_the_ratios_within_each_round():
    ours = series(PDP, LOADED, measurement(100), measurement(800), measurement(900))
    theirs = series(CERBOS, LOADED, measurement(100), measurement(200), measurement(100))
    results = Results(content(ours, theirs))
    found = results.find(PDP, LOADED)
    assert found is not None
    assert results.to_cerbos(found) == 4  # of 1, 4 and 9; the medians alone would say 8


def test_a_ratio_that_counts_is_not_better_than_what_each_does_with_a_whole_core():
    ours = series(PDP, LOADED, measurement(800, core_share=1.0))
    theirs = series(CERBOS, LOADED, measurement(100, core_share=0.5))
    target = _target(Results(content(ours, theirs)), "Check, requests/s, to Cerbos")
    assert target.measured == "4.00x"
    assert target.reached


def test_the_fastest_peer_is_named():
    rows = [
        series(subject, LOADED, measurement(rate))
        for subject, rate in ((PDP, 800), (CERBOS, 100), ("OPA", 400), ("OpenFGA", 300))
    ]
    target = _target(Results(content(*rows)), "Check, requests/s, to the fastest peer, OPA")
    assert target.measured == "2.00x"
    assert not target.reached


def test_batches_are_compared_by_checks_and_not_by_requests():
    ours = series(PDP, BATCH, measurement(10), checks=1_000)
    theirs = series(CERBOS, BATCH, measurement(20), checks=50)
    results = Results(content(ours, theirs, part="batch", in_process_us=220.0))
    name = "BatchCheck of 1,000, checks/s"
    assert _target(results, f"{name}, to Cerbos' CheckResources of 50").measured == "10.00x"
    target = _target(results, name)
    assert target.measured == "10,000"
    assert target.wanted.startswith(">= 10,000,")
    assert target.reached


@pytest.mark.parametrize(("p99", "reached"), [(25.0, True), (25.1, False)])
def test_a_check_beside_batches_has_a_bound(p99: float, reached: bool):
    row = series(PDP, BESIDE_BATCHES, measurement(100, p50_ms=p99 / 2))
    target = _target(Results(content(row)), "Check beside such BatchChecks, p99")
    assert target.reached is reached


def test_denials_are_compared_with_the_allows_of_the_same_rounds():
    allows = series(PDP, ALLOWS, measurement(100), measurement(1_000))
    denials = series(PDP, DENIALS, measurement(80), measurement(800))
    target = _target(Results(content(allows, denials)), "durable denials/s, to this PDP's allows")
    assert target.measured == "0.80x"
    assert target.reached


@pytest.mark.parametrize(("last", "reached"), [(1.09, True), (1.11, False), (0.89, False)])
def test_the_size_of_the_policy_does_not_matter_within_a_tenth(last: float, reached: bool):
    small = series(PDP, UNLOADED, measurement(100, p50_ms=1.0))
    large = series(PDP, UNLOADED, measurement(100, p50_ms=last), rules=110_000)
    name = "Check unloaded, p50, from 1,100 to 110,000 rules"
    assert _target(Results(content(small, large)), name).reached is reached


def test_what_was_not_measured_is_not_reached():
    targets = Results({"parts": {}}).targets()
    assert {each.measured for each in targets} == {NOT_MEASURED}
    assert not any(each.reached for each in targets)


def test_a_revocation_without_the_promised_load_does_not_count():
    stale = [{"place": "replica", "p50_ms": 1.0, "p99_ms": 2.0, "max_ms": 3.0}]
    figures = {"stale": stale, "guard_hit_us": 5.0}
    name = "a revocation everywhere, p99, beside 1,000 requests/s"
    for served, reached in ((1_000.0, True), (900.0, False)):
        results = Results(content(part="edges", served_per_second=served, **figures))
        assert _target(results, name).reached is reached

"""No caller fills the log at the expense of others, and no denial is given that is not in it."""

import asyncio
from pathlib import Path

import pytest

from pdp.audit import Recorder, Shares
from pdp.errors import ShareExceeded
from tests.kit.audit.logs import ORIGIN, ids_of
from tests.kit.audit.records import decision_record
from tests.kit.waiting import run


def test_a_share_is_used_up_comes_back_and_is_each_callers_own() -> None:
    shares = Shares(100, 1000)
    shares.require("a", 0.0)
    shares.charge("a", 1500, 0.0)  # one request may pass the bound, and is paid for afterwards
    with pytest.raises(ShareExceeded) as caught:
        shares.require("a", 1.0)
    assert caught.value.metadata == {
        "limit": "audit_share_bytes_per_second",
        "maximum": "100",
    }
    assert caught.value.retry_after_ms == 4001
    shares.require("b", 1.0)
    shares.require("a", 5.1)
    # Silence saves up no more than the burst.
    shares.charge("a", 1000, 1e9)
    with pytest.raises(ShareExceeded):
        shares.require("a", 1e9)


def test_a_flood_that_varies_a_field_is_refused_and_others_are_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """146 batches of 1,000 denials in 5 s have left 65 MB of segments."""
    monkeypatch.setattr("pdp.audit.recorder.WAIT_SECONDS_MAX", 30.0)
    recorder = Recorder(tmp_path, ORIGIN, shares=Shares(1, 1 << 20))
    recorder.start()
    acked: list[str] = []
    refused = 0
    for _ in range(12):
        try:
            acked += run(recorder.record([decision_record(caller="greedy") for _ in range(1000)]))
        except ShareExceeded:
            refused += 1
    assert 0 < refused < 12
    assert len(acked) * 400 < (1 << 20) + 1000 * 500
    acked += run(recorder.record([decision_record(caller="modest")]))
    with pytest.raises(ShareExceeded):
        asyncio.run(run(recorder.record([decision_record(caller="greedy")])))
    recorder.stop()
    assert ids_of(tmp_path / ORIGIN) == acked
    assert recorder.counts().refused == 1000 * refused + 1
    output = capfd.readouterr()
    assert (output.out + output.err).count("audit_share_exceeded") == 1


def test_equal_denials_use_up_next_to_nothing_of_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.audit.recorder.WAIT_SECONDS_MAX", 30.0)
    recorder = Recorder(tmp_path, ORIGIN, shares=Shares(1, 100_000))
    recorder.start()
    for _ in range(100):
        run(recorder.record([decision_record(token_id="equal") for _ in range(100)]))
    recorder.stop()
    assert recorder.counts().folded == 9_999
    assert recorder.counts().refused == 0

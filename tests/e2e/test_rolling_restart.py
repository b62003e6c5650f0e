"""Replicas are restarted in turn, and no caller notices (F5)."""

import os
from pathlib import Path

import pytest
from pdp_client import Guard

from tests.e2e.rolling import Load, replicas_on, restart_in_turn, sidecar_of, target_of
from tests.kit import soak

CYCLES = soak.count(6, sample=2)
"""In two, each replica is restarted once."""
DEADLINE_SECONDS = 2.0
"""A replica that starts takes a core of this machine away. `python -m tests.e2e.rolling` says what
the default deadline gives."""
FRESH_SECONDS = 1.0
"""A lease: after that nobody may be allowed any more."""


@pytest.mark.soak
def test_no_check_fails_and_no_revoked_one_is_allowed_while_replicas_are_restarted(
    tmp_path: Path, postgresql_url: str
) -> None:
    """F5, asked directly and through a sidecar. Nor does a new replica give one answer from before
    it was there, ready or not."""
    with (
        replicas_on(postgresql_url, tmp_path) as replicas,
        sidecar_of(replicas, tmp_path) as (socket, sidecar_pid),
        Guard(target_of(replicas), deadline_seconds=DEADLINE_SECONDS) as direct,
        Guard(socket, deadline_seconds=DEADLINE_SECONDS) as beside,
    ):
        load = Load([direct, direct, beside, beside], [os.getpid(), sidecar_pid])
        tally = restart_in_turn(replicas, load, CYCLES)
    assert tally.checks > 200
    assert tally.allowed > 0
    assert not tally.failures
    assert tally.late_seconds_max < FRESH_SECONDS
    assert tally.answers_of_new > 0
    assert tally.wrong_of_new == 0

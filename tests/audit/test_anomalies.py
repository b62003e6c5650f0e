"""What is unusual about the denials of now."""

from collections.abc import Iterator

from sqlalchemy import Engine

from pdp.audit import (
    KIND_RECORD,
    DecisionRecord,
    Log,
    Place,
    SqlDestination,
    Unusual,
    encode,
    find_anomalies,
)
from pdp.audit.rollups import HOUR
from pdp.audit.segments import Frame, next_frame
from pdp.model import Actor, Effect, Reason
from tests.kit.audit.logs import ORIGIN
from tests.kit.audit.records import decision_record

NOW = 1_790_000_000.0


def denial(at: float, permission: str = "course:edit", **fields: object) -> DecisionRecord:
    values = {"reason": Reason.CONDITION_NOT_MET, "caller": "a", "actor": None, "query": None}
    return decision_record(
        **{"decided_at": at, "effect": Effect.DENY, "permission": permission, **values, **fields}
    )


def store(engine: Engine, records: list[DecisionRecord]) -> None:
    def frames() -> Iterator[Frame]:
        place = Place(1, 100, 0, bytes(32))
        for record in records:
            frame = next_frame(place, KIND_RECORD, encode(record))
            place = frame.after
            yield frame

    SqlDestination(engine).commit(Log(ORIGIN, "0" * 32), list(frames()))


def found(engine: Engine) -> set[tuple[Unusual, str, str]]:
    return {
        (finding.what, finding.dimension, finding.value) for finding in find_anomalies(engine, NOW)
    }


def test_usual_denials_are_no_anomaly(engine: Engine) -> None:
    """A hundred an hour, for a day, and now."""
    store(engine, [denial(NOW - 36 * number) for number in range(2_500)])
    assert found(engine) == set()


def test_a_spike_a_new_reason_and_a_user_without_any_allow_are_found(
    engine: Engine,
) -> None:
    usual = [denial(NOW - 2 * HOUR - 600 * number) for number in range(140)]
    spike = [denial(NOW - 60, caller="b") for _ in range(50)]
    new = [denial(NOW - 30, reason=Reason.TOKEN_EXPIRED)]
    lost = Actor("user_lost", "sess_1", None)
    denied = [denial(NOW - 20, f"course:{name}", actor=lost) for name in "abcde"]
    lucky = Actor("user_lucky", "sess_1", None)
    allowed = [denial(NOW - 20, f"course:{name}", actor=lucky) for name in "abcde"]
    allowed.append(
        denial(NOW - 10, actor=lucky, effect=Effect.ALLOW, reason=Reason.ALLOWED_BY_RULE)
    )
    single = [denial(NOW - 20, actor=Actor("user_single", "s", None)) for _ in range(9)]
    store(engine, [*usual, *spike, *new, *denied, *allowed, *single])
    anomalies = found(engine)
    assert (Unusual.SPIKE, "caller", "b") in anomalies
    assert (Unusual.SPIKE, "effect", "DENY") in anomalies
    assert (Unusual.NEW_REASON, "reason", "TOKEN_EXPIRED") in anomalies
    assert {value for what, _, value in anomalies if what is Unusual.USER_DENIED} == {"user_lost"}
    assert (Unusual.SPIKE, "reason", "TOKEN_EXPIRED") not in anomalies


def test_without_any_history_nothing_is_new(engine: Engine) -> None:
    store(engine, [denial(NOW - 30)])
    assert found(engine) == set()

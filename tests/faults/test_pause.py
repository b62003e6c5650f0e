"""The process is paused for longer than the bound between reading the facts and answering, as a
garbage collector, a debugger or a starved machine makes it."""

import time
from pathlib import Path
from typing import Any

import pytest

from pdp import authorizer as corridor
from pdp.audit import Recorder
from pdp.authorizer import Authorizer
from pdp.database.engine import open_engine
from pdp.errors import FactsStale
from pdp.facts import Replica, Store
from pdp.model import Effect, Grant, Permission, Question, Role, Rule, ToUser, User
from pdp.recording import Recording
from tests.kit.faults.table import FAULTS
from tests.kit.identity.verifiers import make_verifier
from tests.kit.tokens import session_token
from tests.kit.waiting import eventually, run

BOUND = 0.3


@pytest.mark.parametrize("confirmed", [True, False], ids=["as it is", "control: no last look"])
def test_what_was_revoked_during_a_pause_is_not_allowed_after_it(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, confirmed: bool
) -> None:
    engine = open_engine(sqlite_url)
    store = Store(engine)
    with store.write() as transaction:
        transaction.apply_many([Permission("course:view"), Role("R")])
        transaction.insert(Rule("r", "R", Effect.ALLOW, "course:view"))
        transaction.insert(User("user_1"))
        transaction.insert(Grant("g", "R", ToUser("user_1")))
    replica = Replica(store, staleness_seconds_max=BOUND, poll_seconds=0.02)
    recorder = Recorder(tmp_path / "audit", "one")
    recorder.start()
    replica.start()
    decide = corridor.decide

    def pause_and_decide(*arguments: Any) -> Any:
        decision = decide(*arguments)
        with store.write() as transaction:
            transaction.delete(Grant, ("g",))
        fault = FAULTS["F41"]
        until = time.monotonic() + fault.seconds(staleness_seconds_max=BOUND)
        eventually(lambda: time.monotonic() > until and replica.revision == transaction.revision)
        assert replica.ready()
        return decision

    monkeypatch.setattr(corridor, "decide", pause_and_decide)
    if not confirmed:
        monkeypatch.setattr(Replica, "confirm", lambda *_: None)
    verifying = make_verifier(clock=time.time)
    asking = Authorizer(verifying, replica, Recording(recorder), clock=time.time)
    token = session_token(now=time.time(), user_id="user_1")
    try:
        eventually(replica.ready)
        if confirmed:
            with pytest.raises(FactsStale):
                run(asking.rule(token, [Question("course:view")], "test"))
        else:
            ruling = run(asking.rule(token, [Question("course:view")], "test"))
            assert ruling.decisions[0].effect is Effect.ALLOW
    finally:
        replica.stop()
        recorder.stop()
        engine.dispose()

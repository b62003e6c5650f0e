"""Legal holds, placed and released as the commands do."""

from sqlalchemy import Engine

from pdp.audit import retention
from pdp.facts import Store


def place_hold(engine: Engine, hold: retention.Hold) -> None:
    with Store(engine).write() as transaction:
        retention.place_hold(transaction, hold)


def release_hold(engine: Engine, name: str) -> None:
    with Store(engine).write() as transaction:
        retention.release_hold(transaction, name)

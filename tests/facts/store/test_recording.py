"""The administration records of a transaction."""

import pytest
from sqlalchemy import Engine, event

from pdp.administration_records import Author, Source
from pdp.audit import AdministrationLog, ChangeFilter
from pdp.errors import AlreadyExists
from pdp.facts import Store
from pdp.model import Grant, Resource, Role, ToUser, User
from tests.kit import soak


def records(engine: Engine) -> list[tuple[str, tuple[str, ...], object, object]]:
    found = AdministrationLog(engine).list(ChangeFilter(), None, 1_000)[::-1]
    return [(record.kind, record.key, record.before, record.after) for record in found]


def test_several_writes_of_one_entity_are_one_record(engine: Engine) -> None:
    with Store(engine).write() as transaction:
        transaction.insert(Role("R1"))
        transaction.update(Role("R1", "x"))
        transaction.apply_many([Role("R1", "y")])
    assert records(engine) == [
        ("role", ("R1",), None, {"description": "y", "inherits": [], "name": "R1"})
    ]


def test_a_write_of_what_is_stored_changes_nothing(engine: Engine) -> None:
    store = Store(engine)
    user = User("user_1", attributes={"a": True})
    with store.write() as transaction:
        transaction.apply_many([user])
        revision = transaction.revision
    with store.write() as transaction:
        transaction.apply_many([user])
        transaction.update(user)
        assert transaction.revision == revision
    assert len(records(engine)) == 1
    # The control: `true` and `1.0` are equal for Python, not for a condition.
    with store.write() as transaction:
        transaction.apply_many([User("user_1", attributes={"a": 1.0})])
        assert transaction.revision == revision + 1
    assert len(records(engine)) == 2


def test_what_is_rolled_back_or_discarded_has_no_record(engine: Engine) -> None:
    store = Store(engine)
    with store.write() as transaction:
        transaction.insert(Role("R1"))
        transaction.discard()

    def insert_twice() -> None:
        with store.write() as transaction:
            transaction.insert(Role("R2"))
            transaction.insert(Role("R2"))

    with pytest.raises(AlreadyExists):
        insert_twice()
    assert records(engine) == []


def test_hostile_texts_are_recorded_as_they_are(engine: Engine) -> None:
    hostile = 'a"\\\n\u202e\u2028é\U0001f600'
    with Store(engine).write(Author(Source.API, hostile, hostile)) as transaction:
        transaction.insert(Resource("course", hostile, attributes={hostile: [hostile]}))
    [(_, key, _, after)] = records(engine)
    assert key == ("course", hostile)
    assert after == {"attributes": {hostile: [hostile]}, "id": hostile, "type": "course"}
    [record] = AdministrationLog(engine).list(ChangeFilter(name=hostile), None, 10)
    assert (record.name, record.reason) == (hostile, hostile)


@pytest.mark.soak
def test_a_large_write_is_recorded_in_parts(engine: Engine) -> None:
    """No statement holds more than a thousand rows, however many entities a transaction writes."""
    sizes: list[int] = []

    def note(_c: object, _cu: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith("INSERT INTO administration_records"):
            rows = parameters["record"] if isinstance(parameters, dict) else parameters
            single = isinstance(rows, tuple)
            sizes.append(1 if single else len(rows))  # type: ignore[arg-type]

    event.listen(engine, "before_cursor_execute", note)
    users = soak.count(20_000, sample=600)
    with Store(engine).write() as transaction:
        transaction.insert(Role("R1"))
        transaction.apply_many(User(f"user_{n}") for n in range(users))
        transaction.apply_many(Grant(f"g{n}", "R1", ToUser(f"user_{n}")) for n in range(users))
    assert sum(sizes) == 2 * users + 1
    assert max(sizes) <= 1_000

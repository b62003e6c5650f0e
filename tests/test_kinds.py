"""One table of kinds: whoever keeps a row for each kind has all of them."""

from typing import get_args

from pdp.facts.store.rows import KINDS as STORED
from pdp.kinds import KINDS, SECTIONS, kind_of
from pdp.model import Entity
from pdp.wire.convert.entities import CONVERSIONS


def test_every_kind_of_entity_has_a_name_a_table_and_a_message() -> None:
    entities = set(get_args(Entity))
    assert set(KINDS.values()) == entities
    assert set(STORED) == entities
    assert set(CONVERSIONS) == entities


def test_a_kind_is_named_alike_everywhere() -> None:
    for name, entity in KINDS.items():
        assert kind_of(entity) == name
        assert STORED[entity].table.name == f"{name}s"
    assert {f"{name}s" for name in KINDS} == {*SECTIONS, "rules"}

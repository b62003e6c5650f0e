"""The tables of administration records, which `facts/` writes and `audit/` reads."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

from pdp.administration_records import AdministrationRecord, encode, entity_digest

metadata = MetaData()
_text = Text().with_variant(Text(collation="C"), "postgresql")

# One row for each entity that a revision changed, written in the same transaction.
administration_records = Table(
    "administration_records",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("epoch", _text, nullable=False),
    Column("recorded_at", Double, nullable=False),
    Column("source", _text, nullable=False),
    Column("name", _text, nullable=False),
    Column("kind", _text, nullable=False),
    Column("entity", _text, nullable=False),  # administration_records.entity_digest
    Column("record", Text, nullable=False),  # the evidence: the canonical text
    Index("ix_administration_records_entity", "entity", "revision", "number"),
    Index("ix_administration_records_kind", "kind", "revision", "number"),
    Index("ix_administration_records_name", "name", "revision", "number"),
    Index("ix_administration_records_recorded_at", "recorded_at"),
)

# Where a record is in the log, once it is appended: see audit/administration_log.py. The primary
# key allows one place for each record.
administration_places = Table(
    "administration_places",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("log_id", _text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Index("ix_administration_places_place", "log_id", "position", unique=True),
)


def row_of(record: AdministrationRecord) -> dict[str, Any]:
    """Returns the row of a record. All columns follow from the record, which is the evidence."""
    return {
        "revision": record.revision,
        "number": record.number,
        "epoch": record.epoch,
        "recorded_at": record.recorded_at,
        "source": record.source.name,
        "name": record.name,
        "kind": record.kind,
        "entity": entity_digest(record.kind, record.key),
        "record": encode(record),
    }

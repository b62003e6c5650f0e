"""The tables of campaigns. `pdp.database.migrations` creates them; a test compares both."""

from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, Table, Text

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s"})
# Compares byte for byte on both engines.
text = Text().with_variant(Text(collation="C"), "postgresql")

review_campaigns = Table(
    "review_campaigns",
    metadata,
    Column("id", text, primary_key=True),
    Column("name", text, nullable=False),
    Column("created_by", text, nullable=False),
    Column("created_at", Double, nullable=False),
    # The revision at which the grants were read.
    Column("revision", BigInteger, nullable=False),
    Column("items", Integer, nullable=False),
)

review_items = Table(
    "review_items",
    metadata,
    Column("campaign_id", text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("grant_id", text, nullable=False),
    Column("content", text, nullable=False),  # a JSON object: the row of the grant
)

# At most one for each item. A verdict is never changed.
review_verdicts = Table(
    "review_verdicts",
    metadata,
    Column("campaign_id", text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("verdict", text, nullable=False),
    Column("reviewer", text, nullable=False),
    Column("reason", text, nullable=False),
    Column("decided_at", Double, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

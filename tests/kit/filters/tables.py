"""The rows of `worlds.py` in tables, as an application keeps them.

Two of the columns have a collation that folds case, where the database has one; another has one
that orders by bytes, which Prisma needs.
"""

from typing import Any

from pdp_client.sqlalchemy import Many, NullAsValue, One, register
from sqlalchemy import Connection, Double, ForeignKey, String, delete, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from pdp.model import Resource, ResourceRef

FOLDED = String().with_variant(String(collation="NOCASE"), "sqlite")
BYTEWISE = String().with_variant(String(collation="C"), "postgresql")


class Base(DeclarativeBase):
    pass


class Catalog(Base):
    __tablename__ = "catalogs"
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str | None]


class Course(Base):
    __tablename__ = "courses"
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str | None]
    catalog_id: Mapped[str | None] = mapped_column(ForeignKey("catalogs.id"))
    catalog: Mapped[Catalog | None] = relationship()


class Lesson(Base):
    __tablename__ = "lessons"
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str | None]
    course_id: Mapped[str | None] = mapped_column(ForeignKey("courses.id"))
    owner: Mapped[str | None] = mapped_column(BYTEWISE)
    editor: Mapped[str | None] = mapped_column(FOLDED)
    title: Mapped[str | None]
    level: Mapped[float | None] = mapped_column(Double)
    seats: Mapped[int | None]
    open: Mapped[bool | None]
    unit_id: Mapped[str | None] = mapped_column(ForeignKey("units.id"))
    course: Mapped[Course | None] = relationship()
    unit: Mapped["Unit | None"] = relationship()
    tags: Mapped[list["Tag"]] = relationship(order_by="Tag.position")
    members: Mapped[list["Member"]] = relationship(order_by="Member.position")


class Unit(Base):
    __tablename__ = "units"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    level: Mapped[float | None] = mapped_column(Double)
    tags: Mapped[list["UnitTag"]] = relationship(order_by="UnitTag.position")


class Tag(Base):
    __tablename__ = "tags"
    lesson_id: Mapped[str] = mapped_column(ForeignKey("lessons.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(FOLDED)


class UnitTag(Base):
    __tablename__ = "unit_tags"
    unit_id: Mapped[str] = mapped_column(ForeignKey("units.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Member(Base):
    __tablename__ = "members"
    lesson_id: Mapped[str] = mapped_column(ForeignKey("lessons.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    user: Mapped[str | None]
    role: Mapped[str | None]
    rank: Mapped[int | None]


register(Catalog, "catalog", id=Catalog.id, organization=Catalog.organization_id, stored=True)
register(
    Course,
    "course",
    id=Course.id,
    organization=Course.organization_id,
    parent=Course.catalog,
    stored=True,
)
register(
    Lesson,
    "lesson",
    id=Lesson.id,
    organization=Lesson.organization_id,
    parent=Lesson.course,
    attributes={
        "owner": Lesson.owner,
        "editor": Lesson.editor,
        "title": NullAsValue(Lesson.title),
        "level": Lesson.level,
        "seats": Lesson.seats,
        "open": Lesson.open,
        "unit": One(
            Lesson.unit,
            {"name": Unit.name, "level": Unit.level, "tags": Many(Unit.tags, UnitTag.name)},
        ),
        "tags": Many(Lesson.tags, Tag.name),
        "members": Many(
            Lesson.members, {"user": Member.user, "role": Member.role, "rank": Member.rank}
        ),
    },
)


def records(
    rows: list[Resource], above: dict[ResourceRef, Resource]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table, in an order in which they can be inserted."""
    values: dict[str, list[dict[str, Any]]] = {
        table.name: [] for table in Base.metadata.sorted_tables
    }

    def add(model: type[Base], **columns: Any) -> None:
        values[model.__tablename__].append(columns)

    for resource in above.values():
        columns = {"id": resource.id, "organization_id": _organization(resource)}
        if resource.type == "course":
            catalog = resource.parent.id if resource.parent else None
            add(Course, **columns, catalog_id=catalog)
        else:
            add(Catalog, **columns)
    for row in rows:
        attributes = row.attributes
        unit = attributes.get("unit")
        if unit is not None:
            add(Unit, id=row.id, name=unit.get("name"), level=unit.get("level"))
            for position, name in enumerate(unit["tags"]):
                add(UnitTag, unit_id=row.id, position=position, name=name)
        add(
            Lesson,
            id=row.id,
            organization_id=_organization(row),
            course_id=row.parent.id if row.parent else None,
            unit_id=None if unit is None else row.id,
            **{
                key: attributes.get(key)
                for key in ("owner", "editor", "title", "level", "seats", "open")
            },
        )
        for position, name in enumerate(attributes["tags"]):
            add(Tag, lesson_id=row.id, position=position, name=name)
        for position, member in enumerate(attributes["members"]):
            keys = {key: member.get(key) for key in ("user", "role", "rank")}
            add(Member, lesson_id=row.id, position=position, **keys)
    return values


def put(connection: Connection, rows: list[Resource], above: dict[ResourceRef, Resource]) -> None:
    """Puts rows into empty tables."""
    for table in reversed(Base.metadata.sorted_tables):
        connection.execute(delete(table))
    for name, found in records(rows, above).items():
        if found:
            connection.execute(insert(Base.metadata.tables[name]), found)


def _organization(resource: Resource) -> str | None:
    """None is kept as NULL or as an empty text, which mean the same."""
    return resource.organization_id or (None if resource.id[-1] in "0246" else "")

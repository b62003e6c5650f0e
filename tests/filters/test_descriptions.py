"""Models of other shapes than those of the oracle, and what is refused by name."""

import datetime
import enum
import uuid

import pytest
import sqlalchemy as sa
from pdp_client import Question
from pdp_client import Resource as Asked
from pdp_client.plans import FilterUnsupported, Plan
from pdp_client.sqlalchemy import ABSENT, Many, Reference, register, resource_of, where
from pdp_filters import (
    CHAIN,
    FALSE,
    TRUE,
    Compare,
    Every,
    Field,
    Filter,
    Kind,
    KindIs,
    Level,
    Match,
    OneOf,
    Operator,
    Row,
    Some,
    Stored,
    TextTest,
    all_of,
    any_of,
    evaluate,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import CompileError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, relationship

ID = Field(("id",))
ORGANIZATION = Field(("organization",))
LEVEL_ID, LEVEL_TYPE, LEVEL_ORGANIZATION = (
    Field((name,), 1) for name in ("id", "type", "organization")
)


class Color(enum.Enum):
    RED = "red"


class Base(DeclarativeBase):
    pass


class Folder(Base):
    """Folders are in folders."""

    __tablename__ = "folders"
    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[str | None]
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("folders.id"))
    parent: Mapped["Folder | None"] = relationship(remote_side="Folder.id")


class Note(Base):
    """A note names its project, which is not stored anywhere."""

    __tablename__ = "notes"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    project_id: Mapped[str | None]
    owner: Mapped[str | None]
    code: Mapped[str | None] = mapped_column(sa.CHAR(4))
    color: Mapped[Color | None]
    weight: Mapped[float | None] = mapped_column(sa.REAL)
    made: Mapped[datetime.datetime | None]
    due: Mapped[datetime.date | None]
    lasts: Mapped[datetime.timedelta | None]
    labels: Mapped[list["Label"]] = relationship(secondary="note_labels")


class Label(Base):
    __tablename__ = "labels"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


NOTE_LABELS = sa.Table(
    "note_labels",
    Base.metadata,
    sa.Column("note_id", sa.ForeignKey("notes.id")),
    sa.Column("label_id", sa.ForeignKey("labels.id")),
)

register(
    Folder,
    "folder",
    id=Folder.id,
    organization=Folder.organization_id,
    parent=Folder.parent,
    stored=True,
)
register(
    Note,
    "note",
    id=Note.id,
    parent=Reference("project", Note.project_id),
    attributes={
        "owner": Note.owner,
        "code": Note.code,
        "color": Note.color,
        "weight": Note.weight,
        "made": Note.made,
        "due": Note.due,
        "lasts": Note.lasts,
        "labels": Many(Note.labels, Label.name),
        "nothing": ABSENT,
    },
)
SIZE = Field(("attributes", "size"))
WEIGHT = Field(("attributes", "weight"))
P1 = all_of(Compare(Operator.EQUAL, LEVEL_TYPE, "project"), OneOf(LEVEL_ID, ("p1",)))
NOTES = [uuid.UUID(int=number) for number in (10, 11, 12)]


@pytest.fixture
def session():
    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Folder(id=number) for number in (1, 2, 3))
        red = Label(name="red")
        session.add(Note(id=NOTES[0], project_id="p1", owner="u1", labels=[red]))
        session.add(Note(id=NOTES[1], project_id="p2", labels=[red, Label(name="blue")]))
        session.add(Note(id=NOTES[2]))
        session.flush()
        yield session
    engine.dispose()


def taken(session: Session, model: type, node: Filter) -> set:
    plan = Plan("x:view", {Folder: "folder", Note: "note"}[model], node)
    return set(session.scalars(sa.select(model.id).where(where(plan, model))))


def note_row(note: Note) -> Row:
    levels = [Level("note", str(note.id), None, stored=False)]
    if note.project_id is not None:
        levels.append(Level("project", note.project_id, None, stored=False))
    attributes = {"labels": [label.name for label in note.labels]}
    return Row(tuple(levels), attributes | ({"owner": note.owner} if note.owner else {}))


@pytest.mark.parametrize(
    "node",
    [
        Every(CHAIN, KindIs(LEVEL_ORGANIZATION, frozenset((Kind.ABSENT,)))),
        Compare(Operator.EQUAL, ORGANIZATION, "o1"),
        Stored(("note",)),
    ],
    ids=str,
)
def test_a_table_that_is_its_own_parent_is_refused(node):
    with pytest.raises(FilterUnsupported, match="the parent of folder leads to folder again"):
        where(Plan("folder:view", "folder", node), Folder)


def test_an_integer_id_is_found_by_its_own_text_alone(session):
    assert taken(session, Folder, OneOf(ID, ("1", "02", "3 ", "x", "9" * 30))) == {1}
    assert taken(session, Folder, OneOf(ID, ("1", "02"), negated=True)) == {2, 3}


@pytest.mark.parametrize(
    "node",
    [
        Some(
            CHAIN, all_of(Compare(Operator.EQUAL, LEVEL_TYPE, "project"), OneOf(LEVEL_ID, ("p1",)))
        ),
        Every(
            CHAIN,
            any_of(
                Compare(Operator.NOT_EQUAL, LEVEL_TYPE, "project"),
                OneOf(LEVEL_ID, ("p1",), negated=True),
            ),
        ),
        Every(CHAIN, KindIs(LEVEL_ORGANIZATION, frozenset((Kind.ABSENT,)))),
        Some(CHAIN, KindIs(LEVEL_ORGANIZATION, frozenset((Kind.TEXT,)))),
        OneOf(ID, (str(NOTES[0]), str(NOTES[1]).upper(), "x")),
        KindIs(ORGANIZATION, frozenset((Kind.ABSENT,))),
        KindIs(Field(("attributes", "nothing")), frozenset((Kind.ABSENT,))),
        Compare(Operator.NOT_EQUAL, Field(("attributes", "nothing")), 1.0),
        Some(Field(("attributes", "labels")), Compare(Operator.EQUAL, Field((), 1), "red")),
        Every(Field(("attributes", "labels")), Compare(Operator.EQUAL, Field((), 1), "red")),
        TRUE,
        FALSE,
    ],
    ids=str,
)
def test_a_reference_a_many_to_many_relation_and_a_uuid_are_lowered(session, node):
    notes = session.scalars(sa.select(Note)).all()
    expected = {note.id for note in notes if evaluate(node, note_row(note))}
    assert taken(session, Note, node) == expected


def test_an_alias_is_filtered_as_its_model(session):
    other = aliased(Note)
    plan = Plan("note:view", "note", Compare(Operator.EQUAL, Field(("attributes", "owner")), "u1"))
    query = sa.select(other.id).join(Note, Note.id == other.id).where(where(plan, other))
    assert session.scalars(query).all() == [NOTES[0]]


def test_a_row_makes_the_question_that_the_filter_is_about(session):
    note = session.get(Note, NOTES[0])
    asked = resource_of(note)
    assert asked == Asked(
        "note",
        str(NOTES[0]),
        parent=Asked("project", "p1"),
        attributes={"owner": "u1", "labels": ["red"]},
    )
    assert Question("note:view", asked).resource == asked


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (Compare(Operator.EQUAL, Field(("attributes", "code")), "x"), r"Note\.code of type CHAR"),
        (Compare(Operator.EQUAL, Field(("attributes", "color")), "x"), r"Note\.color of type Enum"),
        (
            Compare(Operator.EQUAL, Field(("attributes", "weight")), 1.0),
            r"Note\.weight of type REAL",
        ),
        *(
            (
                Compare(Operator.LESS, Field(("attributes", name)), "2026"),
                rf"Note\.{name} of type {t}",
            )
            for name, t in (("made", "DateTime"), ("due", "Date"), ("lasts", "Interval"))
        ),
        (
            Compare(Operator.EQUAL, Field(("attributes", "size")), 1.0),
            r"note\.size is not described",
        ),
        (Compare(Operator.LESS, ID, "x"), "< of the id of note, which is not stored as text"),
        (Match(TextTest.PREFIX, ID, "x"), "startsWith of the id of note"),
        (Stored(("note",)), "type note must be stored"),
        (Stored(("project",)), "type project must be stored"),
    ],
    ids=str,
)
def test_what_cannot_be_done_exactly_is_refused_by_name(node, said):
    with pytest.raises(FilterUnsupported, match=said):
        where(Plan("note:view", "note", node), Note)


def test_another_database_is_refused_by_name():
    node = Compare(Operator.EQUAL, Field(("attributes", "owner")), "u1")
    query = sa.select(Note.id).where(where(Plan("note:view", "note", node), Note))
    with pytest.raises(CompileError, match="this is mysql"):
        query.compile(dialect=mysql.dialect())


def test_a_model_that_is_not_registered_is_refused():
    with pytest.raises(FilterUnsupported, match="Label is not registered"):
        where(Plan("label:view", "label", TRUE), Label)


def test_a_plan_has_no_truth_value():
    with pytest.raises(TypeError, match="no truth value"):
        bool(Plan("note:view", "note", TRUE))


class Room(Base):
    """A room has nothing above it."""

    __tablename__ = "rooms"
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str | None]
    owner: Mapped[str | None]


register(
    Room,
    "room",
    id=Room.id,
    organization=Room.organization_id,
    attributes={"owner": Room.owner},
)


@pytest.mark.parametrize("operator", [Operator.EQUAL, Operator.NOT_EQUAL, Operator.LESS_OR_EQUAL])
@pytest.mark.parametrize("mirrored", [False, True])
def test_an_empty_organization_is_absent_beside_another_field(session, operator, mirrored):
    rows = [("o1", "o1"), ("o1", "o2"), ("", ""), ("", "o1"), (None, ""), ("o1", "")]
    rooms = [Room(id=str(n), organization_id=a, owner=b) for n, (a, b) in enumerate(rows)]
    session.add_all(rooms)
    session.flush()
    sides = (ORGANIZATION, Field(("attributes", "owner")))
    node = Compare(operator, *(sides[::-1] if mirrored else sides))
    found = set(session.scalars(sa.select(Room.id).where(where(Plan("x:y", "room", node), Room))))
    expected = {
        room.id
        for room in rooms
        if evaluate(
            node, Row((Level("room", room.id, room.organization_id),), {"owner": room.owner})
        )
    }
    assert found == expected


def test_an_organization_is_compared_once_if_nothing_is_above(session):
    own = Compare(Operator.EQUAL, LEVEL_ORGANIZATION, "o1")
    not_foreign = Every(CHAIN, any_of(KindIs(LEVEL_ORGANIZATION, frozenset((Kind.ABSENT,))), own))
    rows = {"1": "o1", "2": "o2", "3": None, "4": ""}
    session.add_all(Room(id=id_, organization_id=one) for id_, one in rows.items())
    session.flush()

    def found(node: Filter) -> tuple[set[str], int]:
        query = sa.select(Room.id).where(where(Plan("x:y", "room", node), Room))
        return set(session.scalars(query)), str(query.compile(session.bind)).count(
            "organization_id"
        )

    assert found(all_of(not_foreign, Some(CHAIN, own))) == ({"1"}, 1)
    assert found(not_foreign)[0] == {"1", "3", "4"}
    other = Some(CHAIN, Compare(Operator.EQUAL, LEVEL_ORGANIZATION, "o2"))
    assert found(all_of(not_foreign, other))[0] == set()
    assert found(any_of(not_foreign, Some(CHAIN, own)))[0] == {"1", "3", "4"}

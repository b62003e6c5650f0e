"""The application's own data: courses in SQL, described once as resources."""

from pdp_client.sqlalchemy import register
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Course(Base):
    __tablename__ = "courses"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    organization_id: Mapped[str]
    owner_id: Mapped[str]
    published: Mapped[bool] = mapped_column(default=False)
    archived: Mapped[bool] = mapped_column(default=False)


# Both a filter and a question about one row are made of this.
register(
    Course,
    "course",
    id=Course.id,
    organization=Course.organization_id,
    attributes={
        "owner": Course.owner_id,
        "published": Course.published,
        "archived": Course.archived,
    },
)


def courses_of_the_example() -> list[Course]:
    return [
        Course(title="Algebra", organization_id="org_school", owner_id="user_ivan", published=True),
        Course(title="Biology", organization_id="org_school", owner_id="user_ada", published=True),
        Course(title="Latin, a draft", organization_id="org_school", owner_id="user_ivan"),
        Course(title="Physics, a draft", organization_id="org_school", owner_id="user_ada"),
        Course(
            title="Alchemy",
            organization_id="org_school",
            owner_id="user_ivan",
            published=True,
            archived=True,
        ),
        Course(title="History", organization_id="org_other", owner_id="user_ivan", published=True),
    ]

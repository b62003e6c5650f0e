"""Courses: a page of a list is filtered by the policy, a change is guarded by it."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from courses import Base, Course, courses_of_the_example
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from pdp_client import Guard, Question, session_token
from pdp_client.fastapi import Requires, protect
from pdp_client.sqlalchemy import resource_of, where
from pydantic import BaseModel, Field
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

PAGE_ROWS = 50

engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///courses.db"))
guard = Guard(
    os.environ.get("PDP_SERVER", "127.0.0.1:50051"),
    api_key=os.environ.get("PDP_API_KEY"),
    deadline_seconds=float(os.environ.get("PDP_DEADLINE_SECONDS", "0.25")),
)


class Shown(BaseModel):
    id: int
    title: str
    may_edit: bool
    """For the user interface. The change itself is guarded again."""


class Title(BaseModel):
    title: str = Field(min_length=1, max_length=80)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        if session.scalar(select(Course.id).limit(1)) is None:
            session.add_all(courses_of_the_example())
            session.commit()
    yield
    guard.close()


app = FastAPI(title="Courses", lifespan=lifespan)
protect(app, guard)


def token_of(request: Request) -> str:
    return session_token(request.headers.items())


def session() -> Iterator[Session]:
    with Session(engine) as opened:
        yield opened


Token = Annotated[str, Depends(token_of)]
Database = Annotated[Session, Depends(session)]


@app.get("/courses", dependencies=[Depends(Requires("courses:list"))])
def list_courses(
    token: Token,
    database: Database,
    permission: Literal["course:view", "course:edit"] = "course:view",
    after: Annotated[int, Query(ge=0)] = 0,
) -> list[Shown]:
    """A page of the courses on which the actor has the permission, complete and in order."""
    plan = guard.plan(token, permission, "course")
    page = select(Course).where(where(plan, Course), Course.id > after)
    courses = list(database.scalars(page.order_by(Course.id).limit(PAGE_ROWS)))
    if not courses:
        return []
    editable = guard.batch(token, [Question("course:edit", resource_of(row)) for row in courses])
    return [
        Shown(id=course.id, title=course.title, may_edit=decision.allowed)
        for course, decision in zip(courses, editable, strict=True)
    ]


@app.put("/courses/{course_id}")
def rename(course_id: int, title: Title, token: Token, database: Database) -> Shown:
    """Changes a title. A course that the actor may not see does not exist for them."""
    visible = where(guard.plan(token, "course:view", "course"), Course)
    course = database.scalar(select(Course).where(visible, Course.id == course_id))
    if course is None:
        raise HTTPException(404, "no such course")
    guard.require(token, "course:edit", resource_of(course))
    course.title = title.title
    database.commit()
    return Shown(id=course.id, title=course.title, may_edit=True)

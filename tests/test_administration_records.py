"""The format of administration records: a golden text, and hostile bytes."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from pdp.administration_records import (
    AdministrationRecord,
    Author,
    MalformedAdministrationRecordError,
    Source,
    decode,
    encode,
    entity_digest,
)
from pdp.administrator import Administrator
from pdp.audit import AdministrationLog, ChangeFilter
from pdp.clerk.directory import Directory
from pdp.clerk.observations import Message, UserSeen
from pdp.facts import Store
from pdp.model import Membership, Organization, Resource, ResourceRef, User

GOLDEN = Path(__file__).parent / "golden" / "administration_records.jsonl"
ROOT = Path(__file__).parents[1]
POLICY = """
version: 1
permissions: {course:view: View courses}
resource_types: {course: {stored: required}}
roles:
  READER: {allow: [{permission: course:view, when: 'actor.id == "user_1"'}]}
  EDITOR: {inherits: [READER], deny: [course:view]}
grants:
  - {id: g1, role: READER, user: user_1, expires_at: "2030-01-01T00:00:00Z"}
  - {id: g2, role: READER, organization_role: "org:member", organization: org_1}
  - {id: g3, role: READER, user: user_1, resource: {type: course, id: c1}}
routes: {GET /c: course:view, GET /p: public}
"""


def test_the_format_is_the_golden_one(engine: Engine) -> None:
    """Records must be readable for years: a change of this file needs a reason."""
    store = Store(engine)
    administrator = Administrator(store, lambda _: None)
    author = Author(Source.API, "courses", "ticket 12")
    administrator.apply(POLICY, author=Author(Source.COMMAND, "operator"))
    attributes = {"level": 3.0, "password": "hidden", "tags": ["é", None, True]}
    administrator.create(User("user_1", "a@example.test", attributes=attributes), author)
    administrator.create(Organization("org_1", "one", "One"), author)
    administrator.create(Membership("org_1", "user_1", "org:member"), author)
    administrator.create(Resource("course", "c1", "org_1"), author)
    child = Resource("course", "c2", "org_1", ResourceRef("course", "c1"))
    administrator.create(child, author)
    administrator.revoke_session("sess_1", "user_1", author)
    administrator.delete(User, ("user_1",), author)
    directory = Directory(store, lambda _: None)
    seen = UserSeen(id="user_2", updated_at=1, noticed_at=1, barred=True)
    directory.observe_messages([Message("msg_1", seen)])
    records = AdministrationLog(engine).list(ChangeFilter(), None, 1_000)[::-1]
    lines = [encode(replace(record, epoch="epoch", recorded_at=0.5)) for record in records]
    assert "".join(f"{line}\n" for line in lines) == GOLDEN.read_text()
    assert [encode(decode(line)) for line in lines] == lines


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"epoch":1}', b'"' + b"x" * 10],
)
def test_bytes_that_are_no_record_are_refused(payload: bytes) -> None:
    with pytest.raises(MalformedAdministrationRecordError):
        decode(payload)


@pytest.mark.parametrize(
    ("field", "value"),
    [("revision", "x"), ("recorded_at", None), ("before", []), ("key", 5), ("number", {})],
)
def test_a_field_of_another_type_is_refused(field: str, value: object) -> None:
    record = AdministrationRecord("e", 1, 0, 0.5, Source.API, "role", ("R1",), None, {})
    data = {**json.loads(encode(record)), field: value}
    with pytest.raises(MalformedAdministrationRecordError):
        decode(json.dumps(data))


def test_a_source_and_fields_of_a_newer_version_are_readable() -> None:
    record = AdministrationRecord("e", 1, 0, 0.5, Source.API, "role", ("R1",), None, {})
    data = {**json.loads(encode(record)), "source": "LATER", "more": 1}
    assert decode(json.dumps(data)) == replace(record, source=Source.UNNAMED)


def test_no_two_entities_have_one_digest() -> None:
    keys = [("a", ("b", "c")), ("a", ("b/c",)), ("a", ('b", "c',)), ("a", ("b",)), ("b", ("a",))]
    assert len({entity_digest(*key) for key in keys}) == len(keys)


def test_no_write_of_the_service_leaves_out_its_author() -> None:
    """`Store.write` without an author is for writes that change nothing that decisions read."""
    without = set()
    for path in (ROOT / "pdp").rglob("*.py"):
        source = path.read_text()
        for node in ast.walk(ast.parse(source)) if ".write()" in source else ():
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "write"
                and ast.unparse(node.func.value).endswith("store")
                and not node.args
            ):
                without.add(path.relative_to(ROOT).as_posix())
    assert without == {
        "pdp/clerk/directory.py",  # the progress of a dry run
        "pdp/clerk/sync/lease.py",
        "pdp/clerk/sync/scheduler.py",
        "pdp/reviews/campaigns.py",  # a new campaign
    }

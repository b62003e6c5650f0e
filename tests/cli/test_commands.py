"""The command line, as people and shells meet it: real processes."""

import json
import re
from pathlib import Path

import pytest

from tests.kit import prefork
from tests.kit.school import POLICY
from tests.kit.server import ServerProcess, running_server
from tests.kit.waiting import eventually


@pytest.fixture
def machine(tmp_path: Path) -> ServerProcess:
    """Settings and a directory; nothing runs."""
    return ServerProcess(tmp_path)


def test_apply_says_what_it_changes_and_export_gives_it_back(machine: ServerProcess) -> None:
    file = machine.directory / "policy.yaml"
    file.write_text(POLICY)
    assert machine.pdp("migrate").returncode == 0
    dry = machine.pdp("apply", str(file), "--dry-run")
    assert dry.returncode == 0
    assert "create role ADMIN" in dry.stdout
    assert dry.stdout.splitlines()[-1].endswith("changes; nothing was changed")
    assert machine.pdp("apply", str(file), "--dry-run", "--everywhere").returncode == 2
    applied = machine.pdp("apply", str(file), "--everywhere")
    assert applied.stdout.splitlines()[:-2] == dry.stdout.splitlines()[:-1]
    assert re.search(
        r"in force everywhere after [\d.]+ s, at 0 processes$", applied.stdout.rstrip()
    )
    exported = machine.pdp("export")
    again = machine.pdp("apply", "-", stdin=exported.stdout)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("no changes")


def test_a_policy_that_does_not_hold_together_is_refused_with_its_lines(
    machine: ServerProcess,
) -> None:
    done = machine.pdp(
        "apply",
        "-",
        stdin="permissions: [course:edit]\n"
        "roles:\n"
        "  A:\n"
        "    inherits: [B]\n"
        "    allow: [course:fly]\n"
        "  C:\n"
        "    allow: [{permission: course:edit, when: resource.nothing == 1}]\n",
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for line in (
        "stdin:3:3: roles.A.inherits",
        "stdin:5:13: roles.A.allow[0]",
        "stdin:7:39: roles.C.allow[0].when",
    ):
        assert line in done.stderr
    assert machine.pdp("export").stdout.count("course") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("serve", "--config", "nothing.toml"), "nothing.toml"),
        (("serve", "--listen", "0.0.0.0:1"), "beyond loopback"),
        (("apply", "nothing.yaml"), "nothing.yaml"),
        (("check", "course:edit", "course:a", "--token", "x", "--context", "["), "not JSON"),
        (("nothing",), "nothing"),
    ],
)
def test_an_error_is_explained_and_exits_with_2(
    machine: ServerProcess, arguments: tuple[str, ...], said: str
) -> None:
    done = machine.pdp(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_cannot_start_says_what_is_missing(tmp_path: Path) -> None:
    tls = {"certificate_file": "nothing.pem", "private_key_file": "nothing.key"}
    done = ServerProcess(tmp_path, {"TLS": tls}).pdp("serve")
    assert done.returncode == 2
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_server_is_no_answer_and_no_denial(machine: ServerProcess) -> None:
    done = machine.pdp("check", "course:edit", "course:algebra", "--token", "x")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_bad_database_url_shows_no_password(tmp_path: Path) -> None:
    """SpiceDB CVE-2023-46255 and CVE-2026-40091: passwords of database URLs in messages."""
    for url in ("postgresql://pdp:hunter2@127.0.0.1:1/pdp", "nosuch://pdp:hunter2@db/pdp"):
        machine = ServerProcess(tmp_path, {"DATABASE_URL": url})
        for command in (("export",), ("migrate",), ("apply", "-")):
            done = machine.pdp(*command, stdin="permissions: []\n")
            assert done.returncode == 2
            assert "hunter2" not in done.stdout + done.stderr
            assert "Traceback" not in done.stderr


def test_a_development_token_is_marked_and_is_accepted_where_its_key_is_trusted(
    tmp_path: Path,
) -> None:
    minting = ServerProcess(tmp_path)
    arguments = ("token", "mint", "--user", "user_ivan", "--organization", "org_school")
    token = minting.pdp(*arguments)
    assert token.returncode == 0, token.stderr
    assert "development" in token.stderr
    issuer = {
        "issuer": "http://localhost/pdp-development",
        "public_key_file": str(tmp_path / "development.pem.pub"),
    }
    assert (tmp_path / "development.pem").stat().st_mode & 0o077 == 0
    with running_server(tmp_path, POLICY, ISSUERS=[issuer]) as (server, _):
        asked = ("check", "course:edit", "course:algebra")
        allowed = server.pdp(*asked, stdin=token.stdout)
        assert (allowed.returncode, allowed.stdout.split()[:2]) == (
            0,
            ["ALLOW", "ALLOWED_BY_RULE:"],
        )
        denied = server.pdp("check", "course:delete", "course:algebra", stdin=token.stdout)
        assert denied.returncode == 1
        assert "PERMISSION_NOT_GRANTED" in denied.stdout
        attributes = ("--attributes", '{"owner": "user_ivan"}')
        new = ("check", "course:edit", "course:new", *attributes)
        sent = server.pdp(*new, "--organization", "org_school", stdin=token.stdout)
        assert sent.returncode == 0
        for organization, reason in (
            ((), "RESOURCE_ORGANIZATION_UNKNOWN: The organization of the resource is not known"),
            (("--organization", "org_other"), "WRONG_ORGANIZATION"),
        ):
            refused = server.pdp(*new, *organization, stdin=token.stdout)
            assert refused.returncode == 1
            assert reason in refused.stdout
        nothing = server.pdp("check", "course:create", "--organization", "o", stdin=token.stdout)
        assert nothing.returncode == 2
        assert "name one" in nothing.stderr


def test_apply_warns_of_what_is_likely_to_be_meant_otherwise(machine: ServerProcess) -> None:
    policy = "permissions: [a:b]\nroutes:\n  /a/{id}: a:b\n"
    policy += "roles: {R: {allow: [{permission: a:b, when: resource.id == context.id}]}}\n"
    assert machine.pdp("migrate").returncode == 0
    for options in (("--dry-run",), ()):
        applied = machine.pdp("apply", "-", *options, stdin=policy)
        assert applied.returncode == 0
        assert re.search(
            r"^pdp: warning: stdin:3:3: routes./a/\{id\}: needs 'a:b' without naming a resource",
            applied.stderr,
            re.MULTILINE,
        )
    # Also for stored entities, if a later document causes it.
    later = machine.pdp("apply", "-", stdin="resource_types: {b: {tenancy: none}}")
    assert "stored route /a/{id}: needs" in later.stderr
    assert "stdin:1:18: resource_types.b: no permission is declared for 'b'" in later.stderr
    quiet = machine.pdp("apply", "-", stdin="routes: {}\nresource_types: {}")
    assert "warning" not in quiet.stderr


def test_a_key_for_a_caller_is_shown_once_with_its_digest(machine: ServerProcess) -> None:
    import hashlib

    fields = dict(line.split() for line in machine.pdp("key").stdout.splitlines())
    assert hashlib.sha256(fields["api_key"].encode()).hexdigest() == fields["api_key_sha256"]


def test_the_decision_log_is_listed_filtered_and_followed(tmp_path: Path) -> None:
    from tests.kit.school import ask

    with running_server(tmp_path, POLICY) as (server, stubs):
        follow = ("audit", "list", "--follow", "--json", "--reason", "permission_not_granted")
        with prefork.output_of(follow, cwd=tmp_path, env=server.environment) as output:
            answers = [
                ask(stubs, "user_sam", "course:edit"),
                ask(stubs, "user_sam", "course:fly"),
                ask(stubs, "user_ivan", "course:delete"),
            ]
            seen = [json.loads(output.readline()) for _ in range(2)]
        assert [record["decision_id"] for record in seen] == [
            answers[0].decision_id,
            answers[2].decision_id,
        ]

        def listed(*filters: str) -> list[str]:
            done = server.pdp("audit", "list", "--json", *filters)
            assert done.returncode == 0, done.stderr
            return [json.loads(line)["permission"] for line in done.stdout.splitlines()]

        eventually(lambda: len(listed()) == 3)
        assert listed() == ["course:delete", "course:fly", "course:edit"]
        assert listed("--user", "user_ivan") == ["course:delete"]
        assert listed("--permission", "course:fly") == ["course:fly"]
        assert listed("--reason", "PERMISSION_UNKNOWN") == ["course:fly"]
        assert listed("--decision", "allow") == []
        assert listed("--resource", "course:algebra", "--limit", "1") == ["course:delete"]
        assert listed("--since", "2099-01-01T00:00:00") == []
        table = server.pdp("audit", "list").stdout
        assert "PERMISSION_UNKNOWN" in table
        assert "course:algebra" in table
        assert "reported by" not in table
        verified = server.pdp("audit", "verify", "audit")
        assert verified.returncode == 0, verified.stderr
        wrong = server.pdp("audit", "list", "--reason", "nothing")
        assert wrong.returncode == 2

"""`pdp audit list` and `show`: all of it, once, through a restart of the server."""

import json
from pathlib import Path

import pytest
from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, CheckItem

from pdp.cli import decisions, follow
from tests.cli.running import Run
from tests.kit import prefork
from tests.kit.school import POLICY, ask
from tests.kit.server import ServerProcess, Stubs, running_server, stubs_on
from tests.kit.tokens import altered
from tests.kit.waiting import eventually


def deny(stubs: Stubs, count: int) -> list[str]:
    """So many denials; their ids."""
    items = [CheckItem(permission=f"course:n{n}") for n in range(count)]
    request = BatchCheckRequest(actor_token="x", items=items)
    return [one.decision_id for one in stubs.decision.BatchCheck(request, timeout=10).results]


def test_nothing_is_left_out_in_silence(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "PAGE_ITEMS", 40)
    monkeypatch.setattr(follow, "PAGE_ITEMS", 40)
    with running_server(tmp_path, POLICY) as (server, stubs):
        monkeypatch.setenv("PDP_SERVER", server.environment["PDP_SERVER"])
        ids = deny(stubs, 130)

        def listed(*arguments: str) -> list[dict[str, str]]:
            done = run("audit", "list", "--json", *arguments)
            assert done.status == 0, done
            return [json.loads(line) for line in done.out.splitlines()]

        eventually(lambda: len(listed()) == 130)
        assert [one["decision_id"] for one in listed()] == ids[::-1]
        assert [one["decision_id"] for one in listed("--limit", "50")] == ids[:79:-1]

        *rows, more = run("audit", "list").out.splitlines()
        assert len(rows) == 1 + 100
        assert more == "there are more than these 100: --limit shows more, --json all"
        assert len(run("audit", "list", "--limit", "130").out.splitlines()) == 1 + 130

        # The output of one command is the input of another.
        (first,) = listed("--permission", "course:n0")
        spellings = (first["reason"], first["reason"].removeprefix("DECISION_REASON_").lower())
        for reason in spellings:
            assert len(listed("--reason", reason)) == 130
        assert len(listed("--decision", first["decision"])) == 130
        wrong = run("audit", "list", "--reason", "TOKEN_MALFORMD")
        assert "did you mean TOKEN_MALFORMED?" in wrong.err
        shown = run("audit", "show", first["decision_id"]).out
        assert "reason: TOKEN_MALFORMED\npermission: course:n0\n" in shown
        assert json.loads(run("audit", "show", "--json", first["decision_id"]).out) == first
        missing = run("audit", "show", "01990000-0000-7000-8000-000000000000")
        assert (missing.status, "NOT_FOUND" in missing.err) == (2, True)

        whole = listed("--after", "start")
        assert [one["decision_id"] for one in whole] == ids
        rest = listed("--after", whole[99]["cursor"])
        assert [one["decision_id"] for one in rest] == ids[100:]
        assert listed("--after", whole[-1]["cursor"]) == []
        for forged in ("x", altered(whole[0]["cursor"]), "A" * 5000):
            done = run("audit", "list", "--after", forged)
            assert (done.status, "INVALID_ARGUMENT" in done.err) == (2, True)


def test_a_follower_continues_after_a_restart_without_loss_or_repetition(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    with server.channel() as channel:
        ids = deny(stubs_on(channel), 3)
    lines, notes = tmp_path / "followed", tmp_path / "notes"
    with lines.open("w") as out, notes.open("w") as err:
        follower = prefork.Process(
            ("audit", "list", "--follow", "--after", "start", "--json"),
            cwd=tmp_path,
            env=server.environment,
            stdout=out,
            stderr=err,
        )

    def has_followed() -> bool:
        return len(lines.read_text().splitlines()) == len(ids)

    try:
        eventually(has_followed, seconds=30)
        server.kill()
        eventually(lambda: "asks again until it answers" in notes.read_text(), seconds=30)
        server.start()
        with server.channel() as channel:
            ids += deny(stubs_on(channel), 3)
        eventually(has_followed, seconds=30)
    finally:
        follower.terminate()
        follower.wait(30)
    followed = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [one["decision_id"] for one in followed] == ids
    monkeypatch.setenv("PDP_SERVER", server.environment["PDP_SERVER"])
    rest = run("audit", "list", "--json", "--after", followed[3]["cursor"])
    assert [json.loads(line)["decision_id"] for line in rest.out.splitlines()] == ids[4:]
    server.stop()
    alone = run("audit", "list", "--follow")
    assert (alone.status, alone.out) == (2, ""), "a caller that was never answered gets an error"


def test_what_was_listed_first_is_not_repeated(tmp_path: Path) -> None:
    with running_server(tmp_path, POLICY) as (server, stubs):
        before = ask(stubs, "user_sam", "course:edit").decision_id
        follow = ("audit", "list", "--follow", "--json")
        with prefork.output_of(follow, cwd=tmp_path, env=server.environment) as output:
            assert json.loads(output.readline())["decision_id"] == before
            after = ask(stubs, "user_sam", "course:fly").decision_id
            assert json.loads(output.readline())["decision_id"] == after

"""`pdp token`: minting, and explaining without repeating the token."""

import base64
import json
from pathlib import Path

import pytest

from tests.cli.hostile import unsafe
from tests.cli.running import Done, Run
from tests.kit.server import ISSUER, token_of
from tests.kit.tokens import signing_key


@pytest.fixture
def inspect(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`inspect(token)`, with the settings of a directory and nothing running."""
    (tmp_path / "issuer.pem").write_text(signing_key().public_pem)
    (tmp_path / "pdp.toml").write_text(
        f'[[issuers]]\nissuer = "{ISSUER}"\npublic_key_file = "issuer.pem"\n'
    )
    monkeypatch.chdir(tmp_path)

    def inspected(token: str, *arguments: str) -> Done:
        done = run("token", "inspect", *arguments, stdin=token)
        assert "Traceback" not in done.err
        for part in token.strip().split("."):
            assert len(part) < 8 or part not in done.out + done.err, "the token is repeated"
        assert not unsafe(done.out + done.err)
        return done

    return inspected


def test_a_good_token_is_accepted_and_explained(inspect: Run) -> None:
    claims = {"fva": [3, -1], "azp": "https://app.example.test", "plan": "gold\x1b[2J"}
    done = inspect(token_of("user_sam", organization_id="org_school", claims=claims))
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("accepted")
    assert "user: user_sam" in lines
    assert any(line.startswith("active organization: org_school") for line in lines)
    assert "first factor: verified 3 min before" in lines
    assert "second factor: not known" in lines
    assert "authorized party: https://app.example.test" in lines
    assert "claim plan: gold\\x1b[2J" in lines
    assert any(line.startswith("expires: ") and ", in " in line for line in lines)


def test_a_refused_token_says_why_and_that_what_it_states_is_not_verified(inspect: Run) -> None:
    token = token_of("user_sam")
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "user_ada"}).encode())
    done = inspect(f"{head}.{forged.decode().rstrip('=')}.{signature}")
    assert done.status == 1
    assert done.out.startswith("refused  TOKEN_SIGNATURE_INVALID")
    assert "what it states, NOT VERIFIED:" in done.out
    assert "  user: user_ada" in done.out
    assert "accepted" not in done.out


@pytest.mark.parametrize(
    "token", ["", "x", "a.b.c", "Bearer x.y.z", "x" * 20_000, "\x1b[2J.\x07.y"]
)
def test_what_is_no_token_is_refused_without_being_repeated(inspect: Run, token: str) -> None:
    done = inspect(token)
    assert done.status == 1
    assert done.out.startswith("refused  TOKEN_MALFORMED")


def test_a_token_is_not_repeated_in_an_error(inspect: Run, tmp_path: Path) -> None:
    token = token_of("user_sam")
    (tmp_path / "issuer.pem").write_text("nonsense")
    assert inspect(token).status == 2
    (tmp_path / "pdp.toml").write_text("nonsense")
    assert inspect(token).status == 2
    assert inspect(token, "--nonsense").status == 2


def test_the_bare_command_still_mints_and_names_its_successor(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bare = run("token", "--user", "user_ada", "--seconds", "30")
    assert bare.status == 0
    assert "deprecated" in bare.err
    assert "use `pdp token mint`" in bare.err
    assert bare.out.count(".") == 2
    minted = run("token", "mint", "--user", "user_ada")
    assert minted.status == 0
    assert "deprecated" not in minted.err
    assert run("token").status == 2
    assert "options go after" in run("token", "--user", "x", "mint", "--user", "y").err


@pytest.mark.parametrize(
    "secret",
    [
        token_of("user_sam"),
        "pdp_" + "0123456789abcdefABCDEF_-" * 2,
        "sk_live_0123456789abcdef",
        "whsec_aHVudGVyMmh1bnRlcjI=",
    ],
)
def test_a_secret_in_the_place_of_another_argument_is_not_repeated(run: Run, secret: str) -> None:
    """People paste: the error must not bring it into the log of a pipeline."""
    for command in (
        ("token", "inspect", secret),
        ("check", "course:edit", "course:a", secret),
        ("get", secret),
        ("get", f"users{secret}"),
        (secret,),
        ("whoami", f"--api-kee={secret}"),
        ("get", "users", "--limit", secret),
        ("grant", "A", "--user", "u", "--until", secret),
        ("context", "use", secret),
        ("--context", secret, "whoami"),
        ("config", "check", "--config", secret),
    ):
        done = run(*command)
        assert done.status == 2, command
        assert done.err.startswith("pdp: "), command
        assert secret not in done.out + done.err, command

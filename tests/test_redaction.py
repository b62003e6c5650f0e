"""Secrets in values that others wrote are removed before they are logged."""

import json

import pytest

from pdp.redaction import REDACTED, redact, redact_text
from tests.kit.stall import Stopwatch

SECRET = "correct-horse-battery"


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "Password",
        "db_passwd",
        "userPwd",
        "API-Key",
        "api key",
        "apikey",
        "stripeSecret",
        "access_token",
        "refreshToken",
        "Authorization",
        "set-cookie",
        "private_key",
        "credentials",
        "signing.key",
        "backup_codes",
        "TOTP",
        "\uff30\uff21\uff33\uff33\uff37\uff2f\uff32\uff24",  # fullwidth PASSWORD
        "pass\u200bword",
    ],
)
@pytest.mark.parametrize("value", [SECRET, [SECRET], {"inner": [SECRET]}, 123456.0])
def test_the_value_of_a_key_that_looks_secret_is_removed(name: str, value: object) -> None:
    for nested in ({name: value}, {"a": [{"b": {name: value}}]}):
        text = json.dumps(redact(nested))
        assert SECRET not in text
        assert "123456" not in text
        assert REDACTED in text


@pytest.mark.parametrize(
    "name", ["level", "author", "tags", "keyboard", "monkey", "passed", "open"]
)
def test_other_values_stay(name: str) -> None:
    """The control: what is harmless is in the record."""
    value = {name: [1.0, "text", None, {"x": True}]}
    assert redact(value) == value


@pytest.mark.parametrize(
    "text",
    [
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1In0.c2ln",
        "see eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1In0",
        "sk_live_abcdefgh12345",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "Bearer abcdefgh.ijk",
        "basic dXNlcjpwYXNz",
        "ghp_abcdefghijklmnop1234",
        "AKIAABCDEFGHIJKLMNOP",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIabc",
    ],
)
def test_a_text_of_the_form_of_a_token_or_key_is_masked(text: str) -> None:
    masked = redact_text(f"a {text} z")
    assert REDACTED in masked
    for part in text.replace("\n", " ").split():
        if len(part) > 7 and "-" not in part:
            assert part not in masked
    assert redact({"note": [text]})["note"] != [text]
    assert text not in json.dumps(redact({text: 1.0}))


def test_masking_takes_time_in_proportion_to_the_length_of_a_hostile_text() -> None:
    hostile = ("eyJ", "eyJaaaaa.", "-----BEGIN ", "bearer ", "sk_live_", "eyJaaaaa" + "." * 50)
    for part in hostile:
        seconds = []
        for length in (20_000, 200_000):
            text = part * (length // len(part))
            watch = Stopwatch()
            redact_text(text)
            seconds.append(watch.seconds)
        # Ten times the length; quadratic time would be a hundred times as long.
        assert seconds[1] < 40 * seconds[0] + 0.2, part

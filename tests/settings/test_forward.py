"""Settings of the forwarder: one destination, and nothing in clear text beyond loopback."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pdp.settings import ForwardSettings

FILE = {"path": "events.jsonl"}
HTTP = {"url": "https://siem.test/records"}
SYSLOG = {"host": "siem.test"}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "exactly one destination"),
        ({"file": FILE, "http": HTTP}, "exactly one destination"),
        ({"syslog": SYSLOG, "format": "json"}, "choose ocsf, ecs or cef"),
        ({"file": FILE, "server": "pdp.test:50051"}, "configure server_tls"),
        ({"http": {"url": "http://siem.test/records"}}, "https://"),
        ({"http": {"url": "https://user:secret@siem.test/"}}, "plain URL"),
        ({"http": {**HTTP, "authorization": "a", "authorization_file": "b"}}, "give one of"),
        ({"file": FILE, "api_key": "a", "api_key_file": "b"}, "give one of"),
        ({"syslog": {**SYSLOG, "certificate_file": "a"}}, "together"),
        ({"syslog": {**SYSLOG, "verify": False}}, "verify"),
        ({"file": FILE, "settle_seconds": float("nan")}, "settle_seconds"),
        ({"file": FILE, "batch_records": 1_001}, "batch_records"),
    ],
)
def test_settings_that_would_lose_or_reveal_records_are_refused(
    settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        ForwardSettings(**settings)
    assert problem in str(refused.value)
    assert "secret" not in str(refused.value.errors(include_input=False)[0]["msg"])


def test_keys_are_read_from_files_and_never_printed(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("pdp_secret\n")
    settings = ForwardSettings(http={**HTTP, "authorization_file": str(key)}, api_key_file=str(key))
    assert settings.http is not None
    assert (settings.server_key(), settings.http.header()) == ("pdp_secret", "pdp_secret")
    shown = ForwardSettings(http={**HTTP, "authorization": "pdp_secret"}, api_key="pdp_secret")
    assert "pdp_secret" not in repr(shown)

"""Settings of a sidecar: closed by default, and each refusal says which setting."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pdp.settings import SidecarSettings


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PDP_SIDECAR_CONFIG", "PDP_SIDECAR_UPSTREAMS"):
        monkeypatch.delenv(name, raising=False)


def settings(**values: Any) -> SidecarSettings:
    return SidecarSettings.load(None, **{"upstreams": ["127.0.0.1:1"], **values})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"upstreams": []}, "upstreams"),
        ({"upstreams": ""}, "upstreams"),
        ({"upstreams": ["pdp.internal"]}, "host:port"),
        ({"upstreams": ["https://pdp.internal:50051"]}, "host:port"),
        ({"upstreams": "127.0.0.1:1,127.0.0.1:1"}, "named once"),
        ({"upstream_tls": {"certificate_file": "c"}}, "together"),
        ({"api_key": "a", "api_key_file": "b"}, "api_key_file"),
        ({"listen": "0.0.0.0:50052"}, "no callers"),
        ({"listen": "/run/pdp.sock"}, "unix:PATH"),
        ({"http_listen": "unix:/run/pdp.sock"}, "http_listen"),
        ({"age_seconds_max": "inf"}, "age_seconds_max"),
        ({"entries_max": 0}, "entries_max"),
        ({"stay_open": [{"permission": "*", "seconds": 1}]}, "course:view, course:*"),
        ({"stay_open": [{"permission": "course:v*", "seconds": 1}]}, "stay_open"),
        ({"stay_open": [{"permission": "course:view", "seconds": "inf"}]}, "stay_open"),
        ({"stay_open": [{"permission": "course:view", "seconds": 1}] * 2}, "named once"),
        ({"upstream": "127.0.0.1:1"}, "upstream"),
    ],
)
def test_what_does_not_hold_together_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**values)
    assert said in str(caught.value)


def test_without_an_upstream_nothing_starts() -> None:
    with pytest.raises(ValidationError, match="upstreams"):
        SidecarSettings.load()


def test_tokens_do_not_cross_a_network_in_clear_text() -> None:
    with pytest.raises(ValueError, match="clear text"):
        settings(upstreams=["127.0.0.1:1", "dns:///pdp.internal:50051"])
    settings(upstreams=["pdp.internal:50051"], insecure=True)
    settings(upstreams=["pdp.internal:50051"], upstream_tls={})
    settings(upstreams=["127.0.0.1:1", "dns:///localhost:1", "unix:/run/pdp.sock", "[::1]:1"])


def test_the_file_of_a_sidecar_is_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It may stand beside a server, in one directory and one environment."""
    (tmp_path / "pdp.toml").write_text('issuers = "https://clerk.example.test"\n')
    (tmp_path / "pdp-sidecar.toml").write_text(
        'upstreams = ["a:1", "dns:///b:2"]\ninsecure = true\nthreads = 3\n'
    )
    monkeypatch.setenv("PDP_SIDECAR_THREADS", "5")
    loaded = SidecarSettings.load()
    assert loaded.upstreams == ("a:1", "dns:///b:2")
    assert loaded.threads == 5


def test_the_key_for_upstream_does_not_show_and_may_end_with_a_line_break(tmp_path: Path) -> None:
    assert "hunter2" not in repr(settings(api_key="hunter2"))
    (tmp_path / "key").write_text("hunter2\n")
    assert settings(api_key_file="key").upstream_key() == "hunter2"


@pytest.mark.parametrize(
    ("permission", "seconds"),
    [
        ("course:view", 5),
        ("course:edit", 60),
        ("courses:edit", 0),
        ("lesson:view", 0),
        ("course", 60),
        ("", 0),
    ],
)
def test_the_nearest_pattern_determines_the_fail_open_window(
    permission: str, seconds: float
) -> None:
    patterns = [
        {"permission": "course:*", "seconds": 60},
        {"permission": "course:view", "seconds": 5},
    ]
    assert settings(stay_open=patterns).open_seconds(permission) == seconds

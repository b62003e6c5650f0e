"""Client profiles: named connections to servers, kept in one file of the user.

The file may hold API keys, so it is written for its owner alone, and one that other users may read
or change is refused.
"""

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pdp_client import TlsOptions

DEFAULT_SERVER = "127.0.0.1:50051"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FILE_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Connection:
    """A server, and how this caller authenticates to it."""

    server: str = DEFAULT_SERVER
    api_key: str | None = field(default=None, repr=False)
    ca: str | None = None
    """File with the authority of the server's certificate."""
    certificate: str | None = None
    key: str | None = None
    """File with the private key of the certificate."""
    profile: str | None = None
    """The profile that it comes from; None: options, variables or the default."""

    def tls(self) -> "TlsOptions | None":
        """TLS if a file is named, otherwise none (which the client allows on loopback only)."""
        from pdp_client import TlsOptions

        if self.ca is None and self.certificate is None:
            return None
        return TlsOptions(ca=self.ca, cert=self.certificate, key=self.key)


_FIELDS = frozenset(field.name for field in fields(Connection)) - {"profile"}


@dataclass(frozen=True, slots=True)
class Profiles:
    """What the file holds."""

    current: str | None = None
    """The profile of commands that name no connection."""
    by_name: Mapping[str, Connection] = field(default_factory=dict)


def profiles_file() -> Path:
    """`$XDG_CONFIG_HOME/pdp/profiles.json`, by default below `~/.config`."""
    return Path(typer.get_app_dir("pdp")) / "profiles.json"


def profile_connection(name: str | None) -> Connection:
    """The connection of a profile; None: of the current one, or the default if there is none.

    Raises ValueError if there is no such profile, and as `read_profiles`.
    """
    profiles = read_profiles()
    chosen = profiles.current if name is None else name
    if chosen is None:
        return Connection()
    if chosen not in profiles.by_name:
        raise ValueError(f"there is no profile {chosen!r}; `pdp context list` lists them")
    return profiles.by_name[chosen]


def read_profiles() -> Profiles:
    """Reads the file; if there is none, there are no profiles.

    Raises:
        ValueError: Other users may read or change the file, or it is invalid.
        OSError: It cannot be read.
    """
    path = profiles_file()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not block
    except FileNotFoundError:
        return Profiles()
    with os.fdopen(descriptor, "rb") as file:
        # Of the open file: the path could be exchanged between a check and the reading.
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path} is not a regular file")
        if found.st_uid != os.geteuid():
            raise ValueError(f"{path} belongs to another user")
        if found.st_mode & _OTHERS:
            raise ValueError(
                f"{path} may be read or changed by other users: "
                f"chmod 600 {path}, and replace the API keys in it"
            )
        text = file.read(_FILE_BYTES_MAX)
    # None of the messages repeats what the file holds.
    try:
        return _profiles(json.loads(text))
    except (ValueError, TypeError, AttributeError):
        raise ValueError(
            f"{path} is not a file of profiles: repair it, or remove it and use `pdp context set`"
        ) from None


def write_profiles(profiles: Profiles) -> None:
    """Replaces the file at once, readable for its owner alone. Raises OSError."""
    import tempfile

    path = profiles_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {
        "current": profiles.current,
        "profiles": {
            name: {
                key: value
                for key, value in asdict(connection).items()
                if key in _FIELDS and value is not None
            }
            for name, connection in sorted(profiles.by_name.items())
        },
    }
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".profiles-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(content, indent=2) + "\n")
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


def _profiles(content: Any) -> Profiles:
    by_name = {}
    for name, values in content["profiles"].items():
        if not set(values) <= _FIELDS or not all(
            isinstance(value, str) for value in values.values()
        ):
            raise ValueError("unknown fields")
        by_name[name] = Connection(**values, profile=name)
    current = content.get("current")
    if not (current is None or current in by_name):
        raise ValueError("no such profile")
    return Profiles(current, by_name)

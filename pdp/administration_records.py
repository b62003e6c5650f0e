"""Administration records: a changed entity, the author, the time, both values, and the reason.

A record is a row of the transaction that makes the change (`facts/store/recording.py`), and later a
frame of the log (`audit/administration_log.py`). Its canonical bytes are JSON as for decisions:
sorted keys, no spaces, ASCII. `before` and `after` hold the entity as its table does, without
secrets; one of them is missing for a creation or a deletion.
"""

import enum
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pdp.model import Key

Values = Mapping[str, Any]
"""The fields of an entity: JSON values."""


class MalformedAdministrationRecordError(ValueError):
    """Bytes that are not an administration record."""


class Source(enum.Enum):
    """How a change arrived. The names are those of `ChangeSource` in the contract."""

    API = "api"
    """A caller of the administration service."""
    COMMAND = "command"
    """A command that opened the database itself."""
    CLERK_WEBHOOK = "clerk_webhook"
    CLERK_SYNC = "clerk_sync"
    TOKEN = "token"  # noqa: S105
    """The first verified token of a user (provisioning)."""
    UNNAMED = "unnamed"
    """A program that uses the store directly and does not name itself; in a record that was read,
    also a source that this version does not know."""

    __hash__ = object.__hash__  # as of model.Effect


@dataclass(frozen=True, slots=True)
class Author:
    """The author of the changes of one transaction, and the reason."""

    source: Source
    name: str = ""
    """The caller; of a command, the account of the operating system. Empty for Clerk."""
    reason: str = ""
    messages: Sequence[tuple[str, frozenset[str]]] = ()
    """Of webhooks: the id of each message, and the ids of the objects that it names."""
    sync_run: int = 0
    """Of a sync: its number."""

    def messages_about(self, names: set[str]) -> tuple[str, ...]:
        """The ids of the messages of the transaction that name one of these ids; all messages, if
        none does."""
        found = [id_ for id_, objects in self.messages if objects & names]
        return tuple(found or (id_ for id_, _ in self.messages))


UNNAMED = Author(Source.UNNAMED)


@dataclass(frozen=True, slots=True)
class AdministrationRecord:
    """One entity that one transaction changed."""

    epoch: str
    revision: int
    number: int
    """Distinguishes the records of a revision: 0, 1, ..."""
    recorded_at: float
    """Just before the commit; seconds since 1970-01-01 UTC."""
    source: Source
    kind: str
    """One of `kinds.KINDS`, or `session`, `clerk_user`, `organization_role`,
    `organization_permission`."""
    key: Key
    before: Values | None
    after: Values | None
    name: str = ""
    """See `Author`; likewise the following."""
    reason: str = ""
    messages: tuple[str, ...] = ()
    sync_run: int = 0


def entity_digest(kind: str, key: Key) -> str:
    """Returns a name of constant length for an entity, by which its records are found."""
    return hashlib.sha256(json.dumps([kind, *key]).encode("ascii")).hexdigest()


def encode(record: AdministrationRecord) -> str:
    """Returns the canonical text of a record, ASCII. Fields that are empty are left out."""
    fields = {
        "after": record.after,
        "before": record.before,
        "epoch": record.epoch,
        "key": list(record.key),
        "kind": record.kind,
        "messages": list(record.messages) or None,
        "name": record.name or None,
        "number": record.number,
        "reason": record.reason or None,
        "recorded_at": record.recorded_at,
        "revision": record.revision,
        "source": record.source.name,
        "sync_run": record.sync_run or None,
    }
    present = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(present, sort_keys=True, separators=(",", ":"), allow_nan=False)


def decode(payload: str | bytes) -> AdministrationRecord:
    """Decodes a record; unknown keys are ignored.

    Raises:
        MalformedAdministrationRecordError: The text is not a record.
    """
    try:
        data: dict[str, Any] = json.loads(payload)
        return AdministrationRecord(
            epoch=str(data["epoch"]),
            revision=int(data["revision"]),
            number=int(data["number"]),
            recorded_at=float(data["recorded_at"]),
            source=Source.__members__.get(data["source"], Source.UNNAMED),
            kind=str(data["kind"]),
            key=tuple(map(str, data["key"])),
            before=_values(data.get("before")),
            after=_values(data.get("after")),
            name=str(data.get("name", "")),
            reason=str(data.get("reason", "")),
            messages=tuple(map(str, data.get("messages", ()))),
            sync_run=int(data.get("sync_run", 0)),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        # From None: the cause would quote the payload.
        raise MalformedAdministrationRecordError("not an administration record") from None


def _values(value: object) -> Values | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError("not an object")
    return value

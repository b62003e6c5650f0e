"""Decision records, their canonical bytes, and their ids.

Canonical: JSON with sorted keys and without spaces; non-ASCII characters are escaped; fields that
are None are left out, and so is the source DECIDED. A record is always one line. Equal records with
equal salts have equal bytes. `reported_by` is not part of them: the receiver of a report adds it.

`salt` is 128 random bits in hexadecimal digits. It makes the digest of a record a salted one: when
the record is erased (tombstones.py), nobody can confirm a guess of its text. Records of earlier
versions have none.
"""

import enum
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, repeat
from json.encoder import encode_basestring_ascii as _quote
from typing import Any

from uuid_utils import uuid7

from pdp.model import Actor, Effect, Reason, ResourceRef

RECORD_BYTES_MAX = 1 << 20
"""The largest record; a reader takes anything larger for damage."""
_SALTS_DRAWN = 64


class AnswerSource(enum.Enum):
    """The source of an answer. The names are those of `AnswerSource` in the contract."""

    DECIDED = "decided"
    CACHED = "cached"
    """A sidecar served an earlier answer from its cache, within a lease."""
    STAYED_OPEN = "stayed_open"
    """A sidecar served an earlier answer in the fail-open window, after a lease."""

    __hash__ = object.__hash__  # as of model.Effect


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision in the audit log."""

    decision_id: str
    """UUIDv7 in its canonical text form."""
    decided_at: float
    effect: Effect
    reason: Reason
    permission: str
    caller: str
    revision: int
    token_fingerprint: str
    actor: Actor | None = None
    token_id: str | None = None
    resource: ResourceRef | None = None
    resource_organization_id: str | None = None
    rule_id: str | None = None
    grant_id: str | None = None
    source: AnswerSource = AnswerSource.DECIDED
    reported_by: str | None = None
    """The caller that logged it instead of the decision point: a sidecar."""
    request: str | None = None
    """Method and path of a routed request, printable ASCII; never its query, which may hold
    secrets."""
    query: str | None = None
    """The method of AccessQueryService; None: the record is of a decision."""
    occurrences: int = 1
    """How many equal denials it represents: all have its decision id."""
    inputs: str | None = None
    """What the decision read, as canonical JSON (`pdp.impact.inputs`), if that is recorded."""
    last_decided_at: float | None = None
    """When the last of them was decided; None: there is one."""
    erased_at: float | None = None
    """When personal data was erased from it: its text is a tombstone. None: it is complete."""


class MalformedRecordError(ValueError):
    """Bytes that are not a decision record."""


def new_decision_id() -> str:
    """Returns a UUIDv7 as text: sorts by creation time, also within a millisecond."""
    return str(uuid7())


def first_id_at(seconds: float) -> str:
    """Returns a text that sorts before all ids made at or after a time, and after those before it.

    Source: RFC 9562, 5.7.

    Args:
        seconds: Since 1970-01-01 UTC.
    """
    digits = f"{max(0, int(seconds * 1000)):012x}"
    return f"{digits[:8]}-{digits[8:]}-"


def new_salts() -> Iterator[str]:
    """Yields salts. After the first, many are drawn with one call of the operating system: each
    call lets other threads run first."""
    for count in chain((1,), repeat(_SALTS_DRAWN)):
        digits = os.urandom(16 * count).hex()
        for at in range(0, len(digits), 32):
            yield digits[at : at + 32]


def encode(record: DecisionRecord, salt: str = "") -> bytes:
    """Returns the canonical bytes of a record.

    Args:
        record: The record.
        salt: From `new_salts`; empty: none.

    Raises:
        ValueError: `decided_at` is not finite, or the record is larger than RECORD_BYTES_MAX.
    """
    return encode_with_key(record, salt)[0]


def encode_with_key(record: DecisionRecord, salt: str = "") -> tuple[bytes, bytes]:
    """Returns the canonical bytes of a record, and a digest of all fields except id, time and salt.

    Raises:
        ValueError: As `encode`.
    """
    decided_at = float(record.decided_at)
    if not math.isfinite(decided_at):
        raise ValueError("decided_at must be finite")
    # By hand, in the order of the keys: json.dumps takes three times as long.
    before = f'"caller":{_quote(record.caller)}'
    if record.actor is not None:
        before = f"{_encode_actor(record.actor)},{before}"
    identity = f'"decided_at":{decided_at!r},"decision_id":{_quote(record.decision_id)}'
    parts = [f'"effect":"{record.effect.name}"']
    if record.grant_id is not None:
        parts.append(f'"grant_id":{_quote(record.grant_id)}')
    if record.inputs is not None:
        parts.append(f'"inputs":{record.inputs}')
    parts.append(f'"permission":{_quote(record.permission)}')
    if record.query is not None:
        parts.append(f'"query":{_quote(record.query)}')
    parts.append(f'"reason":"{record.reason.name}"')
    if record.request is not None:
        parts.append(f'"request":{_quote(record.request)}')
    resource = record.resource
    if resource is not None:
        parts.append(f'"resource":{{"id":{_quote(resource.id)},"type":{_quote(resource.type)}}}')
    if record.resource_organization_id is not None:
        parts.append(f'"resource_organization_id":{_quote(record.resource_organization_id)}')
    parts.append(f'"revision":{record.revision:d}')
    if record.rule_id is not None:
        parts.append(f'"rule_id":{_quote(record.rule_id)}')
    after = ",".join(parts)
    end = f'"token_fingerprint":{_quote(record.token_fingerprint)}'
    if record.token_id is not None:
        end = f'{end},"token_id":{_quote(record.token_id)}'
    if record.source is not AnswerSource.DECIDED:
        end = f'"source":"{record.source.name}",{end}'
    salted = f'"salt":"{salt}",' if salt else ""
    payload = f"{{{before},{identity},{after},{salted}{end}}}".encode("ascii")
    if len(payload) > RECORD_BYTES_MAX:
        raise ValueError("the record is too long")
    return payload, sha256(f"{before},{after},{end}".encode("ascii")).digest()


def _encode_actor(actor: Actor) -> str:
    impersonator = organization = ""
    if actor.impersonator_id is not None:
        impersonator = f'"impersonator_id":{_quote(actor.impersonator_id)},'
    if actor.organization_id is not None:
        organization = f'"organization_id":{_quote(actor.organization_id)},'
    return (
        f'"actor":{{{impersonator}{organization}"session_id":{_quote(actor.session_id)}'
        f',"user_id":{_quote(actor.user_id)}}}'
    )


def decode(payload: bytes | str) -> DecisionRecord:
    """Decodes a record or a tombstone; unknown keys are ignored.

    Raises:
        MalformedRecordError: The bytes are not a record.
    """
    try:
        data: dict[str, Any] = json.loads(payload)
        actor = data.get("actor")
        resource = data.get("resource")
        return DecisionRecord(
            decision_id=_text(data["decision_id"]),
            decided_at=float(data["decided_at"]),
            effect=Effect[data["effect"]],
            reason=Reason[data["reason"]],
            permission=_text(data["permission"]),
            caller=_text(data["caller"]),
            revision=int(data["revision"]),
            token_fingerprint=_text(data["token_fingerprint"]),
            actor=None
            if actor is None
            else Actor(
                user_id=_text(actor["user_id"]),
                session_id=_text(actor["session_id"]),
                organization_id=_text_or_none(actor.get("organization_id")),
                impersonator_id=_text_or_none(actor.get("impersonator_id")),
            ),
            token_id=_text_or_none(data.get("token_id")),
            resource=None
            if resource is None
            else ResourceRef(_text(resource["type"]), _text(resource["id"])),
            resource_organization_id=_text_or_none(data.get("resource_organization_id")),
            rule_id=_text_or_none(data.get("rule_id")),
            grant_id=_text_or_none(data.get("grant_id")),
            source=AnswerSource[data.get("source", AnswerSource.DECIDED.name)],
            request=_text_or_none(data.get("request")),
            query=_text_or_none(data.get("query")),
            inputs=_canonical_or_none(data.get("inputs")),
            erased_at=float(data["erased"]["at"]) if "erased" in data else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        # From None: the cause would quote the payload.
        raise MalformedRecordError("not a decision record") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _canonical_or_none(value: object) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)

"""`pdp get --watch`: what changes of one kind, through the change stream.

The stream says that something of a kind changed; then the list is read again and compared. So
nothing is missed, whatever the stream leaves out.
"""

import queue
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import grpc

from pdp.cli.entities import Entities, cell, heading
from pdp.cli.follow import PASSING, RETRY_SECONDS_MAX
from pdp.cli.output import emit_json, note, show_table
from pdp.cli.profiles import Connection

SILENCE_SECONDS_MAX = 5.0
"""Of a stream with heartbeats every 250 ms. A connection whose other end is gone is silent too."""
PAUSE_SECONDS = 0.2
"""Between two readings of the list: changes that come together are read together."""
_RETRY_SECONDS = 0.5


def watch_entities(
    entities: Entities,
    filters: Mapping[str, str],
    channel: grpc.Channel,
    connection: Connection,
    columns: Sequence[str] | None,
) -> None:
    """Prints what matches, then what is added, changed and deleted, until it is interrupted.

    Args:
        entities: Of one kind.
        filters: As `Entities.matching` takes them.
        channel: To the server.
        connection: How to call it.
        columns: Of a table; None: JSON objects with `event` and `object`.

    Raises:
        grpc.RpcError: Asking again does not help.
    """
    known: dict[str, Any] | None = None
    failing, seconds = False, _RETRY_SECONDS
    while True:
        try:
            for _ in _changes(entities, channel, connection):
                found = {
                    entities.kind.text_of(entity): entity for entity in entities.matching(filters)
                }
                if failing:
                    note("the server answers again; the list is complete")
                failing, seconds = False, _RETRY_SECONDS
                _show(known, found, columns)
                known = found
            time.sleep(PAUSE_SECONDS)
        except grpc.RpcError as error:
            if error.code() not in PASSING:
                raise
            if not failing:
                note(f"{error.code().name}: {error.details()}; asks again until it answers")
            failing = True
            time.sleep(seconds * random.uniform(0.5, 1))  # noqa: S311  # no secret
            seconds = min(2 * seconds, RETRY_SECONDS_MAX)


def _changes(entities: Entities, channel: grpc.Channel, connection: Connection) -> Iterator[None]:
    """One stream: yields once it is open, and after each change that concerns the kind. Ends as
    the stream does, and when it is silent. The list is read for each stream, so a change that came
    with the end of the last one is found.

    Raises grpc.RpcError as the stream does.
    """
    from pdp_client.transport import caller_metadata
    from pdpapi.v1.change_service_pb2 import ChangeKind, WatchRequest
    from pdpapi.v1.change_service_pb2_grpc import ChangeServiceStub

    names = entities.kind.changes or (entities.kind.name.upper(),)
    concerned = {ChangeKind.Value(f"CHANGE_KIND_{name}") for name in names}
    stream = ChangeServiceStub(channel).Watch(
        WatchRequest(), metadata=caller_metadata(connection.api_key)
    )
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    # A thread reads, so that a long list does not keep the stream waiting: the server ends it then.
    threading.Thread(target=_read, args=(stream, messages), daemon=True).start()
    opened = False
    try:
        while True:
            batch = [messages.get(timeout=SILENCE_SECONDS_MAX)]
            while not messages.empty():
                batch.append(messages.get())
            if isinstance(batch[-1], Exception):
                raise batch[-1]
            if batch[-1] is None:
                return
            if not opened or any(_concerns(message, concerned) for message in batch):
                opened = True
                yield
                time.sleep(PAUSE_SECONDS)
    except queue.Empty:
        return
    finally:
        stream.cancel()


def _read(stream: Any, messages: "queue.SimpleQueue[Any]") -> None:
    try:
        for message in stream:
            messages.put(message)
    except grpc.RpcError as error:
        messages.put(error)
    else:
        messages.put(None)


def _concerns(message: Any, kinds: Set[Any]) -> bool:
    match message.WhichOneof("told"):
        case "heartbeat":
            return False
        case "changed":
            return any(change.kind in kinds for change in message.changed.changes)
        case _:
            return True


def _show(
    known: Mapping[str, Any] | None, found: Mapping[str, Any], columns: Sequence[str] | None
) -> None:
    before = known or {}
    events = [
        *(("DELETED", entity) for name, entity in before.items() if name not in found),
        *(
            ("ADDED" if name not in before else "CHANGED", entity)
            for name, entity in found.items()
            if before.get(name) != entity
        ),
    ]
    if columns is None:
        from google.protobuf.json_format import MessageToDict

        for event, entity in events:
            emit_json(
                {"event": event, "object": MessageToDict(entity, preserving_proto_field_name=True)}
            )
    elif events or known is None:
        rows = [[event, *(cell(entity, column) for column in columns)] for event, entity in events]
        show_table(("event", *map(heading, columns)), rows, heading=known is None)

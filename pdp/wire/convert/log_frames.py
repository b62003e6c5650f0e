"""Converts parts of a decision log to and from messages, for the exporting and the reporting
side."""

from collections.abc import Sequence

from pdpapi.v1 import audit_service_pb2 as pb

from pdp.audit import KIND_GAP, KIND_RECORD, Frame, Place
from pdp.errors import InvalidRequest, Violation

_KINDS = {pb.FRAME_KIND_RECORD: KIND_RECORD, pb.FRAME_KIND_GAP: KIND_GAP}
_KIND_VALUES = {kind: value for value, kind in _KINDS.items()}


def place_of(message: pb.LogPlace) -> Place:
    """Reads a place in a decision log."""
    return Place(message.segment, message.byte_offset, message.position, message.digest)


def place_message(place: Place) -> pb.LogPlace:
    """Writes a place in a decision log."""
    return pb.LogPlace(
        segment=place.sequence,
        byte_offset=place.byte_offset,
        position=place.position,
        digest=place.digest,
    )


def contents_of(messages: Sequence[pb.LogFrame]) -> list[tuple[bytes, bytes]]:
    """Kind and payload of each frame. Raises InvalidRequest."""
    contents = []
    for number, message in enumerate(messages):
        kind = _KINDS.get(message.kind)
        if kind is None:
            raise InvalidRequest(Violation(f"frames[{number}].kind", "is not a kind of frame"))
        contents.append((kind, message.payload))
    return contents


def frame_message(frame: Frame) -> pb.LogFrame:
    """Writes a frame of a decision log."""
    return pb.LogFrame(kind=_KIND_VALUES[frame.kind], payload=frame.payload)

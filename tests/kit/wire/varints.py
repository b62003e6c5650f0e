"""Numbers of protobuf, for messages that are built by hand."""


def varint(number: int) -> bytes:
    """A number as protobuf's wire format writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])

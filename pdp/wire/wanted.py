"""Whether the answer to a call is still wanted: its deadline and its cancellation.

A server says so for the call that it answers; whatever works on the answer looks between two steps.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pdp.authorizer import StillWanted
from pdp.errors import DeadlineExceeded

_still_wanted: ContextVar[StillWanted] = ContextVar("still_wanted", default=lambda: None)
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


@contextmanager
def wanted_while(still_wanted: StillWanted) -> Iterator[None]:
    """Declares the check of the call that is answered inside."""
    token = _still_wanted.set(still_wanted)
    try:
        yield
    finally:
        _still_wanted.reset(token)


def still_wanted() -> StillWanted:
    """The check of the call that is being answered here."""
    return _still_wanted.get()


def within(grpc_timeout: bytes) -> StillWanted:
    """The check of a call with this `grpc-timeout`, from now on. An empty or malformed one is none.

    Format: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, Timeout.
    """
    found = _TIMEOUT.fullmatch(grpc_timeout)
    if found is None:
        return lambda: None
    deadline = time.monotonic() + int(found[1]) * _UNIT_SECONDS[found[2]]

    def check() -> None:
        if time.monotonic() >= deadline:
            raise DeadlineExceeded("the deadline of the call has passed")

    return check

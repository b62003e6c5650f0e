"""The deadline of a call, as gRPC writes it."""

import threading
import time

import pytest

from pdp.errors import DeadlineExceeded
from pdp.wire.wanted import still_wanted, wanted_while, within


@pytest.mark.parametrize("timeout", [b"0m", b"0H", b"1n", b"00000001u"])
def test_a_deadline_that_has_passed_ends_the_work(timeout: bytes) -> None:
    check = within(timeout)
    time.sleep(0.001)
    with pytest.raises(DeadlineExceeded):
        check()


@pytest.mark.parametrize(
    "timeout",
    [
        b"60S",
        b"1H",
        b"99999999m",
        b"",
        b"S",
        b"-1S",
        b"1.5S",
        b"999999999S",
        b"1s",
        b" 0S",
        b"0S\n",
    ],
)
def test_another_deadline_or_none_does_not(timeout: bytes) -> None:
    within(timeout)()


def test_each_call_has_a_check_of_its_own() -> None:
    seen = []

    def answer(timeout: bytes) -> None:
        with wanted_while(within(timeout)):
            barrier.wait(10)
            try:
                still_wanted()()
            except DeadlineExceeded:
                seen.append(timeout)

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=answer, args=(timeout,)) for timeout in (b"0m", b"1H")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [b"0m"]
    still_wanted()()

"""Limits how much of the log each caller may write: token buckets of bytes, by caller name."""

from typing import Final, NamedTuple

from pdp.errors import ShareExceeded

SHARE: Final = "audit_share_bytes_per_second"


class _Bucket(NamedTuple):
    balance: float
    """Bytes; negative after a batch that was larger than the balance."""
    at: float


class Shares:
    """The shares of all callers. No side effects outside of its state; for one thread.

    A caller with a positive balance may write a batch of any size and is charged afterwards. So a
    single request always succeeds, and the caller waits later until its balance is positive again.
    """

    def __init__(self, bytes_per_second: int, burst_bytes: int) -> None:
        """Creates full buckets.

        Args:
            bytes_per_second: Refill rate of each caller.
            burst_bytes: Capacity of a bucket: what an idle caller may write at once.
        """
        self._rate = bytes_per_second
        self._burst = burst_bytes
        self._buckets: dict[str, _Bucket] = {}

    def require(self, caller: str, now: float) -> None:
        """Checks that a caller may write at `now` (monotonic seconds).

        Raises:
            ShareExceeded: Its share is used up.
        """
        balance = self._balance(caller, now)
        if balance <= 0:
            wait_ms = 1 + int(-balance / self._rate * 1000)
            raise ShareExceeded(SHARE, self._rate, wait_ms)

    def charge(self, caller: str, size: int, now: float) -> None:
        """Takes `size` bytes from a caller's share at `now` (monotonic seconds)."""
        self._buckets[caller] = _Bucket(self._balance(caller, now) - size, now)

    def is_half_full(self, caller: str, now: float) -> bool:
        """Returns whether the bucket of a caller is at least half full."""
        return self._balance(caller, now) >= self._burst / 2

    def _balance(self, caller: str, now: float) -> float:
        bucket = self._buckets.get(caller)
        if bucket is None:
            return self._burst
        return min(self._burst, bucket.balance + (now - bucket.at) * self._rate)

"""How much of the log each caller may fill: token buckets of bytes, keyed by the caller's name."""

from typing import Final, NamedTuple

from pdp.errors import ShareExceeded

SHARE: Final = "audit_share_bytes_per_second"


class _Bucket(NamedTuple):
    balance: float
    """Bytes; below 0 after a batch that was larger than what was left."""
    at: float


class Shares:
    """The shares of all callers. Pure but for its own state; for one thread.

    A caller whose balance is positive may write, whatever the size, and pays afterwards. So one
    request can always be answered, and its excess is paid for by waiting.
    """

    def __init__(self, bytes_per_second: int, burst_bytes: int) -> None:
        """Creates full buckets.

        Args:
            bytes_per_second: What each caller gets back every second.
            burst_bytes: What a caller that was silent may write at once.
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
        """Whether a caller has half of its burst again."""
        return self._balance(caller, now) >= self._burst / 2

    def _balance(self, caller: str, now: float) -> float:
        bucket = self._buckets.get(caller)
        if bucket is None:
            return self._burst
        return min(self._burst, bucket.balance + (now - bucket.at) * self._rate)

"""An immutable map that is cheap to change: a change copies one small bucket, not the map."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Generic, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_BUCKET_ITEMS: Final = 64
_BUCKETS_MAX: Final = 1 << 16


class PersistentMap(Generic[K, V]):
    """Reads cost what a dict costs. `updated` costs the buckets it touches and one tuple."""

    __slots__ = ("_buckets", "_length", "_mask")

    def __init__(self, items: Iterable[tuple[K, V]] = ()) -> None:
        whole = dict(items)
        count = 1
        while count * _BUCKET_ITEMS < len(whole) and count < _BUCKETS_MAX:
            count *= 2
        buckets: list[dict[K, V]] = [{} for _ in range(count)]
        mask = count - 1
        for key, value in whole.items():
            buckets[hash(key) & mask][key] = value
        self._buckets = tuple(buckets)
        self._mask = mask
        self._length = len(whole)

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: D | None = None) -> V | D | None:
        return self._buckets[hash(key) & self._mask].get(key, default)

    def __contains__(self, key: K) -> bool:
        return key in self._buckets[hash(key) & self._mask]

    def __len__(self) -> int:
        return self._length

    def items(self) -> Iterator[tuple[K, V]]:
        """In no order."""
        for bucket in self._buckets:
            yield from bucket.items()

    def updated(self, changes: Mapping[K, V | None]) -> "PersistentMap[K, V]":
        """The map with these values; None removes a key. No changes: the same map."""
        if not changes:
            return self
        touched: dict[int, dict[K, V]] = {}
        length = self._length
        for key, value in changes.items():
            place = hash(key) & self._mask
            bucket = touched.get(place)
            if bucket is None:
                bucket = touched[place] = dict(self._buckets[place])
            length -= len(bucket)
            if value is None:
                bucket.pop(key, None)
            else:
                bucket[key] = value
            length += len(bucket)
        buckets = list(self._buckets)
        for place, bucket in touched.items():
            buckets[place] = bucket
        result: PersistentMap[K, V] = object.__new__(PersistentMap)
        result._buckets = tuple(buckets)  # its own class
        result._mask = self._mask
        result._length = length
        if length > 4 * _BUCKET_ITEMS * len(buckets) and len(buckets) < _BUCKETS_MAX:
            return PersistentMap(result.items())  # outgrown: rare, so cheap on average
        return result

"""The cache of a guard, as an application sees it."""

from pdp_client import CacheStatus, Guard


def status(guard: Guard) -> CacheStatus:
    """The status of the cache of a guard that has one."""
    assert guard.cache_status is not None
    return guard.cache_status

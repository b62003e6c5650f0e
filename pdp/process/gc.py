"""How often the garbage collector stops a process that serves."""

import gc


def freeze_gc() -> None:
    """Has the garbage collector pass over what is loaded by now, policy and all, and come rarely.
    Otherwise it stops the process for tens of milliseconds, every few thousand requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)

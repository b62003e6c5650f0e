"""How coroutines wait for threads and for each other."""

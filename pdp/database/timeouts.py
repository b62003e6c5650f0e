"""How long the database may take, and how many connections a process has to it."""

CONNECT_SECONDS_MAX = 3
STATEMENT_SECONDS_MAX = 5
POOL_CONNECTIONS_MAX = 16
ANNOUNCE_SECONDS_MAX = 0.25
SILENCE_SECONDS_MAX = STATEMENT_SECONDS_MAX + 1
"""A server that is silent for longer is gone: its own timeout would have ended the statement."""
POLL_SECONDS_MAX = 1
POLL_SILENCE_SECONDS_MAX = 1.5
MIGRATION_SECONDS_MAX = 24 * 60 * 60
TABLE_WAIT_SECONDS_MAX = 2
LOCK_SECONDS_MAX = 0.25
"""How long a poll waits for the write lock of SQLite."""

"""The server as a process: composition root, listener, supervisor, logs, metrics, scheduling."""

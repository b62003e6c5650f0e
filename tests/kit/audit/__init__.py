"""Decision records, logs on disk and in SQL, and processes that write one."""

"""The feed for a SIEM: records of decisions and changes as OCSF, ECS, CEF or JSON, and a program
that forwards them.

In:  records of `AuditService` (`events.py`).
Out: lines of a format (`formats.py`), appended to files, sent over HTTP or as OTLP logs, or sent
     over syslog with TLS (`destinations/`).

Invariants:
- At least once: the cursor moves only after the destination has confirmed the records before it.
- Records are delivered in the order of the log. One batch is in flight at a time.
- A record is one line in every format, whatever its texts contain.
- Memory is bounded by two pages of records, however slow the destination is.
- Records that a destination refuses permanently are set aside in a file and counted, never dropped.

Never: opens the database, decides, sees a token, sends anything in clear text beyond loopback.
"""

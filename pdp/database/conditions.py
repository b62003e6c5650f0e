"""Describes what is wrong with a database, from the error that its driver raised.

The texts of a driver are never repeated: they may hold parts of the URL.
"""

import sqlite3

_SQLSTATES = {
    "28000": "the server does not let this role in",
    "28P01": "the password of the role is wrong",
    "3D000": "the server has no database of this name",
    "42501": "the role lacks a privilege",
    "53100": "the disk of the server is full",
    "53300": "the server has no connection left",
    "55P03": "a lock is held by somebody else",
    "57014": "a statement took too long",
    "57P01": "the server ended the connection",
    "57P03": "the server is starting, or shutting down",
}
"""Source: https://www.postgresql.org/docs/current/errcodes-appendix.html"""
_SQLSTATE_CLASSES = {
    "08": "the connection was lost",
    "53": "the server lacks resources",
    "57": "the server ended the connection",
    "58": "the server had a system error",
}
_SQLITE_CONDITIONS = {
    sqlite3.SQLITE_PERM: "the file may not be opened",
    sqlite3.SQLITE_BUSY: "another process holds the lock of the file",
    sqlite3.SQLITE_LOCKED: "another connection holds the lock of a table",
    sqlite3.SQLITE_READONLY: "the file may not be written",
    sqlite3.SQLITE_IOERR: "the file cannot be read or written",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: is its directory there, and may it be "
    "written?",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database",
}
_CONNECT_CONDITIONS = (
    ("password authentication failed", "the password of the role is wrong"),
    ("no password supplied", "the server asks for a password, and the URL has none"),
    ("no pg_hba.conf entry", "the server does not let this role in from here (pg_hba.conf)"),
    ("role ", "the server has no role of this name, or does not let it log in"),
    ("database ", "the server has no database of this name"),
    ("authentication failed", "the server does not let this role in"),
    ("too many clients", "the server has no connection left"),
    ("remaining connection slots", "the server has no connection left"),
    ("starting up", "the server is starting, or shutting down"),
    ("shutting down", "the server is starting, or shutting down"),
    ("ssl negotiation", "what listens at this host and port is not PostgreSQL"),
    ("received invalid response", "what listens at this host and port is not PostgreSQL"),
    ("invalid uri query parameter", "the URL has an option that is none"),
    ("invalid connection option", "the URL has an option that is none"),
    ("invalid ", "an option of the URL has a value that is none"),
    ("failed to resolve host", "the name of the host cannot be resolved"),
    ("could not translate host name", "the name of the host cannot be resolved"),
    ("connection refused", "nothing listens at this host and port"),
    ("no such file or directory", "nothing listens at this socket"),
    ("timeout", "the host does not answer in time"),
    ("timed out", "the host does not answer in time"),
    ("no route to host", "there is no way to the host"),
    ("network is unreachable", "there is no way to the host"),
    ("does not support ssl", "the server does not speak TLS, and the URL demands it"),
    ("certificate", "TLS: a certificate is not accepted"),
    ("ssl", "TLS: the handshake failed"),
    ("closed", "the connection was lost"),
    ("lost", "the connection was lost"),
)
"""Words in errors of psycopg, libpq and the server -> condition. The first match wins. Only English
errors match; errors in other languages give no condition."""


def condition_of(error: BaseException, code: str) -> str | None:
    """Returns what is wrong; None: unknown.

    Args:
        error: The error of the driver.
        code: Its SQLSTATE, or SQLite's extended result code; empty: it has none.
    """
    if isinstance(error, sqlite3.Error):
        # The low byte of an extended result code is the result code.
        return _SQLITE_CONDITIONS.get(int(code) & 0xFF) if code else None
    if code:
        return _SQLSTATES.get(code) or _SQLSTATE_CLASSES.get(code[:2])
    # A failed connection has no SQLSTATE: libpq gives only a text.
    text = str(error).lower()
    return next((condition for words, condition in _CONNECT_CONDITIONS if words in text), None)

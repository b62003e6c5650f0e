"""Syslog over TLS: strict frames, and no confirmation by a receiver that read only a part."""

import contextlib
import json
import re
import socket
import ssl
import threading
from pathlib import Path

import pytest

from pdp.errors import DeliveryFailed
from pdp.siem.destinations.syslog import MESSAGE_BYTES_MAX, SyslogDestination, frame
from pdp.siem.formats import FORMATS, Format
from tests.kit.siem.receivers import (
    SyslogReceiver,
    TlsFiles,
    frames,
    reset,
    syslog_receiver,
    tls_files,
)
from tests.kit.siem.records import HOSTILE, hostile, record
from tests.kit.siem.rsyslog import needs_rsyslog, running_rsyslog
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually

HEADER = re.compile(
    r"<10[89]>1 2026-11-30T12:00:00\.500Z [!-~]{1,255} pdp - decision - (?P<content>[^\n\r]*)"
)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return tls_files(tmp_path)


def destination(
    port: int, authority: Path | None, format_: Format = "ocsf", seconds_max: float = 20
) -> SyslogDestination:
    return SyslogDestination(
        "localhost",
        port,
        FORMATS[format_]["decision"],
        ca_file=authority,
        certificate_file=None,
        private_key_file=None,
        seconds_max=seconds_max,
    )


@pytest.mark.parametrize("text", [*HOSTILE, "x" * 20_000, "\n" * 20_000, "💥" * 20_000])
@pytest.mark.parametrize("format_", ["ocsf", "ecs", "cef"])
def test_a_message_is_one_frame_of_bounded_size_whatever_its_texts_are(
    format_: Format, text: str
) -> None:
    content = frame(hostile(text), FORMATS[format_]["decision"], "host")
    (message,) = frames(content)
    assert len(message.encode()) <= MESSAGE_BYTES_MAX
    header = HEADER.fullmatch(message)
    assert header is not None, message
    if format_ != "cef":
        assert json.loads(header["content"])


def test_a_record_that_fits_is_not_shortened() -> None:
    (message,) = frames(frame(record(), FORMATS["ocsf"]["decision"], "host"))
    header = HEADER.fullmatch(message)
    assert header is not None
    assert header["content"] == FORMATS["ocsf"]["decision"](record(), 1024)


def test_batches_arrive_in_order_over_tls(files: TlsFiles) -> None:
    with syslog_receiver(files) as receiver:
        own = destination(receiver.port, files.authority)
        for start in (0, 100):
            own.deliver([record(decision_id=str(start + n)) for n in range(100)])
        ids = [
            json.loads(message.split(" - ")[-1])["metadata"]["uid"] for message in receiver.messages
        ]
        assert ids == [str(n) for n in range(200)]


def test_a_certificate_for_another_host_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    files = tls_files(tmp_path, "other.test")
    with syslog_receiver(files) as receiver:
        with pytest.raises(DeliveryFailed, match="certificate"):
            destination(receiver.port, files.authority).deliver([record()])
        assert receiver.messages == []


def test_a_certificate_of_an_unknown_authority_is_refused(files: TlsFiles, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tls_files(tmp_path / "other")
    with syslog_receiver(files) as receiver:
        for authority in (other.authority, None):
            with pytest.raises(DeliveryFailed, match="certificate"):
                destination(receiver.port, authority).deliver([record()])
        assert receiver.messages == []


def test_a_receiver_that_wants_a_client_certificate_confirms_nothing_without_it(
    files: TlsFiles,
) -> None:
    with syslog_receiver(files, mtls=True) as receiver:
        with pytest.raises(DeliveryFailed):
            destination(receiver.port, files.authority).deliver([record()])
        assert receiver.messages == []
        own = SyslogDestination(
            "localhost",
            receiver.port,
            FORMATS["ocsf"]["decision"],
            ca_file=files.authority,
            certificate_file=files.client_certificate,
            private_key_file=files.client_key,
            seconds_max=20,
        )
        own.deliver([record()])
        assert len(receiver.messages) == 1


def test_a_receiver_without_tls_gets_nothing(files: TlsFiles) -> None:
    got = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                got.extend(connection.recv(1 << 16))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(DeliveryFailed):
            destination(server.getsockname()[1], files.authority).deliver([record()])
        thread.join(10)
    assert b"user_1" not in got


def _close_after_a_part(_: SyslogReceiver, connection: ssl.SSLSocket) -> None:
    connection.recv(1)
    reset(connection)


def _say_goodbye_after_a_part(_: SyslogReceiver, connection: ssl.SSLSocket) -> None:
    connection.recv(1)
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        connection.unwrap()
    connection.close()


@pytest.mark.parametrize(
    ("behave", "count"),
    [
        (_close_after_a_part, 1),
        (_close_after_a_part, 4_000),
        (_say_goodbye_after_a_part, 50),
        (_say_goodbye_after_a_part, 4_000),
    ],
)
def test_a_receiver_that_closes_before_the_end_confirms_nothing(
    files: TlsFiles, behave: object, count: int
) -> None:
    with syslog_receiver(files) as receiver:
        receiver.behave = behave  # type: ignore[assignment]
        batch = [record(decision_id=str(n), token_id="x" * 1_000) for n in range(count)]
        with pytest.raises(DeliveryFailed):
            destination(receiver.port, files.authority).deliver(batch)


def test_a_receiver_that_does_not_read_or_not_answer_fails_in_time(files: TlsFiles) -> None:
    ended = threading.Event()
    with syslog_receiver(files) as receiver:
        receiver.behave = lambda *_: ended.wait(60)
        watch = Stopwatch()
        own = destination(receiver.port, files.authority, seconds_max=0.7)
        with pytest.raises(DeliveryFailed):
            own.deliver([record()])
        with pytest.raises(DeliveryFailed):
            own.deliver([record(token_id="x" * 1000)] * 10_000)
        ended.set()
    assert watch.seconds < 10


@needs_rsyslog
@pytest.mark.parametrize("format_", ["ocsf", "cef"])
def test_rsyslog_parses_every_message_as_it_was_sent(
    tmp_path: Path, files: TlsFiles, format_: Format
) -> None:
    line = FORMATS[format_]["decision"]
    sent = [*map(hostile, HOSTILE), *(record(decision_id=str(n)) for n in range(2_000))]
    with running_rsyslog(tmp_path / "rsyslog", files) as receiver:
        own = destination(receiver.port, files.authority, format_)
        for start in range(0, len(sent), 500):
            own.deliver(sent[start : start + 500])
        eventually(lambda: len(receiver.received()) >= len(sent), what=receiver.log())
        received = receiver.received()
    assert {tuple(fields[:4]) for fields in received} == {
        ("108", "2026-11-30T12:00:00.500Z", "pdp", "decision")
    }
    # rsyslog writes bytes beyond ASCII as octal escapes in `%msg%`, or unchanged.
    assert [fields[4].lstrip() for fields in received if fields[4].isascii()] == [
        text for text in (line(each, 1024) for each in sent) if text.isascii()
    ]
    assert len(received) == len(sent)

"""OTLP logs: a record is a log record, and only a complete success confirms a batch."""

import json

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from pdpapi.v1 import core_pb2
from pdpapi.v1.audit_service_pb2 import AdministrationRecord, DecisionRecord

from pdp.errors import DeliveryFailed, DeliveryRefused
from pdp.siem.destinations.http import HttpDestination
from pdp.siem.destinations.otlp import otlp_encoding
from pdp.siem.formats import Format, line_of
from tests.kit.siem.collector import running_collector
from tests.kit.siem.records import HOSTILE, hostile, record

ALLOW = core_pb2.DECISION_ALLOW


def destination(url: str, format_: Format = "ocsf") -> HttpDestination:
    encoding = otlp_encoding(line_of(format_))
    return HttpDestination(url, encoding, authorization=None, ca_file=None, seconds_max=20)


def test_records_of_each_kind_are_log_records_in_their_order() -> None:
    change = AdministrationRecord(epoch="9f3c", revision=12, kind="role", key=["READER"])
    change.recorded_at.FromMilliseconds(1_796_040_000_500)
    with running_collector() as collector:
        sent = [record(decision_id="1"), change, record(decision_id="2", decision=ALLOW)]
        destination(collector.receiver.url).deliver(sent)
        assert collector.receiver.headers[0]["content-type"] == "application/x-protobuf"
        assert [each.event_name for each in collector.logs] == [
            "pdp.decision",
            "pdp.change",
            "pdp.decision",
        ]
        assert [each.severity_number for each in collector.logs] == [
            SeverityNumber.SEVERITY_NUMBER_WARN,
            SeverityNumber.SEVERITY_NUMBER_INFO2,
            SeverityNumber.SEVERITY_NUMBER_INFO,
        ]
        assert {each.time_unix_nano for each in collector.logs} == {1_796_040_000_500_000_000}
        ids = ["1", "9f3c/12/0", "2"]
        assert [each.attributes[0].value.string_value for each in collector.logs] == ids
        bodies = [json.loads(each.body.string_value) for each in collector.logs]
        assert [body["metadata"]["uid"] for body in bodies] == ids


@pytest.mark.parametrize("format_", ["ocsf", "ecs", "cef"])
def test_no_text_and_no_time_of_a_record_stops_the_feed(format_: Format) -> None:
    odd = [DecisionRecord(), DecisionRecord(), *map(hostile, [*HOSTILE, "x" * 20_000])]
    odd[0].decided_at.seconds, odd[1].decided_at.seconds = -(1 << 62), 1 << 62
    with running_collector() as collector:
        destination(collector.receiver.url, format_).deliver(odd)
        assert len(collector.logs) == len(odd)


def test_a_partial_success_is_a_refusal() -> None:
    with running_collector() as collector:
        collector.rejects = lambda log: "poison" in log.body.string_value
        with pytest.raises(DeliveryRefused, match="rejects 1 log"):
            destination(collector.receiver.url).deliver([record(), record(decision_id="poison")])


@pytest.mark.parametrize("reply", [b"<html>signed out</html>", b'{"partialSuccess": {}}'])
def test_200_with_another_body_than_that_of_otlp_confirms_nothing(reply: bytes) -> None:
    from tests.kit.siem.receivers import http_receiver

    with http_receiver(lambda _: [], lambda: reply) as receiver, pytest.raises(DeliveryFailed):
        destination(receiver.url).deliver([record()])

"""Features that clients of gRPC expect of any server: reflection, health, deadlines,
compression, and an orderly end."""

import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, CheckItem, CheckRequest

from tests.kit.school import ALGEBRA, ORGANIZATION, POLICY, reason_of
from tests.kit.server import ServerProcess, Stubs, running_server, stubs_on, token_of
from tests.kit.tokens import session_token
from tests.kit.waiting import eventually
from tests.kit.wire.errors import error_info, rpc_error
from tests.kit.wire.http2 import GOAWAY, connected, settings

SLOW = "https://slow.clerk.example.test"
SERVICE = "pdpapi.v1.PolicyDecisionService"
OTHERS = {"pdpapi.v1.PolicyAdministrationService", "grpc.health.v1.Health"}


# --- reflection -----------------------------------------------------------------------------------


class Reflection:
    """A tool that knows no stubs, as grpcurl does."""

    def __init__(self, channel: grpc.Channel, version: str) -> None:
        self.stream = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        self._channel = channel

    def ask(self, **request: Any) -> reflection_pb2.ServerReflectionResponse:
        [answer] = self.stream(
            iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=10
        )
        return answer

    def list(self) -> set[str]:
        return {
            service.name for service in self.ask(list_services="").list_services_response.service
        }

    def describe(self, symbol: str) -> descriptor_pool.DescriptorPool:
        """The descriptors that the file of a symbol needs."""
        pool, known = descriptor_pool.DescriptorPool(), set()

        def add(raw: bytes) -> None:
            file = FileDescriptorProto.FromString(raw)
            if file.name in known:
                return
            known.add(file.name)
            for name in file.dependency:
                for needed in files(self.ask(file_by_filename=name)):
                    add(needed)
            pool.Add(file)

        def files(answer: reflection_pb2.ServerReflectionResponse) -> Any:
            return answer.file_descriptor_response.file_descriptor_proto

        for raw in files(self.ask(file_containing_symbol=symbol)):
            add(raw)
        return pool

    def call(self, service: str, method: str, text: str) -> Any:
        """A call with JSON; the answer as JSON."""
        pool = self.describe(service)
        found = pool.FindServiceByName(service).methods_by_name[method]
        request = json_format.Parse(text, message_factory.GetMessageClass(found.input_type)())
        call = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(found.output_type).FromString,
        )
        return json_format.MessageToDict(call(request, timeout=10))


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_a_tool_without_stubs_lists_describes_and_calls(stubs: Stubs, version: str) -> None:
    reflection = Reflection(stubs.channel, version)
    assert reflection.list() >= {SERVICE, *OTHERS, f"grpc.reflection.{version}.ServerReflection"}
    pool = reflection.describe("pdpapi.v1.CheckRequest")
    assert "permission" in pool.FindMessageTypeByName("pdpapi.v1.CheckRequest").fields_by_name
    text = json_format.MessageToJson(
        CheckRequest(
            actor_token=token_of("user_ivan", organization_id=ORGANIZATION),
            permission="course:edit",
            resource=ALGEBRA,
        )
    )
    assert reflection.call(SERVICE, "Check", text)["decision"] == "DECISION_ALLOW"
    assert reflection.ask(file_containing_symbol="no.such.Symbol").error_response.error_code == 5


def test_a_stream_of_reflection_requests_is_answered_in_order(stubs: Stubs) -> None:
    names = ["a.proto", SERVICE, "b.proto"]
    requests = (reflection_pb2.ServerReflectionRequest(file_containing_symbol=n) for n in names)
    stream = Reflection(stubs.channel, "v1").stream
    answers = list(stream(requests, timeout=10))
    kinds = [answer.WhichOneof("message_response") for answer in answers]
    assert kinds == ["error_response", "file_descriptor_response", "error_response"]


# --- health ---------------------------------------------------------------------------------------


def test_health_is_checked_and_watched_until_the_process_ends(tmp_path: Path) -> None:
    status = health_pb2.HealthCheckResponse.ServingStatus
    with running_server(tmp_path) as (server, stubs):
        health = health_pb2_grpc.HealthStub(stubs.channel)
        whole = health_pb2.HealthCheckRequest()
        eventually(lambda: health.Check(whole, timeout=10).status == status.SERVING)
        unknown = health_pb2.HealthCheckRequest(service="pdpapi.v1.Nothing")
        assert rpc_error(lambda: health.Check(unknown)).code() is grpc.StatusCode.NOT_FOUND
        assert next(health.Watch(unknown, timeout=10)).status == status.SERVICE_UNKNOWN
        watch = health.Watch(whole, timeout=60)
        assert next(watch).status == status.SERVING
        seen: list[int] = []
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(lambda: seen.extend(answer.status for answer in watch))
            assert server.stop() == 0
            with contextlib.suppress(grpc.RpcError):
                rest.result(30)
        assert set(seen) <= {status.NOT_SERVING}


# --- deadlines and compression --------------------------------------------------------------------


def test_a_deadline_ends_a_call_at_the_client_and_at_the_server(tmp_path: Path) -> None:
    """A key set that never comes is what a Check waits for longest."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        issuers = [{"issuer": SLOW, "jwks_url": f"http://127.0.0.1:{port}/keys"}]
        server = ServerProcess(tmp_path, {"ISSUERS": issuers})
        server.start(ready=False)
        try:
            eventually(lambda: server.http("/healthz")[0] == 200, seconds=30)
            with server.channel() as channel:
                grpc.channel_ready_future(channel).result(timeout=30)
                token = session_token(now=time.time(), user_id="user_ivan", issuer=SLOW)
                request = CheckRequest(actor_token=token, permission="course:edit")
                error = rpc_error(lambda: stubs_on(channel).decision.Check(request, timeout=0.5))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            eventually(lambda: given_up(server), what="the server gives the work up")
        finally:
            server.kill()


def given_up(server: ServerProcess) -> bool:
    """Whether a Check was ended because nobody waits for it."""
    text = server.http("/metrics")[1]
    return any(
        f'pdp_rpc_seconds_count{{code="{code}",method="Check"}} 1.0' in text
        for code in ("DEADLINE_EXCEEDED", "CANCELLED")
    )


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.NoCompression])
def test_compressed_requests_are_read(server: ServerProcess, compression: grpc.Compression) -> None:
    request = BatchCheckRequest(
        actor_token=token_of("user_ivan", organization_id=ORGANIZATION),
        items=[CheckItem(permission="course:edit", resource=ALGEBRA)] * 500,
    )
    with server.channel() as channel:
        answer = stubs_on(channel).decision.BatchCheck(request, compression=compression, timeout=10)
    assert {reason_of(result) for result in answer.results} == {"ALLOWED_BY_RULE"}


def test_an_encoding_that_is_not_read_is_named(server: ServerProcess) -> None:
    with server.channel() as channel:
        error = rpc_error(
            lambda: stubs_on(channel).decision.Check(
                CheckRequest(permission="x" * 2_000), compression=grpc.Compression.Deflate
            )
        )
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    offered = dict(error.initial_metadata() or ()) | dict(error.trailing_metadata() or ())
    assert offered.get("grpc-accept-encoding", "identity,gzip") == "identity,gzip"


def test_what_is_compressed_is_bounded_as_it_was(server: ServerProcess) -> None:
    with server.channel() as channel:
        request = CheckRequest(permission="x" * 10_000_000)
        error = rpc_error(
            lambda: stubs_on(channel).decision.Check(request, compression=grpc.Compression.Gzip)
        )
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error_info(error).reason == "LIMIT_EXCEEDED"


# --- the end --------------------------------------------------------------------------------------


@contextlib.contextmanager
def asked_while(stubs: Stubs) -> Iterator[list[grpc.RpcError]]:
    """Slow questions, which are in flight while the body of the `with` runs."""
    errors: list[grpc.RpcError] = []
    request = BatchCheckRequest(
        actor_token=token_of("user_ivan", organization_id=ORGANIZATION),
        items=[CheckItem(permission="course:edit", resource=ALGEBRA)] * 1_000,
    )
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(stubs.decision.BatchCheck, request, timeout=30) for _ in range(40)]
        eventually(lambda: any(call.done() for call in calls))
        yield errors
        for call in calls:
            error = call.exception(30)
            if isinstance(error, grpc.RpcError):
                errors.append(error)
            else:
                assert len(call.result().results) == 1_000


def test_a_process_that_ends_says_goaway_and_answers_what_it_took(tmp_path: Path) -> None:
    with running_server(tmp_path, POLICY) as (server, stubs):
        with connected(server.port) as idle, asked_while(stubs) as errors:
            idle.send([settings()])
            assert server.stop() == 0
            eventually(idle.closed.is_set)
            assert any(kind == GOAWAY for kind, _, _ in idle.frames())
            assert idle.goaway() == 0
        # Refused as such, or not connected any more: nothing was cut off in the middle.
        for error in errors:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            said = str(error.details())
            assert said == "the process is shutting down" or said.startswith("failed to connect")
        assert "Traceback" not in server.log()

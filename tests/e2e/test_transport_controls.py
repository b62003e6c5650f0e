"""The attacks of test_transport_attacks.py do harm to a server without its bounds, and the client
that asks beside them notices harm."""

import signal
import time
from pathlib import Path

import pytest

from tests.kit.bystander import unharmed
from tests.kit.school import POLICY
from tests.kit.server import running_server
from tests.kit.waiting import eventually
from tests.kit.wire.http2 import connected, header_bombs

WITHOUT_BOUNDS = """
import h2corn
bounded = h2corn.Config
names = ("h2_max_header_list_size", "h2_max_header_block_size", "limit_request_fields")
h2corn.Config = lambda **settings: bounded(**{**settings, **dict.fromkeys(names, 0)})
"""


def test_without_bounds_on_headers_a_bomb_fills_the_memory(tmp_path: Path) -> None:
    with running_server(tmp_path, POLICY, before=WITHOUT_BOUNDS) as (server, stubs):

        def attack() -> None:
            with unharmed(server, stubs), connected(server.port) as peer:
                peer.send(header_bombs(requests=10))
                eventually(lambda: peer.closed.is_set() or len(peer.frames()) > 10)

        with pytest.raises(AssertionError, match="memory in use"):
            attack()


def test_a_client_notices_a_server_that_stops_again_and_again(tmp_path: Path) -> None:
    # A server of its own: what others ask it next would meet connections that it has given up.
    with running_server(tmp_path, POLICY) as (server, stubs):

        def attack() -> None:
            with unharmed(server, stubs):
                for _ in range(10):
                    server.signal(signal.SIGSTOP)
                    time.sleep(0.5)
                    server.signal(signal.SIGCONT)

        # A server that was stopped may also find its facts too old to answer.
        with pytest.raises(AssertionError, match=r"seconds of an answer|wrong answers"):
            attack()

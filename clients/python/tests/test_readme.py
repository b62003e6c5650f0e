"""The README's examples run."""

from typing import Any

import grpc
from starlette.testclient import TestClient

from clients.python.tests.kit.answerer import Answerer, denied
from clients.python.tests.kit.readme import EXAMPLES


def run(example: str, answerer: Answerer) -> dict[str, Any]:
    """The names that the example defines, with `answerer` as its PDP."""
    names: dict[str, Any] = {}
    # Ten seconds, so that a slow machine does not change what the example does.
    call = f'Guard("{answerer.address}", deadline_seconds=10)'
    exec(example.replace('Guard("127.0.0.1:50051")', call), names)
    return names


def test_the_example_of_the_readme_does_what_it_says(answerer: Answerer):
    names = run(EXAMPLES[0], answerer)
    with names["guard"]:
        assert names["edit_course"]("token", "c1") == (200, "edited by user_1")
        answerer.says(denied())
        assert names["edit_course"]("token", "c1") == (403, "Forbidden")
        answerer.fails(grpc.StatusCode.INTERNAL)
        assert names["edit_course"]("token", "c1") == (503, "PdpUnavailable")


def test_the_application_of_the_readme_is_guarded(answerer: Answerer):
    names = run(EXAMPLES[1], answerer)
    with names["guard"]:
        client = TestClient(names["app"])
        assert client.put("/courses/c1").json() == "c1 edited by user_1"
        answerer.says(denied())
        assert client.put("/courses/c1").status_code == 403
        assert client.get("/nothing").status_code == 403

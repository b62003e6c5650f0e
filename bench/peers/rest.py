"""JSON over HTTP/1.1, to fill a peer and to look at its answers."""

import json
import urllib.error
import urllib.request
from typing import Any


def post(url: str, message: object) -> bytes:
    """The body of the answer. Raises OSError (urllib.error.HTTPError) if it is a refusal."""
    request = urllib.request.Request(
        url, json.dumps(message).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        body: bytes = answer.read()
        return body


def post_json(url: str, message: object) -> Any:
    """The same, parsed."""
    return json.loads(post(url, message))

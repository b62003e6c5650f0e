"""curl as a client of the Connect protocol."""

import base64
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.rpc.error_details_pb2 import ErrorInfo

JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """The answer that curl received."""

    status: int
    version: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    def reason(self) -> str:
        """The error's reason, from its details."""
        for detail in self.json["details"]:
            if detail["type"] == "google.rpc.ErrorInfo":
                raw = base64.b64decode(detail["value"] + "==")
                return ErrorInfo.FromString(raw).reason
        return ""


def is_installed() -> bool:
    """Whether there is a curl."""
    return shutil.which("curl") is not None


def curl(url: str, *arguments: str, data: bytes | None = None) -> Answer:
    """One request. `data` is the body, as it is."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", "20", "-o", f"{name}/body"]
        command += ["-D", f"{name}/head", "-w", "%{http_code} %{http_version}"]
        if data is not None:
            (directory / "data").write_bytes(data)
            command += ["--data-binary", f"@{name}/data"]
        ran = subprocess.run(
            [*command, *arguments, url], capture_output=True, check=True, text=True
        )
        status, version = ran.stdout.split()
        head = (directory / "head").read_bytes().decode("latin-1").strip().split("\r\n\r\n")[-1]
        lines = (line.partition(":") for line in head.split("\r\n")[1:])
        body = directory / "body"
        return Answer(
            int(status),
            version,
            {field.lower(): value.strip() for field, _, value in lines},
            body.read_bytes() if body.exists() else b"",
        )


def body_of(fields: dict[str, Any]) -> bytes:
    """As JSON."""
    return json.dumps(fields).encode()

"""The settings of the decision log's trees, for servers and sidecars."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from pdp.settings.addresses import ConfidentialUrl
from pdp.settings.base import Frozen


class CheckpointSignerSettings(Frozen):
    """A key that signs checkpoints: a file, or a command with the public key."""

    key_file: Path | None = None
    """A private key in PEM, as `pdp audit key` creates it."""
    command: tuple[str, ...] = ()
    """A program and its arguments: reads the text from standard input, prints the signature in
    base64."""
    public_key_file: Path | None = None
    """The public key in PEM of the key that the command uses."""

    @model_validator(mode="after")
    def _file_or_command(self) -> Self:
        by_command = bool(self.command) and self.public_key_file is not None
        if (self.key_file is None) != by_command:
            raise ValueError("give key_file, or command and public_key_file")
        return self


class WitnessSettings(Frozen):
    """A third party that cosigns checkpoints (https://c2sp.org/tlog-witness)."""

    url: ConfidentialUrl
    """The submission prefix."""
    key: str
    """Its verifier key, `<name>+<id>+<key>`."""


class AuditTreeSettings(Frozen):
    """A Merkle tree over the decision log, with signed checkpoints."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9./_-]{0,127}$")
    """The name of the keys, and the first part of every log's origin line."""
    signers: tuple[CheckpointSignerSettings, ...] = Field(min_length=1, max_length=8)
    """Each signs every checkpoint: two while keys rotate."""
    checkpoint_seconds: float = Field(60, ge=1, le=86400, allow_inf_nan=False)
    files: tuple[Path, ...] = ()
    """Directories that checkpoints are appended to."""
    urls: tuple[ConfidentialUrl, ...] = ()
    """Addresses that checkpoints are sent to with POST."""
    witnesses: tuple[WitnessSettings, ...] = Field((), max_length=16)
    """Asked for cosignatures."""

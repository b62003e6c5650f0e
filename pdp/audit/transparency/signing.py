"""Keys that sign checkpoints: a file, or a command that talks to a key management service."""

import base64
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pdp.audit.transparency.notes import NoteError, Signer, VerifierKey, check_name

COMMAND_SECONDS_MAX: Final = 10
SIGNATURE_BYTES: Final = 64


def file_signer(name: str, path: Path) -> Signer:
    """Returns the signer of a private key in PEM (PKCS #8).

    Raises:
        OSError: The file cannot be read.
        NoteError: It does not hold an Ed25519 key without a password.
    """
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise NoteError(f"{path} holds no private key that can be read") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise NoteError(f"{path} does not hold an Ed25519 key")
    public = private.public_key().public_bytes_raw()
    return Signer(VerifierKey(check_name(name), public), private.sign)


def command_signer(name: str, command: Sequence[str], public_key_file: Path) -> Signer:
    """Returns a signer that runs a command for each signature.

    The command reads the text to sign from standard input, and prints the signature in base64. It
    runs without a shell.

    Raises:
        OSError: The file of the public key cannot be read.
        NoteError: It does not hold an Ed25519 key.
    """
    try:
        public = serialization.load_pem_public_key(public_key_file.read_bytes())
    except ValueError:
        raise NoteError(f"{public_key_file} holds no public key that can be read") from None
    if not isinstance(public, Ed25519PublicKey):
        raise NoteError(f"{public_key_file} does not hold an Ed25519 key")

    def sign(text: bytes) -> bytes:
        try:
            done = subprocess.run(  # noqa: S603  # the operator's own command
                list(command),
                input=text,
                capture_output=True,
                timeout=COMMAND_SECONDS_MAX,
                check=False,
            )
            signature = base64.b64decode(done.stdout.strip(), validate=True)
        except (OSError, subprocess.SubprocessError, ValueError):
            raise NoteError(f"{command[0]} did not sign") from None
        if done.returncode != 0 or len(signature) != SIGNATURE_BYTES:
            raise NoteError(f"{command[0]} did not sign")
        return signature

    return Signer(VerifierKey(check_name(name), public.public_bytes_raw()), sign)


def new_key_file(name: str, path: Path) -> VerifierKey:
    """Creates a private key that only its owner can read, and returns its public key.

    Raises:
        OSError: The file exists, or cannot be written.
        NoteError: The name is not valid.
    """
    check_name(name)
    private = Ed25519PrivateKey.generate()
    content = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return VerifierKey(name, private.public_key().public_bytes_raw())

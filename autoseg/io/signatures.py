"""Ed25519 signatures (RFC 8032) of a bundle's index, which names the digest of every other file of the bundle.

Keys are PEM files, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them. The library `cryptography` is
an extra and imported where a key is used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.core.errors import AutosegError, ResourceError, UnsafeError, UsageError
from autoseg.io.atomic import explaining, write_bytes
from autoseg.io.values import from_plain, parse_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "signature.json"
# A key file has some 120 bytes, a signature file some 250.
LARGEST_BYTES = 16 * 2**10
# Signed before the index, so that a signature for something else can never pass as one for a bundle.
_CONTEXT = b"autoseg bundle index, format 1\n"


@dataclass(frozen=True)
class Signature:
    """`signature.json`.

    Attributes:
        public_key: 32 bytes (RFC 8032) in base64: who signed.
        signature: 64 bytes in base64.
    """

    algorithm: str
    public_key: str
    signature: str

    @property
    def key_id(self) -> str:
        return key_id(self.public_key)


def key_id(public_key: str) -> str:
    """A short name of a public key to compare by eye: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public_key.encode("ascii", "replace")).hexdigest()[:16]


def make_keys(private: Path, public: Path) -> str:
    """Writes a new pair of keys, the private one readable by its owner only; returns the public key in base64.

    Raises:
        UsageError: one of the files exists, or `cryptography` is not installed.
    """
    serialization, ed25519 = _library()
    for path in (private, public):
        if path.exists():
            raise UsageError(f"{path} exists; a key is never overwritten, as what it signed could not be renewed",
                             hint="name another file")
    key = ed25519.Ed25519PrivateKey.generate()
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with explaining(private):
        private.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
    spoken = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_bytes(public, spoken)
    return _base64_of(key.public_key())


def read_public_key(path: Path) -> str:
    """The public key of a PEM file, in base64.

    Raises:
        UnsafeError: the file cannot be read or holds no Ed25519 public key: who is trusted must not be guessed.
    """
    serialization, ed25519 = _library()
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError("it is too large for a key")
        key = serialization.load_pem_public_key(path.read_bytes())
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise ValueError(f"it holds another kind of key, {type(key).__name__}")
    except (OSError, ValueError, _unsupported()) as error:
        found = "does not exist" if isinstance(error, FileNotFoundError) else f"is no Ed25519 public key in PEM form: {error}"
        raise UnsafeError(f"the key {path} {found}", code="E_KEY",
                          hint="autoseg keygen FILE makes a pair; give the file that ends in .pub") from error
    return _base64_of(key)


def sign(index: bytes, key_file: Path, passphrase: bytes | None = None) -> Signature:
    """The signature of the bytes of `bundle.json` by a private key.

    Raises:
        UsageError: the file holds no Ed25519 private key, or the passphrase is missing or wrong.
    """
    key = _read_private_key(key_file, passphrase)
    return Signature("ed25519", _base64_of(key.public_key()), base64.b64encode(key.sign(_CONTEXT + index)).decode("ascii"))


def parse_signature(text: bytes, source: str) -> Signature:
    """The signature in the bytes of a `signature.json`.

    Raises:
        UnsafeError: it is none.
    """
    try:
        if len(text) > LARGEST_BYTES:
            raise ValueError("it is too large")
        signature = from_plain(parse_json(text.decode("utf-8"), source=source), Signature, source=source)
        if signature.algorithm != "ed25519":
            raise ValueError(f"its algorithm is {signature.algorithm!r}; only ed25519 is known")
    except (AutosegError, ValueError) as error:
        raise UnsafeError(f"{source} is no signature: {error}", code="E_SIGNATURE") from error
    return signature


def require_valid(signature: Signature, index: bytes, source: str) -> None:
    """Raises UnsafeError unless the key that the signature names has signed these bytes of `bundle.json`."""
    from cryptography.exceptions import InvalidSignature

    try:
        key = _library()[1].Ed25519PublicKey.from_public_bytes(base64.b64decode(signature.public_key, validate=True))
        key.verify(base64.b64decode(signature.signature, validate=True), _CONTEXT + index)
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise UnsafeError(f"{source}: the signature does not belong to this bundle; the bundle was changed after it was signed",
                          code="E_SIGNATURE", hint="take the bundle from where it was signed") from error


def is_installed() -> bool:
    """Whether signatures can be made and checked here."""
    try:
        _library()
    except ResourceError:
        return False
    return True


def key_names(public_keys: Sequence[str]) -> str:
    """The short names of keys, for a message."""
    return ", ".join(key_id(key) for key in public_keys) or "none"


def _read_private_key(path: Path, passphrase: bytes | None) -> Ed25519PrivateKey:
    serialization, ed25519 = _library()
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError("it is too large for a key")
        key = serialization.load_pem_private_key(path.read_bytes(), passphrase)
    except TypeError as error:  # an encrypted key without a passphrase, or the reverse
        raise UsageError(f"{path}: {error}", code="E_PASSPHRASE") from error
    except (OSError, ValueError, _unsupported()) as error:
        found = "does not exist" if isinstance(error, FileNotFoundError) else f"is no private key in PEM form: {error}"
        raise UsageError(f"the key {path} {found}", code="E_KEY",
                         hint="autoseg keygen FILE makes one") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path} holds another kind of key, {type(key).__name__}; Ed25519 is needed", code="E_KEY",
                         hint="autoseg keygen FILE makes one")
    return key


def _base64_of(key: Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes_raw()).decode("ascii")


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise ResourceError("signatures need the library 'cryptography', which is not installed", code="E_NO_CRYPTOGRAPHY",
                            hint="pip install 'autoseg[sign]'") from error
    return serialization, ed25519


def _unsupported() -> type[Exception]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return UnsupportedAlgorithm

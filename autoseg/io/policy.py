"""Which bundles may be used: a file `policy.yaml` that an administrator puts into the root folder or into `/etc/autoseg`.

```yaml
require_signature: true
trusted_keys: [radiology.pub]      # files beside this one, or absolute paths
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.errors import AutosegError, UnsafeError
from autoseg.io.signatures import Signature, is_installed, key_names, read_public_key, require_valid
from autoseg.io.specs import read_yaml
from autoseg.io.values import from_plain

POLICY = "policy.yaml"


@dataclass(frozen=True)
class _Written:
    """What the file says."""

    require_signature: bool = False
    trusted_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policy:
    """Who may have made a bundle.

    Attributes:
        source: the file or option that says so, for messages.
        require_signature: a bundle without a signature by one of the trusted keys is refused.
        trusted_keys: public keys in base64.
    """

    source: str
    require_signature: bool
    trusted_keys: tuple[str, ...]


def read_policy(path: Path) -> Policy:
    """The policy in a YAML file; keys are read from the files that it names.

    Raises:
        UnsafeError: it cannot be read or understood, or a key cannot: nothing is allowed by a policy that nobody can read.
    """
    try:
        document = read_yaml(path)
        written = from_plain({} if document is None else document, _Written, source=str(path))
    except AutosegError as error:
        raise UnsafeError(f"the policy cannot be read, so no bundle is used: {error}", code="E_POLICY",
                          hint="correct the file; docs/bundles.md shows one") from error
    if written.require_signature and not written.trusted_keys:
        raise UnsafeError(f"{path} demands signatures and trusts no key, so no bundle can be used", code="E_POLICY",
                          hint="list the public keys under trusted_keys")
    keys = tuple(read_public_key(path.parent / name) for name in written.trusted_keys)
    return Policy(str(path), written.require_signature, keys)


def check_signature(index: bytes, signature: Signature | None, policies: Sequence[Policy], bundle: str) -> str:
    """One line about who signed a bundle, for people; the policies are obeyed, each of them.

    A signature that is there is checked wherever that is possible, policy or not.

    Args:
        index: the bytes of `bundle.json`.
        bundle: folder or file, for messages.
    Raises:
        UnsafeError: the signature is wrong, missing where a policy demands one, or by a key that such a policy does not trust.
        ResourceError: it cannot be checked here and a policy demands it.
    """
    strict = [policy for policy in policies if policy.require_signature]
    if signature is None:
        for policy in strict:
            raise UnsafeError(f"{bundle} is not signed, and {policy.source} demands a signature", code="E_UNSIGNED",
                              hint="autoseg export --sign KEY signs a bundle; its maker has to do that")
        return "not signed"
    if not strict and not is_installed():
        return f"signed by key {signature.key_id}, not checked: pip install 'autoseg[sign]'"
    require_valid(signature, index, bundle)
    for policy in strict:
        if signature.public_key not in policy.trusted_keys:
            raise UnsafeError(f"{bundle} is signed by key {signature.key_id}, which {policy.source} does not trust (trusted: "
                              f"{key_names(policy.trusted_keys)})", code="E_UNTRUSTED_KEY",
                              hint="ask the maker of the bundle for the public key, and compare its name by another way")
    trusted = any(signature.public_key in policy.trusted_keys for policy in policies)
    return f"signed by key {signature.key_id}, {'trusted' if trusted else 'which no policy here knows'}"

"""Signatures, and policies that demand them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys

import pytest
from bundles.hostile import files_of, rewrite

from autoseg.cli import bundles as verbs
from autoseg.cli.app import run
from autoseg.io.bundles import read_bundle
from autoseg.io.signatures import Signature, key_id, read_public_key, require_valid, sign

pytest.importorskip("cryptography", reason="signatures need it: pip install 'autoseg[sign]'")

# RFC 8032, section 7.1, test 1: secret key, public key, and the signature of no bytes.
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with two pairs of keys: the hospital's own, and a stranger's."""
    folder = tmp_path_factory.mktemp("keys")
    assert run(["keygen", str(folder / "own")]) == run(["keygen", str(folder / "stranger")]) == 0
    return folder


@pytest.fixture(scope="module")
def signed(home, keys):
    """The bundle as one file, signed by each of the two."""
    for name in ("own", "stranger"):
        assert run(["export", str(keys / f"{name}.autoseg"), "-b", str(home.bundle), "--sign", str(keys / name), "--root",
                    str(home.root)]) == 0
    return keys


def code_of(capsys, *arguments):
    """Exit code and code of the error of a command."""
    capsys.readouterr()
    code = run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out).get("error", {}).get("code")


def demand(root, keys, *names):
    """A root folder whose policy trusts these keys only."""
    root.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(keys / f"{name}.pub", root)
    (root / "policy.yaml").write_text(f"require_signature: true\ntrusted_keys: [{', '.join(f'{name}.pub' for name in names)}]\n")
    return root


def test_a_key_is_readable_by_its_owner_only_and_never_overwritten(keys):
    assert stat.S_IMODE((keys / "own").stat().st_mode) == 0o600
    before = (keys / "own").read_bytes()
    assert run(["keygen", str(keys / "own")]) == 2
    assert (keys / "own").read_bytes() == before


def test_keys_are_those_of_the_standard(tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(SECRET)
    (tmp_path / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                                     serialization.NoEncryption()))
    (tmp_path / "key.pub").write_bytes(key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    assert base64.b64decode(read_public_key(tmp_path / "key.pub")) == PUBLIC
    made = sign(b"{}", tmp_path / "key")
    assert base64.b64decode(made.public_key) == PUBLIC and made == sign(b"{}", tmp_path / "key")
    key.public_key().verify(base64.b64decode(made.signature), b"autoseg bundle index, format 1\n{}")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_keys_of_openssl_sign_and_are_trusted(home, tmp_path, capsys):
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "key"], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", tmp_path / "key", "-pubout", "-out", tmp_path / "key.pub"], check=True)
    archive = str(tmp_path / "a.autoseg")
    assert run(["export", archive, "-b", str(home.bundle), "--sign", str(tmp_path / "key"), "--root", str(home.root)]) == 0
    assert code_of(capsys, "import", archive, "-o", str(tmp_path / "back"), "--trust", str(tmp_path / "key.pub"), "--root",
                   str(tmp_path)) == (0, None)


def test_a_policy_in_the_root_folder_decides_what_is_imported(home, signed, tmp_path, capsys):
    root = demand(tmp_path / "root", signed, "own")
    before = files_of(root)

    def imported(path):
        return code_of(capsys, "import", str(path), "--root", str(root))

    assert imported(home.archive) == (8, "E_UNSIGNED")
    assert imported(signed / "stranger.autoseg") == (8, "E_UNTRUSTED_KEY")
    assert {name: content for name, content in files_of(root).items() if "log.jsonl" not in name} == before
    assert imported(signed / "own.autoseg") == (0, None)
    assert (root / "imported" / "own" / "bundle.json").is_file()


def test_a_policy_in_the_root_folder_decides_what_predicts(home, signed, tmp_path, capsys):
    root = demand(tmp_path / "root", signed, "own")
    options = ["-i", str(home.folder / "images"), "-o", str(tmp_path / "out"), "--root", str(root)]
    assert code_of(capsys, "predict", "-b", str(home.bundle), *options) == (8, "E_UNSIGNED")
    assert not (tmp_path / "out").exists()
    assert run(["import", str(signed / "own.autoseg"), "--root", str(root)]) == 0
    assert code_of(capsys, "predict", "-b", "own", *options) == (0, None)


def test_the_policy_of_the_machine_holds_whatever_the_root_folder_says(home, signed, tmp_path, capsys, monkeypatch):
    machine = demand(tmp_path / "etc", signed, "own")
    monkeypatch.setattr(verbs, "SYSTEM_POLICY", machine / "policy.yaml")
    loose = tmp_path / "root"
    loose.mkdir()
    (loose / "policy.yaml").write_text("require_signature: false\n")
    assert code_of(capsys, "import", str(home.archive), "--root", str(loose)) == (8, "E_UNSIGNED")
    stranger = demand(tmp_path / "other", signed, "stranger")  # each of the two must be content
    assert code_of(capsys, "import", str(signed / "own.autoseg"), "--root", str(stranger)) == (8, "E_UNTRUSTED_KEY")


def test_an_option_demands_a_signature_without_any_file(home, signed, tmp_path, capsys):
    def imported(path, key):
        return code_of(capsys, "import", str(path), "-o", str(tmp_path / "back"), "--trust", str(signed / key), "--root",
                       str(tmp_path / "root"))

    assert imported(home.archive, "own.pub") == (8, "E_UNSIGNED")
    assert imported(signed / "stranger.autoseg", "own.pub") == (8, "E_UNTRUSTED_KEY")
    assert imported(signed / "own.autoseg", "own") == (8, "E_KEY")  # the private key is not what one trusts
    assert not (tmp_path / "back").exists()
    assert imported(signed / "own.autoseg", "own.pub") == (0, None)


def test_a_signature_does_not_survive_a_change_with_or_without_a_policy(home, signed, tmp_path, capsys):
    assert run(["import", str(signed / "own.autoseg"), "-o", str(tmp_path / "back"), "--root", str(home.root)]) == 0
    rewrite(tmp_path / "back", "model_card.md", b"# safe for patients\n")
    assert code_of(capsys, "info", "-b", str(tmp_path / "back"), "--root", str(tmp_path)) == (8, "E_SIGNATURE")


def test_a_bundle_can_be_signed_after_it_was_imported(home, signed, tmp_path, capsys):
    assert run(["import", str(home.archive), "-o", str(tmp_path / "back"), "--root", str(home.root)]) == 0
    assert code_of(capsys, "import", str(signed / "own.autoseg"), "-o", str(tmp_path / "back"), "--trust",
                   str(signed / "own.pub"), "--root", str(home.root)) == (0, None)
    assert key_id(read_public_key(signed / "own.pub")) in read_bundle(tmp_path / "back").signed


def test_training_again_takes_the_signature_away(home, signed, tmp_path):
    from autoseg.core.provenance import Manifest
    from autoseg.io.bundles import write_bundle
    from autoseg.io.manifests import MANIFEST
    from autoseg.io.values import read_value

    assert run(["import", str(signed / "own.autoseg"), "-o", str(tmp_path / "back"), "--root", str(home.root)]) == 0
    bundle = read_bundle(tmp_path / "back")
    weights = {member.weights: home.bundle / member.weights for member in bundle.members}
    write_bundle(tmp_path / "back", bundle, weights, read_value(home.bundle / MANIFEST, Manifest))
    assert read_bundle(tmp_path / "back").signed == "not signed"


@pytest.mark.parametrize("content", ["require_signature: yes please\n", "require_signatures: true\n", "- 1\n", "{",
                                     "require_signature: true\n", "require_signature: true\nrequire_signature: false\n",
                                     "require_signature: true\ntrusted_keys: [missing.pub]\n",
                                     "require_signature: !!python/object/apply:os.system [true]\n"])
def test_a_policy_that_cannot_be_read_allows_nothing(home, tmp_path, capsys, content):
    (tmp_path / "policy.yaml").write_text(content)
    assert code_of(capsys, "import", str(home.archive), "--root", str(tmp_path))[0] == 8
    assert not (tmp_path / "imported").exists()


def test_a_policy_that_is_a_dangling_link_is_not_passed_over(home, tmp_path, capsys):
    os.symlink(tmp_path / "gone", tmp_path / "policy.yaml")
    assert code_of(capsys, "import", str(home.archive), "--root", str(tmp_path)) == (8, "E_POLICY")


@pytest.mark.parametrize("text", ["", "{}", "[]", "{" * 5000,
                                  json.dumps({"algorithm": "none", "public_key": "", "signature": ""}),
                                  json.dumps({"algorithm": "ed25519", "public_key": "é", "signature": "AA"}),
                                  json.dumps({"algorithm": "ed25519", "public_key": "AAAA", "signature": "AAAA"})])
def test_a_signature_that_is_none_is_refused(bundle, tmp_path, capsys, text):
    (bundle / "signature.json").write_text(text)
    assert code_of(capsys, "info", "-b", str(bundle), "--root", str(tmp_path)) == (8, "E_SIGNATURE")


def test_a_signature_of_other_bytes_is_no_signature_of_a_bundle(tmp_path, keys):
    """The same key may sign other things; what it signs here begins with words that nothing else has."""
    from cryptography.hazmat.primitives import serialization

    from autoseg.core.errors import UnsafeError

    key = serialization.load_pem_private_key((keys / "own").read_bytes(), None)
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    forged = Signature("ed25519", public, base64.b64encode(key.sign(b"{}")).decode())
    with pytest.raises(UnsafeError):
        require_valid(forged, b"{}", "a bundle")
    require_valid(sign(b"{}", keys / "own"), b"{}", "a bundle")


def test_without_the_library_a_signed_bundle_is_used_unless_a_policy_demands_the_check(home, signed, tmp_path):
    assert run(["import", str(signed / "own.autoseg"), "-o", str(tmp_path / "back"), "--root", str(home.root)]) == 0
    script = ("import sys; sys.modules['cryptography.hazmat.primitives'] = None\n"
              "from autoseg.cli.app import run\nsys.exit(run(sys.argv[1:]))\n")

    def info(*more):
        command = ["info", "-b", str(tmp_path / "back"), "--root", str(tmp_path), *more]
        return subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True)

    assert "not checked: pip install 'autoseg[sign]'" in info().stdout
    demand(tmp_path, signed, "own")
    refused = info()
    assert refused.returncode == 6 and "autoseg[sign]" in refused.stderr


def test_a_key_with_a_passphrase_is_asked_for_it_and_says_so_where_nobody_can_be_asked(home, tmp_path, capsys, monkeypatch):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    (tmp_path / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                                     serialization.BestAvailableEncryption(b"secret")))
    command = ["export", str(tmp_path / "a.autoseg"), "-b", str(home.bundle), "--sign", str(tmp_path / "key"), "--root",
               str(home.root)]
    assert code_of(capsys, *command) == (2, "E_PASSPHRASE")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(verbs.typer, "prompt", lambda *words, **options: "secret")
    assert code_of(capsys, *command) == (0, None)

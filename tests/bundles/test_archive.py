"""Bundles as one file: the way out and back, and what is refused with nothing written."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from types import SimpleNamespace

import pytest
from bundles.hostile import files_of, rewrite, zipped

from autoseg.cli.app import run
from autoseg.core.errors import UnsafeError
from autoseg.io import archive as archives
from autoseg.io.archive import PIECE_BYTES, read_archive
from autoseg.io.atomic import sha256_file
from autoseg.stages.exchange import run_export, run_import


def import_code(path, target, capsys, *more):
    """Exit code and error code of `autoseg import`, whose root folder does not exist."""
    capsys.readouterr()
    code = run(["import", str(path), "-o", str(target), "--root", str(target.parent / "none"), "--json", *more])
    document = json.loads(capsys.readouterr().out)
    return code, document.get("error", {}).get("code")


def test_a_bundle_comes_back_byte_for_byte(home, tmp_path, capsys):
    assert import_code(home.archive, tmp_path / "back", capsys) == (0, None)
    assert files_of(tmp_path / "back") == files_of(home.bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["back"]


def test_the_same_bundle_gives_the_same_bytes_whatever_times_and_rights_its_files_have(home, bundle, tmp_path):
    for path in bundle.rglob("*"):
        os.utime(path, (10**9, 10**9))
        path.chmod(0o700 if path.is_dir() else 0o640)
    run_export(bundle, tmp_path / "other.autoseg", key=None)
    assert (tmp_path / "other.autoseg").read_bytes() == home.archive.read_bytes()
    with zipfile.ZipFile(home.archive) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_killed_import_leaves_nothing_under_the_name_and_the_next_one_clears_up(home, tmp_path):
    script = ("import os, signal, sys; from pathlib import Path; from autoseg.io import archive\n"
              "archive._rename = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\n"
              "archive.read_archive(Path(sys.argv[1]), Path(sys.argv[2]), ())\n")
    killed = subprocess.run([sys.executable, "-c", script, str(home.archive), str(tmp_path / "back")])
    assert killed.returncode == -9
    assert [path.name.endswith(".part") for path in tmp_path.iterdir()] == [True]
    read_archive(home.archive, tmp_path / "back", ())
    assert [path.name for path in tmp_path.iterdir()] == ["back"]


def test_an_import_leaves_the_folder_of_a_live_one_alone(home, tmp_path):
    other = tmp_path / ".back.0123abcd.part"
    other.mkdir()
    descriptor = os.open(other, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        read_archive(home.archive, tmp_path / "back", ())
    finally:
        os.close(descriptor)
    assert other.is_dir()


def test_the_same_bundle_once_more_is_no_error_and_another_one_is_never_overwritten(home, bundle, tmp_path, capsys):
    read_archive(home.archive, tmp_path / "back", ())
    assert import_code(home.archive, tmp_path / "back", capsys) == (0, None)
    rewrite(bundle, "model_card.md", b"# another\n")
    run_export(bundle, tmp_path / "another.autoseg", key=None)
    before = files_of(tmp_path / "back")
    assert import_code(tmp_path / "another.autoseg", tmp_path / "back", capsys) == (2, "E_EXISTS")
    assert files_of(tmp_path / "back") == before


def test_import_goes_below_the_root_by_the_name_of_the_file_and_predict_finds_it_there(home, tmp_path, capsys):
    assert run(["import", str(home.archive), "--root", str(tmp_path)]) == 0
    assert f"autoseg predict -b {tmp_path / 'imported' / 'toy'}" in capsys.readouterr().out
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(sorted((home.folder / "images").iterdir())[0], images)
    assert run(["predict", "-b", "toy", "-i", str(images), "-o", str(tmp_path / "out"), "--root", str(tmp_path)]) == 0
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 1


def link(name, target=b"/etc/passwd"):
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry, target


def compressed(name, content):
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry, content


def with_entry(*entries):
    """A sound bundle with more entries."""
    return lambda files: [*files.items(), *entries]


def without(name):
    return lambda files: [(key, content) for key, content in files.items() if key != name]


def changed(name, content):
    return lambda files: [(key, content if key == name else old) for key, old in files.items()]


def renamed(old, new):
    """The file has another name in the archive and in the index, with the right digest."""
    def change(files):
        index = json.loads(files["bundle.json"])
        index["digests"] = {new if key == old else key: digest for key, digest in index["digests"].items()}
        files = files | {"bundle.json": json.dumps(index).encode()}
        return [(new if key == old else key, content) for key, content in files.items()]
    return change


HOSTILE = {
    "zip slip": (with_entry(("../evil.txt", b"x")), "E_PATH_ESCAPE"),
    "zip slip below members": (with_entry(("members/../../evil.txt", b"x")), "E_PATH_ESCAPE"),
    "zip slip that the index lists": (renamed("model_card.md", "../model_card.md"), "E_PATH_ESCAPE"),
    "windows zip slip": (with_entry(("..\\evil.txt", b"x")), "E_PATH_ESCAPE"),
    "absolute path": (with_entry(("/tmp/evil.txt", b"x")), "E_PATH_ESCAPE"),
    "drive": (with_entry(("C:/evil.txt", b"x")), "E_PATH_ESCAPE"),
    "device name": (with_entry(("con.json", b"x")), "E_PATH_ESCAPE"),
    "hidden file": (with_entry((".lock", b"x")), "E_PATH_ESCAPE"),
    "folder": (with_entry(("members/", b"")), "E_PATH_ESCAPE"),
    "deep folder": (with_entry(("members/a/b", b"")), "E_PATH_ESCAPE"),
    "symlink": (with_entry(link("members/link")), "E_PATH_ESCAPE"),
    "symlink in place of the weights": (lambda files: [
        link(name) if name.startswith("members/") else (name, content) for name, content in files.items()], "E_PATH_ESCAPE"),
    "duplicate name": (with_entry(("plan.json", b"{}")), "E_TWINS"),
    "case twin": (with_entry(("PLAN.json", b"{}")), "E_TWINS"),
    "zero bomb": (with_entry(compressed("members/zeros.safetensors", bytes(50 * 2**20))), "E_BOMB"),
    "compressed entry of a sound bundle": (lambda files: [
        compressed(name, content) if name == "spec.yaml" else (name, content) for name, content in files.items()], "E_BOMB"),
    "no manifest": (without("bundle.json"), "E_ARCHIVE"),
    "file that is not in the manifest": (with_entry(("members/extra.pth", b"x")), "E_ARCHIVE"),
    "file that is missing": (without("plan.json"), "E_DIGEST"),
    "wrong digest": (changed("model_card.md", b"# safe for patients\n"), "E_DIGEST"),
    "index that is no JSON": (changed("bundle.json", b"{"), "E_BUNDLE"),
    "index that is too large": (changed("bundle.json", b" " * (PIECE_BYTES + 1)), "E_ARCHIVE"),
    "too many entries": (with_entry(*((f"members/{number}", b"") for number in range(300))), "E_ARCHIVE"),
    "a million entries": (with_entry(*((f"members/{number:0100d}", b"") for number in range(10_000))), "E_ARCHIVE"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_with_exit_8_and_nothing_written(home, tmp_path, capsys, kind):
    change, code = HOSTILE[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile, which is asked to write a name twice
        path = zipped(tmp_path / "evil.autoseg", change(files_of(home.bundle)))
    before = sorted(tmp_path.iterdir())
    assert import_code(path, tmp_path / "deep" / "down" / "back", capsys) == (8, code)
    assert sorted(tmp_path.iterdir()) == before


def test_a_name_that_hides_its_end_behind_a_zero_byte_is_refused(home, tmp_path):
    path = zipped(tmp_path / "evil.autoseg", [*files_of(home.bundle).items(), ("evil.txt?json", b"x")])
    path.write_bytes(path.read_bytes().replace(b"evil.txt?json", b"evil.txt\0json"))
    with pytest.raises(UnsafeError) as error:
        read_archive(path, tmp_path / "back", ())
    assert error.value.code == "E_PATH_ESCAPE"


def test_an_archive_whose_entries_share_their_bytes_is_refused(home, tmp_path):
    """As in Fifield's bomb: every entry of the list points to the same, one, large entry."""
    path = tmp_path / "evil.autoseg"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("members/0.safetensors", bytes(10**6))
        first = archive.infolist()[0]
        for number in range(1, 50):
            twin = zipfile.ZipInfo(f"members/{number}.safetensors")
            for name in ("file_size", "compress_size", "CRC", "header_offset", "external_attr"):
                setattr(twin, name, getattr(first, name))
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
        archive._didModify = True
    with pytest.raises(UnsafeError) as error:
        read_archive(path, tmp_path / "back", ())
    assert error.value.code == "E_BOMB"


def test_a_list_of_entries_that_says_it_takes_gigabytes_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "evil.autoseg"
    size = 64 * 2**20
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0))
    tracemalloc.start()
    with pytest.raises(UnsafeError, match="its list of entries takes"):
        read_archive(path, tmp_path / "back", ())
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -30, -5000])
def test_a_part_of_an_archive_is_refused(home, tmp_path, cut):
    (tmp_path / "half.autoseg").write_bytes(home.archive.read_bytes()[:cut])
    with pytest.raises(UnsafeError):
        read_archive(tmp_path / "half.autoseg", tmp_path / "back", ())
    assert not (tmp_path / "back").exists()


def test_an_archive_that_lies_about_the_size_of_an_entry_is_refused(home, tmp_path):
    content = bytearray(home.archive.read_bytes())
    place = content.rindex(b"PK\1\2", 0, content.rindex(b"model_card.md"))
    length = struct.unpack_from("<L", content, place + 24)[0]
    struct.pack_into("<LL", content, place + 20, length - 7, length - 7)
    (tmp_path / "lie.autoseg").write_bytes(content)
    with pytest.raises(UnsafeError):
        read_archive(tmp_path / "lie.autoseg", tmp_path / "back", ())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lie.autoseg"]


def test_a_checkpoint_with_another_name_is_no_bundle(tmp_path, capsys):
    import torch

    torch.save({"weights": torch.zeros(3)}, tmp_path / "model.pth")
    assert import_code(tmp_path / "model.pth", tmp_path / "back", capsys) == (8, "E_PICKLE")
    shutil.copy(tmp_path / "model.pth", tmp_path / "model.autoseg")
    assert import_code(tmp_path / "model.autoseg", tmp_path / "back", capsys)[0] == 8
    assert not (tmp_path / "back").exists()


def test_too_little_space_is_said_before_anything_is_unpacked(home, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    assert import_code(home.archive, tmp_path / "back", capsys) == (6, "E_RESOURCE")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_while_unpacking_leaves_nothing(home, tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives.os, "fsync", full)
    assert import_code(home.archive, tmp_path / "back", capsys) == (6, "E_RESOURCE")
    assert list(tmp_path.iterdir()) == []


def test_export_wants_its_own_ending_and_a_sound_bundle(home, bundle, tmp_path, capsys):
    root = ["--root", str(home.root)]
    assert run(["export", str(tmp_path / "scan.nii.gz"), "-b", str(bundle), *root]) == 2
    (bundle / "plan.json").write_text("{}")
    assert run(["export", str(tmp_path / "a.autoseg"), "-b", str(bundle), *root]) == 8
    assert not (tmp_path / "a.autoseg").exists() and not (tmp_path / "scan.nii.gz").exists()


@pytest.mark.slow
def test_a_bundle_of_more_than_four_gigabytes_leaves_and_arrives(bundle, tmp_path):
    """Sizes and places beyond 32 bits (zip64): the weights take 4.1 GiB, and documents come after them."""
    if shutil.disk_usage(tmp_path).free < 12 * 2**30:
        pytest.skip("12 GB of disk are needed")
    values = 2**30 + 2**25 + 3
    weights = next((bundle / "members").iterdir())
    header = json.dumps({"w": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    with weights.open("wb") as file:  # zeros that take no disk, with something after 4 GiB
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 4 * values)
        file.seek(-11, os.SEEK_END)
        file.write(b"at the end.")
    index = json.loads((bundle / "bundle.json").read_text())
    name = f"members/{weights.name}"
    index["digests"][name] = index["members"][0]["sha256"] = sha256_file(weights)
    (bundle / "bundle.json").write_text(json.dumps(index))
    exported, imported = tmp_path / "large.autoseg", tmp_path / "imported"
    try:
        run_export(bundle, exported, key=None)
        with zipfile.ZipFile(exported) as archive:
            assert archive.getinfo(name).file_size > 2**32 and archive.getinfo("spec.yaml").header_offset > 2**32
        run_import(exported, imported, [])
        assert (imported / name).stat().st_size == weights.stat().st_size
        with (imported / name).open("rb") as file:
            file.seek(-11, os.SEEK_END)
            assert file.read() == b"at the end."
        rest = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*.*")} - {name}
        assert all((imported / other).read_bytes() == (bundle / other).read_bytes() for other in rest if "lock" not in other)
    finally:  # kept folders of tests would keep them
        exported.unlink(missing_ok=True)
        shutil.rmtree(imported, ignore_errors=True)

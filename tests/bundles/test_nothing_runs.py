"""Opening a model runs no code: evil files in every place of a bundle, and a hook that sees whatever Python is told to do."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bundles.hostile import files_of, rewrite

# What Python reports (https://docs.python.org/3/library/audit_events.html) when code runs, a process starts, or a pickle is read.
RUNS = ("exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen",
        "pickle.find_class", "marshal.loads", "ctypes.dlopen", "import", "socket.connect", "code.__new__")

# Loads the sound bundle once, so that everything which is imported is imported; then the hook is set, and the evil ones follow.
WATCH = """
import json, sys, typing
from pathlib import Path
from autoseg import pipeline
from autoseg.core.errors import AutosegError
from autoseg.stages.exchange import run_import

good, *evil = map(Path, sys.argv[1:])
runs, seen, ends = {runs!r}, [], {{}}

def load(path):
    try:
        if path.is_dir():
            pipeline.load_predictor(path)
        else:
            run_import(path, path.with_name(path.name + ".out"), ())
        return 0
    except AutosegError as error:
        return error.exit_code

assert load(good) == 0
load(evil[0]), load(good.with_suffix(".autoseg"))  # the ways of an error, too

def reads_types():
    frame = sys._getframe()
    while frame and frame.f_code is not typing.get_type_hints.__code__:
        frame = frame.f_back
    return frame is not None  # the annotations of autoseg's own classes, for a message

def hook(event, arguments):
    if event in runs and not (event == "import" and arguments[0] in sys.modules) and not reads_types():
        seen.append([event, repr(arguments)[:200]])

sys.addaudithook(hook)
for path in evil:
    ends[path.name] = load(path)
assert load(good) == 0
caught = list(seen)
exec("1")  # the hook itself works
print(json.dumps({{"ends": ends, "seen": caught, "works": len(seen) > len(caught)}}))
"""


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def evil_contents(marker: Path, folder: Path) -> dict[str, bytes]:
    torch.save({"weight": Evil(marker)}, folder / "evil.pth")
    torch.save({"weight": Evil(marker)}, folder / "old.pth", _use_new_zipfile_serialization=False)
    return {"pickle": pickle.dumps(Evil(marker)), "text_pickle": pickle.dumps(Evil(marker), protocol=0),
            "torch": (folder / "evil.pth").read_bytes(), "old_torch": (folder / "old.pth").read_bytes(),
            "python": f"import os; os.system('touch {marker}')".encode(),
            "yaml": f"!!python/object/apply:os.system ['touch {marker}']".encode(),
            "json": json.dumps({"__reduce__": ["os.system", f"touch {marker}"]}).encode()}


def edited(bundle: Path, name: str, *changes: tuple[tuple[str, ...], object]) -> None:
    """Changes values of a JSON document of a bundle, each by the path of its keys, and its digest."""
    document = json.loads((bundle / name).read_text())
    for path, value in changes:
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    if name == "bundle.json":
        (bundle / name).write_text(json.dumps(document))
    else:
        rewrite(bundle, name, json.dumps(document).encode())


def test_no_file_of_a_bundle_runs_code(home, tmp_path):
    marker = tmp_path / "marker"
    contents, evil = evil_contents(marker, tmp_path), []
    for name in files_of(home.bundle):
        for kind, content in contents.items():
            copy = Path(shutil.copytree(home.bundle, tmp_path / f"{kind}_{name.replace('/', '_')}"))
            (copy / name).write_bytes(content) if name == "bundle.json" else rewrite(copy, name, content)
            evil.append(copy)
    for number, (name, *changes) in enumerate([
            ("plan.json", (("configurations", "3d_fullres", "network", "architecture"), "os.system")),
            ("plan.json", (("task",), "os.system")),
            ("plan.json", (("configurations", "3d_fullres", "loss"), {"_target_": "os.system", "_args_": [f"touch {marker}"]})),
            ("bundle.json", (("decisions", "refinements"), ["os.system"])),
            ("bundle.json", (("members",), [])),
            ("fingerprint.json", (("format",), "os.system"))]):
        copy = Path(shutil.copytree(home.bundle, tmp_path / f"edited_{number}_{name}"))
        edited(copy, name, *changes)
        evil.append(copy)
    task = Path(shutil.copytree(home.bundle, tmp_path / "task_in_spec"))
    rewrite(task, "spec.yaml", (task / "spec.yaml").read_bytes().replace(b"task: segmentation", b"task: antigravity"))
    good = Path(shutil.copytree(home.bundle, tmp_path / "good"))
    shutil.copy(home.archive, tmp_path / "good.autoseg")
    archives = [tmp_path / f"{kind}.autoseg" for kind in contents]
    for path, content in zip(archives, contents.values(), strict=True):
        path.write_bytes(content)
    files = [tmp_path / "evil.pth", tmp_path / "old.pth"]
    paths = [str(path) for path in (good, *evil, task, *archives, *files)]
    watched = subprocess.run([sys.executable, "-c", WATCH.format(runs=RUNS), *paths], capture_output=True, text=True)
    assert watched.returncode == 0, watched.stderr
    found = json.loads(watched.stdout.splitlines()[-1])
    assert found["works"] and found["seen"] == []
    assert not marker.exists()
    harmless = {name for name, code in found["ends"].items() if code == 0}  # text that nothing reads as more than text
    assert harmless == {f"{kind}_{name}" for kind in ("python", "yaml", "json", "text_pickle") for name in ("model_card.md",)
                        } | {f"{kind}_manifest.json" for kind in contents}
    assert {found["ends"][path.name] for path in (*archives, *files)} == {8}


@pytest.mark.parametrize("name", ["members/3d_fullres_fold_0.pth", "members/3d_fullres_fold_0.pkl", "members/model.ckpt"])
def test_weights_of_another_kind_are_refused_by_their_name(bundle, name):
    from autoseg.core.errors import UnsafeError
    from autoseg.io.bundles import read_bundle

    index = json.loads((bundle / "bundle.json").read_text())
    old = index["members"][0]["weights"]
    (bundle / old).rename(bundle / name)
    index["members"][0]["weights"] = name
    index["digests"][name] = index["digests"].pop(old)
    (bundle / "bundle.json").write_text(json.dumps(index))
    with pytest.raises(UnsafeError) as error:
        read_bundle(bundle)
    assert error.value.code == "E_PICKLE"


def test_a_pickle_beside_the_bundle_is_never_opened(bundle, tmp_path):
    (bundle / "members" / "model.pth").write_bytes(pickle.dumps(Evil(tmp_path / "marker")))
    script = ("import sys\nopened = []\n"
              "sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == 'open' else None)\n"
              "from pathlib import Path\nfrom autoseg import pipeline\npipeline.load_predictor(Path(sys.argv[1]))\n"
              "print([name for name in opened if name.endswith('.pth')], any(name.endswith('.safetensors') for name in opened))")
    watched = subprocess.run([sys.executable, "-c", script, str(bundle)], capture_output=True, text=True, check=True)
    assert watched.stdout.strip() == "[] True"


def test_a_bundle_that_is_a_checkpoint_is_refused_for_safety(tmp_path):
    from autoseg.cli.app import run

    torch.save({}, tmp_path / "model.pth")
    assert run(["predict", "-b", str(tmp_path / "model.pth"), "-i", str(tmp_path), "-o", str(tmp_path / "out"), "--root",
                str(tmp_path / "root")]) == 8

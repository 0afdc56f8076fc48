"""nnU-Net after the same minutes on the same fold, scored by autoseg: what stands beside `accuracy.py`.

    python -m benchmarks.peer_accuracy --data FOLDER --spec SunnybrookLV --configuration 2d --minutes 10 --root ROOT

nnU-Net plans and preprocesses the dataset, gets the folds of autoseg (`splits.json` in ROOT), has its steps timed, and
trains as many as fit into the minutes; its own validation then predicts the fold's cases with mirroring. `--iterations`
takes a count that was timed before, while the machine was quiet. Finished runs are in `<work>/peer_accuracy.json`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from autoseg.core.layout import Layout
from autoseg.io.atomic import hash_values, write_json
from autoseg.io.specs import load_spec
from autoseg.io.values import parse_json, read_json
from benchmarks.ledger import REPOSITORY, Ledger, markdown
from benchmarks.measure import begin, describe_machine, measure
from benchmarks.peers.nnunet import NnUNet

TIMED_STEPS = 6


def main() -> None:
    begin()
    options = parse_options()
    ledger = Ledger(options.work / "peer_accuracy.json")
    key = f"{options.data.name}, {options.configuration}, fold {options.fold}, {options.minutes:g} minutes"
    inputs = hash_values(key, options.iterations, read_json(splits_of(options)))
    if not options.table and not ledger.has(key, inputs):
        ledger.add(key, inputs, run(options) | {"machine": describe_machine()})
    print(render(ledger))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder in nnU-Net v2 raw layout, called DatasetNNN_Name")
    parser.add_argument("--spec", required=True, help="name or file of the specification for scoring")
    parser.add_argument("--root", type=Path, required=True, help="autoseg's root, whose folds are taken")
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--iterations", type=int, help="steps, where they were timed before")
    parser.add_argument("--nnunet", type=Path, default=REPOSITORY / "benchmarks/peers/.envs/nnunet")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    return parser.parse_args()


def splits_of(options: argparse.Namespace) -> Path:
    return Layout(options.root, load_spec(options.spec, data_folder=options.data).name).splits


def run(options: argparse.Namespace) -> dict[str, Any]:
    peer = NnUNet(options.nnunet, options.work / "nnunet", 2)
    peer.require()
    dataset, planned = options.data.name, peer.work / "planned"
    peer.link_dataset(options.data, dataset)
    for folder in (planned, peer.work / "results"):
        folder.mkdir(parents=True, exist_ok=True)
    environment = peer.environment(planned) | {"nnUNet_n_proc_DA": "2"}
    log = options.work / f"peer_{dataset}_{options.configuration}.log"
    number = str(int(dataset[7:10]))
    measure([peer.program("nnUNetv2_plan_and_preprocess"), "-d", number, "-c", options.configuration, "-npfp", "2", "-np", "2"],
            log=log, environment=environment)
    folds = read_json(splits_of(options))["folds"]
    write_json(planned / dataset / "splits_final.json", [{"train": fold["train"], "val": fold["validation"]} for fold in folds])
    script = [peer.program("python"), str(Path(__file__).with_name("peers") / "nnunet_train.py")]
    what = [dataset, options.configuration, str(options.fold)]
    iterations = options.iterations
    if iterations is None:
        measure([*script, "time", *what, str(TIMED_STEPS)], log=log, environment=environment)
        iterations = max(1, int(options.minutes * 60 / last_json(log)["step"]))
    measure([*script, "train", *what, str(iterations)], log=log, environment=environment)
    seconds = last_json(log)
    predictions = next((peer.work / "results" / dataset).glob(f"*__{options.configuration}")) / f"fold_{options.fold}/validation"
    labels = link_labels(options, [path.name for path in predictions.glob(f"*{suffix(options.data)}")])
    scores = options.work / f"peer_{dataset}_{options.configuration}_scores.log"
    measure([sys.executable, "-m", "autoseg.cli", "evaluate", "-d", options.spec, "-p", str(predictions), "-l", str(labels),
             "--root", str(options.root), "--json"], log=scores)
    text = scores.read_text()
    result = parse_json(text[text.index("{"):], source=str(scores))
    return {"iterations": iterations, "seconds": seconds, "cases": len(list(labels.iterdir())), "scores": result}


def suffix(data: Path) -> str:
    """How the dataset's files end."""
    return str(read_json(data / "dataset.json")["file_ending"])


def link_labels(options: argparse.Namespace, names: list[str]) -> Path:
    """A folder with links to the reference label maps of these files."""
    folder = options.work / "peer_labels" / f"{options.data.name}_{options.configuration}_{options.fold}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to((options.data / "labelsTr" / name).resolve())
    return folder


def last_json(log: Path) -> dict[str, Any]:
    """The last line of a log that is a JSON object."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"{log} ends without a result; read it")
    return parse_json(lines[-1], source=str(log))


def render(ledger: Ledger) -> str:
    """Iterations, seconds, and every Dice with its interval over cases and over patients."""
    rows = []
    for key, entry in ledger.entries.items():
        result = entry["result"]
        run = [key, f"{result['iterations']:,}", f"{result['seconds']['training']:.0f}", str(result["cases"])]
        for name, of_cases in result["scores"]["summary"].items():
            if name.endswith(".dice"):
                rows.append([*run, name, interval(of_cases), interval(result["scores"]["per_patient"].get(name))])
    return markdown(["nnU-Net 2.8.1", "iterations", "training s", "cases", "score", "per case", "per patient"], rows)


def interval(estimate: dict[str, Any] | None) -> str:
    """Mean and 95 % interval."""
    if estimate is None:
        return ""
    lower, upper = ("-" if bound is None else f"{bound:.3f}" for bound in (estimate["lower"], estimate["upper"]))
    return f"{estimate['mean']:.4f} [{lower}, {upper}]"


if __name__ == "__main__":
    main()

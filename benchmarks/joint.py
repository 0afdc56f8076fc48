"""Two tasks learned by one network against each of them alone, over five folds, after the same minutes of training.

    python -m benchmarks.joint --data FOLDER --minutes 4

Runs `autoseg plan_and_preprocess` and `autoseg train` for every fold of three specifications of one folder and reads what they
wrote; both go on where they were interrupted. Dice is compared image by image, AUC within folds, as folds are different
networks; intervals are bootstraps over patients within folds. Each network alone has the minutes that the joint one has for
both tasks. Finished rows are in `<work>/joint.json`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.core.layout import Layout
from autoseg.core.report import Record, Report
from autoseg.io.atomic import hash_values
from autoseg.io.values import read_json, read_value
from autoseg.tasks import load_task
from autoseg.tasks.joint.score import records_of
from benchmarks.classification import DRAWS, mean_auc, mean_of_known, resampled, scored_columns
from benchmarks.classification import Fold as Answers
from benchmarks.ledger import REPOSITORY, Ledger, markdown, source_digest
from benchmarks.measure import begin, describe_machine, run_autoseg

DENSE, WHOLE = load_task("segmentation"), load_task("classification")


@dataclass(frozen=True)
class Fold:
    """Records of one fold, the same units in the same order everywhere.

    Attributes:
        dice: of the joint network, of the segmentation alone, and of the baseline: (units,).
        answers: the classifications of the same three.
    """

    patients: tuple[str, ...]
    dice: dict[str, np.ndarray]
    answers: Answers


def main() -> None:
    begin()
    options = parse_options()
    ledger = Ledger(options.work / "joint.json")
    key = f"{options.joint}, {options.minutes:g} minutes, {options.configuration}"
    inputs = hash_values(key, options.segmentation, options.classification, source_digest(), str(options.root))
    if not options.table and not ledger.has(key, inputs):
        ledger.add(key, inputs, measure(options) | {"machine": describe_machine()})
    print(render(ledger))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the dataset as downloaded")
    parser.add_argument("--joint", default="SunnybrookGroupLV", help="specification of both tasks")
    parser.add_argument("--segmentation", default="SunnybrookLV", help="specification of the segmentation alone")
    parser.add_argument("--classification", default="SunnybrookGroups", help="specification of the classification alone")
    parser.add_argument("--minutes", type=float, default=4.0, help="time for training steps of a fold")
    parser.add_argument("--configuration", default="2d", help="of the joint task and of the segmentation")
    parser.add_argument("--classifier", default="resnet", help="configuration of the classification")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work", help="folder for results and logs")
    parser.add_argument("--root", type=Path, help="autoseg's root; default: joint in the work folder")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    options = parser.parse_args()
    options.root = (options.root or options.work.resolve() / "joint").resolve()
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Scores of all folds, trained first where they are not.

    Raises:
        SystemExit: a command failed; what it said has been shown.
    """
    plan = f"{options.minutes:g}min"
    wanted = {options.joint: options.configuration, options.segmentation: options.configuration,
              options.classification: options.classifier}
    for dataset, configuration in wanted.items():
        common = ["-d", dataset, "--root", str(options.root)]
        run_autoseg(["plan_and_preprocess", *common, "-i", str(options.data.resolve()), "-c", configuration,
                     "--minutes", f"{options.minutes:g}"])
        run_autoseg(["train", *common, "--plan", plan, "-c", configuration, "-f", "missing"])
    layouts = {dataset: Layout(options.root, dataset) for dataset in wanted}
    runs = layouts[options.joint].run(plan, options.configuration, "0").parent
    names = sorted(path.name.removeprefix("fold_") for path in runs.glob("fold_[0-9]*"))
    folds = [read_fold([layouts[dataset].run(plan, configuration, name) for dataset, configuration in wanted.items()],
                       layouts[options.joint].baseline(name)) for name in names]
    steps = {dataset: read_json(layouts[dataset].plan(plan) / "plan.json")["configurations"][configuration]["optimization"]
             ["iterations"] for dataset, configuration in wanted.items()}
    return compared(folds) | {"iterations": list(steps.values())}


def read_fold(runs: Sequence[Path], baseline: Path) -> Fold:
    """The validation records of a fold: of the joint run, of those alone, and of the joint task's baseline.

    Raises:
        SystemExit: the folds of the three specifications are not the same.
    """
    joint, dense, whole, cheap = (read_value(folder / "summary.json", Report).records for folder in (*runs, baseline))
    return make_fold(joint, dense, whole, cheap)


def make_fold(joint: Sequence[Record], dense: Sequence[Record], whole: Sequence[Record], cheap: Sequence[Record]) -> Fold:
    """The records by model and task, in the order of the joint run; raises as `read_fold`."""
    units = [record.unit for record in joint]

    def in_order(records: Sequence[Record]) -> list[Record]:
        found = {record.unit: record for record in records}
        if set(found) != set(units):
            raise SystemExit(f"a fold has {len(set(found) ^ set(units))} other cases in one of the three specifications; give "
                             "specifications with the same patients and strata")
        return [found[unit] for unit in units]

    labels = {"joint": records_of(DENSE, joint), "alone": in_order(dense), "baseline": records_of(DENSE, in_order(cheap))}
    classes = {"joint": records_of(WHOLE, joint), "alone": in_order(whole), "baseline": records_of(WHOLE, in_order(cheap))}
    dice = {name: np.array([record.scores["mean.dice"] for record in records]) for name, records in labels.items()}
    return Fold(tuple(record.patient for record in joint), dice, Answers(classes))


def compared(folds: Sequence[Fold]) -> dict[str, Any]:
    """Dice and AUC per fold and model, and differences of the joint network to both others with their intervals."""
    columns = scored_columns([fold.answers for fold in folds])
    models = tuple(folds[0].dice)
    dice = {model: [float(np.nanmean(fold.dice[model])) for fold in folds] for model in models}
    aucs = {model: [mean_auc(fold.answers.records[model], columns) for fold in folds] for model in models}
    differences = {model: {"dice": difference(folds, lambda fold, name, counts: weighed(fold.dice[name], counts), model),
                           "auc": difference(folds, lambda fold, name, counts: mean_of_known(
                               np.stack(resampled(fold.answers.records[name], columns, counts))), model)}
                   for model in models[1:]}
    patients = [name for fold in folds for name in fold.patients]
    return {"dice": dice, "auc": aucs, "difference": differences, "columns": list(columns), "units": len(patients),
            "patients": len(set(patients))}


def weighed(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means (draws,) of the values (units,) that are known, each as often as a resample (draws, units) has it."""
    known = ~np.isnan(values)
    return counts[:, known] @ values[known] / counts[:, known].sum(axis=1)


def difference(folds: Sequence[Fold], score, other: str) -> list[float]:
    """Mean over folds of the joint network's score minus another's, with the 95 % interval of a bootstrap over patients.

    Args:
        score: (fold, model, counts (draws, units)) -> (draws,).
    """
    rng = np.random.default_rng(0)
    drawn: list[np.ndarray] = []
    found: list[np.ndarray] = []
    for fold in folds:
        patients = np.unique(fold.patients, return_inverse=True)[1]
        number = int(patients.max()) + 1
        times = rng.multinomial(number, np.full(number, 1 / number), size=DRAWS)[:, patients]
        once = np.ones((1, len(patients)), dtype=np.int64)
        for counts, kept in ((times, drawn), (once, found)):
            kept.append(score(fold, "joint", counts) - score(fold, other, counts))
    limits = np.nanquantile(mean_of_known(np.stack(drawn)), (0.025, 0.975))
    return [float(mean_of_known(np.stack(found))[0]), *(float(value) for value in limits)]


def render(ledger: Ledger) -> str:
    """Two rows per dataset, Dice and AUC: mean and range over folds, and the paired differences."""
    rows = []
    for key, entry in ledger.entries.items():
        result = entry["result"]
        for score, steps in (("dice", result["iterations"][1]), ("auc", result["iterations"][2])):
            cells = [f"{statistics.fmean(values):.4f} ({min(values):.3f} to {max(values):.3f})"
                     for values in result[score].values()]
            changes = ["{:+.4f} [{:+.3f}, {:+.3f}]".format(*result["difference"][name][score])
                       for name in ("alone", "baseline")]
            rows.append([f"{key}: {score}", f"{result['units']:,} of {result['patients']:,}",
                         f"{result['iterations'][0]}, {steps}", *cells, *changes])
    return markdown(["data", "units of patients", "steps a fold, joint and alone", "joint", "alone", "baseline", "joint - alone",
                     "joint - baseline"], rows)


if __name__ == "__main__":
    main()

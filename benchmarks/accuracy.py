"""Dice on the validation cases of one fold after a given time of training, over seeds, beside the baseline.

    python -m benchmarks.accuracy --data FOLDER --minutes 5 20 --seeds 0 1 2 --fold 0

Runs `autoseg fit` for every pair of minutes and seed and reads what it wrote. Finished pairs are in `<work>/accuracy.json`
and are not run again; an interrupted one goes on from its checkpoint. The plan turns minutes into a number of iterations
by timing steps. The first seed's measurement serves the other seeds of the same minutes, so that all train equally long
whatever else the machine does; `--budget-from ROOT` takes the measurement from an earlier root instead.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from autoseg.core.layout import Layout
from autoseg.core.report import Report
from autoseg.io.atomic import hash_values
from autoseg.io.values import parse_json, read_value
from autoseg.training.log import read_metrics
from benchmarks.ledger import REPOSITORY, Ledger, markdown, source_digest
from benchmarks.measure import begin, describe_machine

HEADLINE = "mean.dice"


@dataclass(frozen=True)
class Trial:
    """One training run that is asked for."""

    minutes: float
    seed: int

    @property
    def plan(self) -> str:
        """The name that `autoseg fit` gives the plan of these options."""
        return f"{self.minutes:g}min" + (f"_seed{self.seed}" if self.seed else "")


@dataclass(frozen=True)
class Outcome:
    """What one run of `autoseg fit` reached, and the seconds that its parts took.

    Attributes:
        dice: mean over validation cases; `mean` is the mean of the foreground labels, the others are labels.
        baseline: the same of the cheap model on the same fold.
        cases: validation cases.
        training_seconds: drawing batches and optimisation steps, over all resumed parts.
        startup_seconds: before the first step and between epochs: reading, planning, timing candidates, preprocessing,
            checkpoints; None for a run that was resumed.
        validation_seconds: predicting and scoring the validation cases; None for a run that was resumed.
        rest_seconds: baseline, bundle and report; None for a run that was resumed.
        source: digest of autoseg's source.
    """

    dice: dict[str, float]
    baseline: dict[str, float]
    cases: int
    iterations: int
    training_seconds: float
    startup_seconds: float | None
    validation_seconds: float | None
    rest_seconds: float | None
    source: str
    processor: str
    date: str


def main() -> None:
    begin()
    options = parse_options()
    ledger = Ledger(options.work / "accuracy.json")
    trials = [Trial(minutes, seed) for minutes in options.minutes for seed in options.seeds]
    machine = describe_machine()
    inputs = hash_values(options.dataset, options.fold, options.configuration, str(options.root))
    for trial in [] if options.table else trials:
        if not ledger.has(trial.plan, inputs):
            outcome = run_trial(trial, trials, options, machine)
            ledger.add(trial.plan, inputs, asdict(outcome))
            print(f"{trial.plan}: {outcome.dice['mean']:.4f}", file=sys.stderr, flush=True)
    finished = {trial: Outcome(**(ledger.result(trial.plan) or {})) for trial in trials if ledger.has(trial.plan, inputs)}
    print(render(trials, finished, options))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the dataset as downloaded")
    parser.add_argument("--dataset", default="Hippocampus", help="name of its specification")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 20], help="time for training steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fold", default="0")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work", help="folder for results and logs")
    parser.add_argument("--root", type=Path, help="autoseg's root; default: accuracy in the work folder")
    parser.add_argument("--budget-from", type=Path, metavar="ROOT", help="an earlier root whose budget.json of the same "
                        "minutes (or, failing that, of any minutes) is used")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.root = (options.root or options.work / "accuracy").resolve()
    return options


def run_trial(trial: Trial, trials: Sequence[Trial], options: argparse.Namespace, machine: dict[str, str]) -> Outcome:
    """Runs `autoseg fit` and reads what it wrote.

    Raises:
        SystemExit: it failed; what it said has been shown.
    """
    layout = Layout(options.root, options.dataset)
    give_budget(trial, trials, layout, options.budget_from)
    resumed = layout.run(trial.plan, options.configuration, options.fold).exists()
    command = [sys.executable, "-m", "autoseg.cli", "fit", "-d", options.dataset, "-i", str(options.data.resolve()),
               "--minutes", f"{trial.minutes:g}", "--seed", str(trial.seed), "-f", options.fold,
               "-c", options.configuration, "--root", str(options.root), "--json"]
    started = time.time()
    process = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
    ended = time.time()
    if process.returncode != 0:
        raise SystemExit(f"exit status {process.returncode}: {' '.join(command)}\n{process.stdout}")
    written = Path(parse_json(process.stdout, source="autoseg fit --json")["bundle"])
    if written != layout.bundle(trial.plan):
        raise SystemExit(f"autoseg fit wrote {written}, expected {layout.bundle(trial.plan)}; its names of plans have changed")
    return read_outcome(trial, layout, options, machine, None if resumed else (started, ended))


def give_budget(trial: Trial, trials: Sequence[Trial], layout: Layout, earlier: Path | None) -> None:
    """Puts a budget.json with measured steps where the plan of `trial` looks for it, unless it has one."""
    target = layout.plan(trial.plan) / "budget.json"
    if target.exists():
        return
    same = [other.plan for other in trials if other.minutes == trial.minutes]
    found = [path for plan in same if (path := layout.plan(plan) / "budget.json").exists()]
    if earlier is not None:
        plans = Layout(earlier.resolve(), layout.dataset).plan(trial.plan).parent
        wanted = [plans / name / "budget.json" for name in (f"{trial.minutes:g}min", *same)]
        found = [path for path in (*wanted, *sorted(plans.glob("*/budget.json"))) if path.exists()]
        if not found:
            raise SystemExit(f"--budget-from {earlier}: no budget.json below {plans}")
    if found:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found[0], target)
        print(f"{trial.plan}: steps as timed in {found[0]}", file=sys.stderr)


def read_outcome(trial: Trial, layout: Layout, options: argparse.Namespace, machine: dict[str, str],
                 clock: tuple[float, float] | None) -> Outcome:
    """The outcome of a finished run; `clock`: when the command started and ended, None for a resumed run."""
    run = layout.run(trial.plan, options.configuration, options.fold)
    scores = read_value(run / "summary.json", Report)
    baseline = layout.baseline(options.fold) / "summary.json"
    last = read_metrics(run / "metrics.jsonl")[-1]
    trained, validated = ((run / "training" / "done.json").stat().st_mtime, (run / "summary.json").stat().st_mtime)
    started, ended = clock or (None, None)
    return Outcome(
        dice_of(scores), dice_of(read_value(baseline, Report)) if baseline.exists() else {}, len(scores.records),
        last["iteration"], last["seconds"],
        None if started is None else round(trained - started - last["seconds"], 1),
        None if started is None else round(validated - trained, 1),
        None if ended is None else round(ended - validated, 1),
        source_digest(), machine["processor"], machine["date"])


def dice_of(report: Report) -> dict[str, float]:
    """Mean Dice by label; `mean` first."""
    names = [HEADLINE, *(name for name in report.summary if name.endswith(".dice") and name != HEADLINE)]
    return {name.removesuffix(".dice"): report.summary[name].mean for name in names}


def render(trials: Sequence[Trial], finished: dict[Trial, Outcome], options: argparse.Namespace) -> str:
    """The machine and a table with a line per number of minutes, the baseline last."""
    if not finished:
        return "nothing is measured yet"
    outcomes = list(finished.values())
    labels = list(outcomes[0].dice)
    header = ["minutes", "seeds", "iterations", *(f"Dice {label}" for label in labels),
              "training s", "start-up s", "validation s", "rest s"]
    rows = [line(minutes, [finished[trial] for trial in trials if trial.minutes == minutes and trial in finished], labels)
            for minutes in sorted({trial.minutes for trial in finished})]
    if outcomes[0].baseline:
        rows.append(["baseline", "", "", *(f"{outcomes[0].baseline[label]:.4f}" for label in labels), "", "", "", ""])
    missing = [trial.plan for trial in trials if trial not in finished]
    notes = [f"{options.dataset}, fold {options.fold}, {options.configuration}, {outcomes[0].cases} validation cases; "
             f"mean over seeds (smallest to largest); {', '.join(sorted({f'{o.processor}, {o.date}' for o in outcomes}))}"]
    if missing:
        notes.append(f"not finished: {', '.join(missing)}")
    if len({outcome.source for outcome in outcomes}) > 1:
        notes.append("the runs were made with different versions of autoseg's source")
    return "\n".join([*notes, "", markdown(header, rows)])


def line(minutes: float, outcomes: Sequence[Outcome], labels: Sequence[str]) -> list[str]:
    """The cells of one number of minutes."""
    return [f"{minutes:g}", str(len(outcomes)), " / ".join(sorted({str(outcome.iterations) for outcome in outcomes})),
            *(spread([outcome.dice[label] for outcome in outcomes], 4) for label in labels),
            *(spread([value for outcome in outcomes if (value := getattr(outcome, f"{part}_seconds")) is not None], 1)
              for part in ("training", "startup", "validation", "rest"))]


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, and the smallest to the largest value where there are several; a dash for none."""
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()

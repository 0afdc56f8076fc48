"""Prediction on the CPU with nnU-Net's 32-feature Hippocampus network and its eight mirrorings: our engines beside nnU-Net.

    python -m benchmarks.engine --data FOLDER

The bundle holds the network of `autoseg plan --plan nnunet` with fresh weights, and so does nnU-Net's model: speed does
not depend on weights. Every run is a cold process, folder in, folder out; rows run in turn, round after round. Finished
runs are in `<work>/engine.json` and are not repeated unless autoseg's source, the dataset or the machine changed.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Plan
from autoseg.core.spec import DatasetSpec
from autoseg.core.task import Engine
from autoseg.io.atomic import hash_values
from benchmarks.ledger import REPOSITORY, Ledger, markdown, source_digest
from benchmarks.measure import begin, describe_machine, measure
from benchmarks.peers.nnunet import NnUNet
from benchmarks.speed import AUTOSEG, Row, link_cases, nnunet_predicts, recorded, render, run_row

CONFIGURATION = "3d_fullres"
SEED = 0


def main() -> None:
    begin()
    options = parse_options()
    machine = describe_machine()
    ledger = Ledger(options.work / "engine.json")
    known = hash_values(sorted(set(machine.items()) - {("date", machine["date"])}))
    dataset = hash_values(known, [(path.name, path.stat().st_size) for path in sorted(options.data.glob("*Tr/*"))])
    peer = None if options.no_peer else NnUNet(options.nnunet, options.work / "nnunet", int(machine["cores"].split()[0]))
    rows = make_rows(options, dataset, peer)
    if not options.table:
        if peer is not None:
            peer.require()
        for number in range(options.repeat):
            for row in rows:
                run_row(row, number, ledger, options.work)
        compare(options, ledger, dataset)
    print(render(rows, ledger, machine))
    if peer is not None:
        print(f"\n{render_ratio(rows, ledger)}")
    print(f"\n{render_agreement(ledger)}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Hippocampus in nnU-Net v2 raw layout")
    parser.add_argument("--nnunet", type=Path, default=REPOSITORY / "benchmarks/peers/.envs/nnunet",
                        help="environment made by peers/nnunet.sh")
    parser.add_argument("--no-peer", action="store_true", help="leave nnU-Net out")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks/.work",
                        help="folder for results, logs and all that the programs write")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the table shows medians")
    parser.add_argument("--cases", type=int, default=20, help="cases to predict: the first of fold 0's validation cases")
    parser.add_argument("--engines", nargs="+", choices=("torch", "openvino"), default=("torch", "openvino"))
    parser.add_argument("--bf16", action="store_true", help="each engine in bfloat16 too; needs a processor that multiplies it")
    parser.add_argument("--table", action="store_true", help="show what is there, run nothing")
    options = parser.parse_args()
    options.work = options.work.resolve()
    return options


def make_rows(options: argparse.Namespace, dataset: str, peer: NnUNet | None) -> list[Row]:
    """One row per engine and precision, then nnU-Net with one process to read and one to write."""
    depends_on = hash_values(dataset, options.cases, source_digest())
    source, output, folder = options.work / "cases", options.work / "autoseg_predictions", bundle_folder(options)

    def prepare() -> None:
        link_cases(options, source)
        make_bundle(options)

    rows = []
    for engine in options.engines:
        for precision in ("fp32", "bf16") if options.bf16 else ("fp32",):
            command = [*AUTOSEG, "predict", "-b", str(folder), "-i", str(source), "-o", str(output), "--engine", engine,
                       "--precision", precision, "--tta", "mirror", "--device", "cpu"]
            rows.append(Row("predict", f"autoseg, {engine} {precision}, mirroring", command, depends_on, fresh=(output,),
                            prepare=prepare, passes=8, output=output, count=options.cases))
    return rows if peer is None else [*rows, nnunet_predicts(options, dataset, peer, mirror=True, fitted=True)]


def bundle_folder(options: argparse.Namespace) -> Path:
    """Folder of the bundle with fresh weights, of this source and dataset."""
    return options.work / f"engine_bundle_{source_digest()}"


def make_bundle(options: argparse.Namespace) -> None:
    """Plans by nnU-Net's rules and writes the planned network, untrained, as a bundle; nothing where it is there."""
    folder = bundle_folder(options)
    if (folder / "bundle.json").exists():
        return
    from autoseg.core.progress import silent
    from autoseg.workspace import open_workspace

    root = options.work / "engine_root"
    shutil.rmtree(root, ignore_errors=True)
    measure([*AUTOSEG, "plan", "-d", "Hippocampus", "-i", str(options.data.resolve()), "--plan", "nnunet", "--target", "cpu",
             "--root", str(root)], log=options.work / "logs" / "engine_plan.log", folder=REPOSITORY)
    workspace = open_workspace(root, "Hippocampus", None, silent)
    write_fresh_bundle(folder, workspace.spec, workspace.plan("nnunet"), workspace.fingerprint, CONFIGURATION)


def write_fresh_bundle(folder: Path, spec: DatasetSpec, plan: Plan, fingerprint: Fingerprint, configuration: str) -> None:
    """Writes the network of one configuration, with weights drawn by `SEED`, as a bundle."""
    import torch

    from autoseg.core.bundle import Bundle, Decisions, Member
    from autoseg.core.provenance import Origin
    from autoseg.io.atomic import sha256_file
    from autoseg.io.bundles import write_bundle
    from autoseg.nn.weights import save_weights
    from autoseg.stages.provenance import bundle_manifest
    from autoseg.tasks import load_task

    with TemporaryDirectory() as temporary:
        weights = Path(temporary) / "fresh.safetensors"
        torch.manual_seed(SEED)
        save_weights(weights, load_task(spec.task).build_network(plan.configuration(configuration)))
        member = Member(configuration, "0", "members/fresh.safetensors", sha256_file(weights))
        bundle = Bundle(spec, plan, (member,), Decisions(), fingerprint, "Fresh weights, for measuring speed.\n")
        write_bundle(folder, bundle, {member.weights: weights}, bundle_manifest(plan, fingerprint, (), Origin()))


def compare(options: argparse.Namespace, ledger: Ledger, dataset: str) -> None:
    """Records how far the logits of the engines are apart on the first cases, each in fp32 with all mirrorings."""
    depends_on = hash_values(dataset, options.cases, source_digest())
    if len(options.engines) < 2 or ledger.has("agreement", depends_on):
        return
    link_cases(options, options.work / "cases")
    make_bundle(options)
    paths = sorted((options.work / "cases").glob("*.nii.gz"))[:COMPARED_CASES]
    ledger.add("agreement", depends_on, differences(bundle_folder(options), CONFIGURATION, options.engines, paths))


def differences(folder: Path, name: str, engines: Sequence[Engine], paths: Sequence[Path]) -> dict[str, float]:
    """How far the logits of two engines are apart on images of one channel, with a bundle's first network and all mirrorings."""
    from autoseg.core.case import Case, Unit
    from autoseg.core.task import Context
    from autoseg.inference.engine import in_use
    from autoseg.io.bundles import read_bundle
    from autoseg.nn.weights import load_weights
    from autoseg.stages.prepare import prepare_inputs, read_inputs
    from autoseg.tasks import load_task

    bundle = read_bundle(folder)
    task, configuration = load_task(bundle.spec.task), bundle.plan.configuration(name)
    networks = {}
    for engine in engines:
        network = task.build_network(configuration)
        load_weights(folder / bundle.members[0].weights, network)
        networks[engine] = in_use(network, configuration.inference, "cpu", engine)
    largest, scale, agreed, voxels = 0.0, 0.0, 0, 0
    role = bundle.plan.inputs[0].role
    for path in paths:
        unit = Unit(path.name, (Case(path.name, path.name, {role: (path,)}, {}),), path.name)
        arrays, _ = prepare_inputs(read_inputs(unit, bundle.spec), bundle.plan, configuration)
        first, second = (task.infer([network], arrays, configuration, Context(mirror=True)).whole()
                         for network in networks.values())
        largest, scale = max(largest, float(np.abs(first - second).max())), max(scale, float(np.abs(first).max()))
        agreed, voxels = agreed + int((first.argmax(0) == second.argmax(0)).sum()), voxels + first[0].size
    return {"cases": len(paths), "largest_difference": largest, "largest_logit": scale, "voxels": voxels,
            "different_labels": voxels - agreed}


# Differences do not depend on the case, and every case costs sixteen passes.
COMPARED_CASES = 5


def render_ratio(rows: list[Row], ledger: Ledger) -> str:
    """nnU-Net's seconds over those of each of our rows, round by round, for other load meets both alike."""
    *ours, peer = rows
    lines = []
    for row in ours:
        rounds = list(zip(recorded(row, ledger), recorded(peer, ledger), strict=False))
        if rounds:
            lines.append([row.name, spread([theirs.wall_seconds / mine.wall_seconds for mine, theirs in rounds]),
                          spread([theirs.cpu_seconds / mine.cpu_seconds for mine, theirs in rounds])])
    return markdown([f"{peer.name}, over this", "wall time", "CPU time"], lines)


def spread(values: list[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def render_agreement(ledger: Ledger) -> str:
    found = ledger.result("agreement")
    if found is None:
        return "engines not compared"
    return (f"torch and openvino, fp32, {found['cases']} cases, all mirrorings: largest difference of logits "
            f"{found['largest_difference']:.1e} (largest logit {found['largest_logit']:.2f}), "
            f"{found['different_labels']} of {found['voxels']} voxels with another label")


if __name__ == "__main__":
    main()

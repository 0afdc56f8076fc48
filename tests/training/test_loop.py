from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.core.errors import IncompatibleError, ResourceError
from autoseg.core.plan import Network, Optimization
from autoseg.core.task import Phase
from autoseg.losses.cross_entropy import cross_entropy_loss
from autoseg.nn.build import build_network
from autoseg.training.checkpoint import read_newest_checkpoint, write_checkpoint
from autoseg.training.log import MetricsLog, read_metrics
from autoseg.training.loop import Interrupted, train
from autoseg.training.step import DivergedError, Stepper

OPTIMIZATION = Optimization(
    optimizer="adamw", learning_rate=5e-3, weight_decay=1e-2, iterations=17, iterations_per_epoch=5,
    schedule_steps_per_epoch=False, warmup_iterations=2, ema_decay=0.8, memory_format="channels_last")


def small_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(Network(
        kind="plain_unet", dims=3, in_channels=1, out_channels=2, features=(4, 6), strides=((1, 1, 1), (1, 2, 2)),
        kernel_sizes=((3, 3, 3), (3, 3, 3)), convs_encoder=(1, 1), convs_decoder=(1,), deep_supervision=False))


def bright_voxels(iteration: int) -> dict:
    """A batch of noise whose label is where the noise is bright."""
    image = np.random.default_rng([3, iteration]).normal(size=(2, 1, 3, 4, 6)).astype(np.float32)
    return {"image": torch.from_numpy(image), "label": torch.from_numpy((image[:, 0] > 0.5).astype(np.uint8)),
            "cases": [f"case_{iteration}", "other"]}


PHASES = (Phase("main", lambda network: network.parameters(), lambda network, batch: {
    "total": cross_entropy_loss(network(batch["image"]), batch["label"])}),)


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def undisturbed() -> dict[str, torch.Tensor]:
    network = small_network()
    train(network, PHASES, bright_voxels, OPTIMIZATION)
    return weights(network)


def stop_after(count: int):
    calls = iter(range(count + 1))
    return lambda: next(calls) == count


def test_training_learns_the_toy_and_logs_every_epoch(tmp_path):
    longer = replace(OPTIMIZATION, iterations=102, iterations_per_epoch=25)
    seen = []

    result = train(small_network(), PHASES, bright_voxels, longer, log=MetricsLog(tmp_path / "metrics.jsonl"),
                   progress=lambda done, total, losses: seen.append((done, total)))

    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [(r["epoch"], r["iteration"]) for r in records] == [(1, 25), (2, 50), (3, 75), (4, 100), (5, 102)]
    assert records[-1]["total"] < 0.7 * records[0]["total"]
    assert result.losses == {"total": records[-1]["total"]} and result.iterations == 102 and result.resumed_at == 0
    assert seen == [(i + 1, 102) for i in range(102)]


def test_logged_loss_is_the_mean_over_the_epoch(tmp_path):
    values = []

    train(small_network(), PHASES, bright_voxels, OPTIMIZATION, log=MetricsLog(tmp_path / "metrics.jsonl"),
          progress=lambda done, total, losses: values.append(losses["total"]))

    records = read_metrics(tmp_path / "metrics.jsonl")
    means = [np.mean(values[start:start + 5]) for start in (0, 5, 10, 15)]
    assert [r["total"] for r in records] == pytest.approx(means)


def test_two_runs_are_bit_equal():
    assert same(undisturbed(), undisturbed())


def test_final_weights_are_the_average_of_the_last_steps():
    plain, averaged, recorded = small_network(), small_network(), []
    train(plain, PHASES, bright_voxels, replace(OPTIMIZATION, ema_decay=None),
          progress=lambda *_: recorded.append(plain.encoder[0][0][0].weight.detach().double().clone()))
    expected = recorded[0].clone()
    for step, weight in enumerate(recorded[1:], start=2):
        share = max(0.2, 1 / step)
        expected = (1 - share) * expected + share * weight

    train(averaged, PHASES, bright_voxels, OPTIMIZATION)

    torch.testing.assert_close(averaged.encoder[0][0][0].weight.detach().double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("stop", [0, 5, 8, 16])
def test_stopped_run_writes_a_checkpoint_and_resumes_bit_equal(tmp_path, stop):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    with pytest.raises(Interrupted, match=f"after {stop} of 17") as caught:
        train(small_network(), PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path / "c", log=log,
              should_stop=stop_after(stop))
    resumed = small_network(seed=5)

    result = train(resumed, PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path / "c", log=log)

    assert caught.value.exit_code == 130
    assert result.resumed_at == stop and result.iterations == 17
    assert same(weights(resumed), undisturbed() if stop else weights(resumed))
    assert [r["iteration"] for r in read_metrics(log.path)] == [5, 10, 15, 17]


def test_a_stop_that_took_the_drawing_processes_along_still_writes_a_checkpoint(tmp_path):
    asked = []

    def gone(iteration):
        if iteration == 7:
            asked.append("stop")
            raise ResourceError("a process that prepares batches died")
        return bright_voxels(iteration)

    with pytest.raises(Interrupted, match="after 7 of 17"):
        train(small_network(), PHASES, gone, OPTIMIZATION, checkpoint=tmp_path, should_stop=lambda: bool(asked))
    resumed = small_network(seed=5)
    train(resumed, PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path)

    assert same(weights(resumed), undisturbed())
    with pytest.raises(ResourceError, match="batches died"):
        train(small_network(), PHASES, gone, OPTIMIZATION)


def test_losses_logged_by_a_resumed_run_equal_those_of_an_undisturbed_one(tmp_path):
    logs = [MetricsLog(tmp_path / name) for name in ("whole", "resumed")]
    train(small_network(), PHASES, bright_voxels, OPTIMIZATION, log=logs[0])
    with pytest.raises(Interrupted):
        train(small_network(), PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path / "c", log=logs[1],
              should_stop=stop_after(8))
    train(small_network(1), PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path / "c", log=logs[1])

    whole, resumed = ([{k: v for k, v in r.items() if k != "seconds"} for r in read_metrics(log.path)] for log in logs)
    assert whole == resumed


@pytest.mark.parametrize("moment", ["step", "checkpoint"])
def test_killed_process_resumes_bit_equal(tmp_path, moment):
    child = subprocess.run(
        [sys.executable, __file__, str(tmp_path), moment], timeout=60, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    assert child.returncode == -signal.SIGKILL, child.stderr
    before = [r["iteration"] for r in read_metrics(tmp_path / "metrics.jsonl")]
    resumed = small_network(seed=9)

    result = train(resumed, PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path / "c",
                   log=MetricsLog(tmp_path / "metrics.jsonl"))

    assert result.resumed_at == (10 if moment == "step" else 5)
    assert before == [5, 10]
    assert [r["iteration"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [5, 10, 15, 17]
    assert same(weights(resumed), undisturbed())


def test_damaged_newest_checkpoint_falls_back_to_the_one_before_and_ends_bit_equal(tmp_path):
    with pytest.raises(Interrupted):
        train(small_network(), PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path, should_stop=stop_after(12))
    newest = max(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:-5])
    resumed = small_network(seed=9)

    result = train(resumed, PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path)

    assert result.resumed_at == 10
    assert same(weights(resumed), undisturbed())


def test_finished_run_is_loaded_and_not_trained_again(tmp_path):
    first, second = small_network(), small_network(seed=9)
    done = train(first, PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path)

    def never(iteration):
        raise AssertionError("no batch is needed")

    again = train(second, PHASES, never, OPTIMIZATION, checkpoint=tmp_path)

    assert same(weights(first), weights(second))
    assert (again.resumed_at, again.losses, again.seconds) == (17, done.losses, done.seconds)


def test_checkpoint_of_another_plan_is_refused_naming_the_value(tmp_path):
    train(small_network(), PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path)

    with pytest.raises(IncompatibleError, match="learning_rate was 0.005 and is 0.1"):
        train(small_network(), PHASES, bright_voxels, replace(OPTIMIZATION, learning_rate=0.1), checkpoint=tmp_path)


def with_state(folder, change):
    """Rewrites the newest checkpoint with a changed state, as another version would have written it."""
    found = read_newest_checkpoint(folder)
    change(found.state)
    for path in folder.iterdir():
        path.unlink()
    write_checkpoint(folder, found)


def test_a_checkpoint_of_an_older_version_resumes_bit_equal_and_of_a_newer_one_is_refused(tmp_path):
    def older(state):
        del state["format"]
        for name in ("skipped", "in_a_row", "restores", "blamed", "cause"):
            del state["tally"][name]

    with pytest.raises(Interrupted):
        train(small_network(), PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path, should_stop=stop_after(8))
    with_state(tmp_path, older)
    resumed = small_network(seed=9)
    assert train(resumed, PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path).resumed_at == 8
    assert same(weights(resumed), undisturbed())

    with_state(tmp_path, lambda state: state.update(format=99))
    with pytest.raises(IncompatibleError, match="has format 99") as caught:
        train(small_network(), PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path)
    assert caught.value.exit_code == 5 and "update autoseg" in caught.value.hint


def test_epoch_callback_sees_averaged_weights_and_its_scores_are_logged(tmp_path):
    network, seen = small_network(), []

    def validate(epoch, given):
        given.eval()
        seen.append((epoch, weights(given)))
        return {"dice": epoch / 10}

    train(network, PHASES, bright_voxels, OPTIMIZATION, on_epoch=validate, log=MetricsLog(tmp_path / "metrics.jsonl"))

    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4]
    assert same(seen[-1][1], weights(network)) and same(weights(network), undisturbed())
    assert [r["dice"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [0.1, 0.2, 0.3, 0.4]
    assert network.training


def broken_at(numbers, draw=bright_voxels):
    """Batches of which those with these numbers hold nan in one case."""

    def drawn(number: int) -> dict:
        batch = draw(number)
        if number in numbers:
            batch["image"][0, 0, 1, 2, 3] = float("nan")
        return batch

    return drawn


def test_a_step_with_a_broken_case_is_skipped_counted_and_named_and_the_others_are_as_without_it(tmp_path, caplog):
    by_hand = small_network()
    stepper = Stepper(by_hand, PHASES, OPTIMIZATION, device="cpu")
    for iteration in set(range(17)) - {7}:
        stepper.step(iteration, bright_voxels(iteration))
    stepper.average.swap()
    network, log = small_network(), MetricsLog(tmp_path / "metrics.jsonl")

    result = train(network, PHASES, broken_at({7}), OPTIMIZATION, checkpoint=tmp_path / "c", log=log)

    assert result.skipped == 1 and result.iterations == 17
    assert same(weights(network), weights(by_hand))
    assert [(r["iteration"], r.get("skipped", 0)) for r in read_metrics(log.path)] == [(5, 0), (10, 1), (15, 1), (17, 1)]
    assert "what the batch holds of case_7 is not finite" in caplog.text and "the step is skipped (1 so far)" in caplog.text


@pytest.mark.parametrize("stop", [8, 9, 12])
def test_a_run_that_skipped_a_step_and_was_stopped_ends_bit_equal(tmp_path, stop):
    whole, resumed = small_network(), small_network(seed=9)
    expected = train(whole, PHASES, broken_at({7}), OPTIMIZATION)
    with pytest.raises(Interrupted):
        train(small_network(), PHASES, broken_at({7}), OPTIMIZATION, checkpoint=tmp_path, should_stop=stop_after(stop))

    result = train(resumed, PHASES, broken_at({7}), OPTIMIZATION, checkpoint=tmp_path)

    assert same(weights(resumed), weights(whole)) and result.skipped == expected.skipped == 1


def test_an_epoch_of_broken_batches_goes_back_to_the_checkpoint_and_on_with_others(tmp_path, caplog):
    drawn = []

    def draw(number):
        drawn.append(number)
        return broken_at(range(7, 17))(number)

    network, log = small_network(), MetricsLog(tmp_path / "metrics.jsonl")
    result = train(network, PHASES, draw, OPTIMIZATION, checkpoint=tmp_path / "c", log=log)

    # five in a row are an epoch: 7 to 11; then from the checkpoint at 5 on, with batches that no iteration had before
    assert drawn == [*range(12), *range(5 + 17, 17 + 17)]
    assert (result.iterations, result.skipped, result.resumed_at) == (17, 5, 0)
    assert [r["iteration"] for r in read_metrics(log.path)] == [5, 10, 15, 17]
    assert all(torch.isfinite(tensor).all() for tensor in weights(network).values())
    assert "Training goes back to iteration 5 and on with other batches" in caplog.text


def test_training_that_cannot_go_on_stops_with_cause_and_cases_and_its_last_checkpoint_is_sound(tmp_path):
    message = r"10 steps were skipped.*did not help.*held most often case_10 \(1 of 10\).*total = nan"
    with pytest.raises(DivergedError, match=message) as caught:
        train(small_network(), PHASES, broken_at(range(7, 10**6)), OPTIMIZATION, checkpoint=tmp_path)
    assert caught.value.exit_code == 3 and len(caught.value.cases) == 5 and "other" not in caught.value.cases
    assert [path.name[:8] for path in tmp_path.iterdir()] == ["00000005"]
    resumed = small_network(seed=9)

    result = train(resumed, PHASES, bright_voxels, OPTIMIZATION, checkpoint=tmp_path)  # the images were mended

    assert result.resumed_at == 5 and same(weights(resumed), undisturbed())


def test_a_case_that_breaks_more_than_one_step_in_a_hundred_stops_training_though_others_go_well(tmp_path):
    long = replace(OPTIMIZATION, iterations=200, iterations_per_epoch=50)
    with pytest.raises(DivergedError, match=r"21 steps were skipped because.*case_0 \(1 of 21\)"):
        train(small_network(), PHASES, broken_at(range(0, 200, 3)), long, checkpoint=tmp_path)


def test_weights_that_overflow_are_never_written(tmp_path):
    plain = replace(OPTIMIZATION, optimizer="sgd", learning_rate=1e30, weight_decay=0.0, warmup_iterations=0,
                    gradient_clip_norm=None, momentum=0.0, nesterov=False, ema_decay=None, iterations=10)
    phase = Phase("main", lambda network: network.parameters(),  # finite loss and gradient, but 1e30 * 1e15 is no float32
                  lambda network, batch: {"total": network.weight.sum() * batch["slope"] + 0 * network.bias.sum()})

    with pytest.raises(DivergedError, match="after iteration 10 a weight is not a finite number"):
        train(nn.Linear(1, 1), (phase,), lambda number: {"slope": torch.tensor(1e15 if number % 10 == 9 else 0.0)}, plain,
              checkpoint=tmp_path)

    found = read_newest_checkpoint(tmp_path)
    assert found.iteration == 5 and all(torch.isfinite(t).all() for t in found.tensors.values() if t.is_floating_point())


def die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_child(folder: Path, moment: str) -> None:
    """Train until killed: after step 12, or when the second checkpoint is about to take its name."""
    replace_file, renamed = os.replace, []

    def replace_once(source, target):
        if moment == "checkpoint" and str(target).endswith(".checkpoint"):
            if renamed:
                die()
            renamed.append(target)
        replace_file(source, target)

    os.replace = replace_once
    train(small_network(), PHASES, bright_voxels, OPTIMIZATION, checkpoint=folder / "c",
          log=MetricsLog(folder / "metrics.jsonl"), progress=lambda done, *_: die() if done == 12 else None)


if __name__ == "__main__":
    run_child(Path(sys.argv[1]), sys.argv[2])

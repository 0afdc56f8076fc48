from __future__ import annotations

from autoseg.cli.verbs import plan_request
from autoseg.core.layout import Layout
from benchmarks.accuracy import Trial, give_budget, spread


def write_budget(root, plan, text):
    path = Layout(root, "Hippocampus").plan(plan) / "budget.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def read_budget(root, plan):
    return (Layout(root, "Hippocampus").plan(plan) / "budget.json").read_text()


def test_a_trial_knows_the_name_that_the_command_line_gives_its_plan():
    assert [Trial(5.0, 0).plan, Trial(0.5, 2).plan] == [
        plan_request(None, 5.0, None, 0).name, plan_request(None, 0.5, None, 2).name]


def test_the_first_seed_of_the_same_minutes_lends_its_budget(tmp_path):
    write_budget(tmp_path, "5min", "five")
    write_budget(tmp_path, "20min", "twenty")
    give_budget(Trial(20, 1), [Trial(5, 0), Trial(20, 0), Trial(20, 1)], Layout(tmp_path, "Hippocampus"), None)
    assert read_budget(tmp_path, "20min_seed1") == "twenty"


def test_an_earlier_root_lends_the_budget_of_the_same_minutes(tmp_path):
    write_budget(tmp_path / "earlier", "20min", "twenty")
    write_budget(tmp_path / "earlier", "5min", "five")
    give_budget(Trial(20, 2), [Trial(20, 2)], Layout(tmp_path / "now", "Hippocampus"), tmp_path / "earlier")
    assert read_budget(tmp_path / "now", "20min_seed2") == "twenty"


def test_a_plan_keeps_the_budget_that_it_has(tmp_path):
    write_budget(tmp_path, "5min", "own")
    write_budget(tmp_path, "5min_seed1", "first")
    give_budget(Trial(5, 0), [Trial(5, 0), Trial(5, 1)], Layout(tmp_path, "Hippocampus"), None)
    assert read_budget(tmp_path, "5min") == "own"


def test_spread_is_the_mean_with_smallest_and_largest():
    assert [spread([], 2), spread([0.5], 2), spread([0.5, 0.7], 2)] == ["-", "0.50", "0.60 (0.50 to 0.70)"]

from __future__ import annotations

from autoseg.cli import show
from autoseg.cli.screen import Screen
from autoseg.cli.show import MOST_SHOWN, failures
from autoseg.core.networks import Classifier, Network
from autoseg.core.report import Failure


def test_many_failures_of_one_kind_are_gathered_and_rare_ones_stay(capsys):
    found = [Failure(f"case_{place}", "E_NO_PREDICTION", "has none") for place in range(MOST_SHOWN + 3)]
    found.insert(5, Failure("odd", "E_GRID", "lies elsewhere"))
    failures(Screen("evaluate", False), found)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == MOST_SHOWN + 2
    assert lines[0] == "FAILED  case_0: has none [E_NO_PREDICTION]"
    assert lines[MOST_SHOWN] == "FAILED  and 3 more cases [E_NO_PREDICTION]; --json lists them all"
    assert lines[-1] == "FAILED  odd: lies elsewhere [E_GRID]"
    failures(Screen("evaluate", False), found[:MOST_SHOWN + 2])
    assert "FAILED  and 1 more case [E_NO_PREDICTION]; --json lists them all" in capsys.readouterr().out.splitlines()


def test_a_classifier_is_shown_with_its_kind_and_a_u_net_with_its_features():
    classifier = Classifier("resnet", 2, 1, 3, (8, 16), ((1, 1), (2, 2)), ((3, 3), (3, 3)), (2, 2))
    unet = Network("plain_unet", 2, 1, 3, (4, 8), ((1, 1), (2, 2)), ((3, 3), (3, 3)), (1, 1), (1,), False)
    assert (show._network(classifier), show._network(unet)) == ("resnet 8 16", "4 8")

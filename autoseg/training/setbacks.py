"""Steps whose loss or gradient is not a finite number: how many are skipped, when a run goes back, and when it stops."""

from __future__ import annotations

from collections.abc import Mapping

from autoseg.core.plan import Optimization
from autoseg.training.step import DivergedError

# The loss scaler of fp16 starts at 2**16 and halves with every step that it skips, so 16 in a row may be its search for a
# scale (torch.amp.GradScaler); more are a fault of the data or of the weights.
MOST_IN_A_ROW = 20
# Even where an epoch is shorter: fewer in a row may be chance, with one broken case among a handful.
FEWEST_IN_A_ROW = 5
# Of all steps. A healthy loss scaler skips one in 2,000 (its growth interval); twenty times that is no accident, and what is
# learnt from the rest would lack the cases that are skipped.
LARGEST_SHARE = 0.01
# Once: the weights may have grown so far that every loss overflows. Training goes on from the newest checkpoint with other
# batches than those that led there, as Chowdhery et al. 2022 (PaLM, section 5.1) do after a spike of the loss. If that fails
# too, the reason is not the order of the batches.
MOST_RESTORES = 1
NAMED_CASES = 5


def is_stuck(in_a_row: int, optimization: Optimization) -> bool:
    """Whether too many steps in a row were skipped; a whole epoch is too many, unless it is very short."""
    return in_a_row >= min(MOST_IN_A_ROW, max(FEWEST_IN_A_ROW, optimization.iterations_per_epoch))


def too_many(skipped: int, optimization: Optimization) -> bool:
    """Whether so many steps of a run were skipped that the rest is another training than the planned one."""
    return skipped > max(MOST_IN_A_ROW, LARGEST_SHARE * optimization.iterations)


def batch_number(iteration: int, restores: int, optimization: Optimization) -> int:
    """Which batch an iteration draws: after a return to a checkpoint another one than before."""
    return iteration + restores * optimization.iterations


def given_up(cause: str, *, iteration: int, skipped: int, restores: int, blamed: Mapping[str, int]) -> DivergedError:
    """The error that ends a run: how often, in which cases' batches, what was tried, and the last cause in full.

    Args:
        blamed: skipped batches by the cases that they held.
    """
    often = sorted(blamed, key=lambda name: (-blamed[name], name))[:NAMED_CASES]
    cases = ", ".join(f"{name} ({blamed[name]} of {skipped})" for name in often) or "unknown"
    tried = "; going back to the last checkpoint and on with other batches did not help" if restores else ""
    return DivergedError(
        f"training stopped at iteration {iteration}: {skipped} steps were skipped because a loss, gradient or weight was not a "
        f"finite number{tried}. Skipped batches held most often {cases}. The last one: {cause}", cases=often,
        hint="look at the intensities of these images (autoseg check), correct them or list them under 'exclude'; the same "
        "command goes on from the last checkpoint, which is sound")

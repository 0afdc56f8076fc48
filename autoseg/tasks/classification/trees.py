"""Boosted trees as arrays: taken out of scikit-learn once, evaluated without it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.task import Arrays

LEAF = -1


def tree_arrays(model: Any, row: NDArray) -> Arrays:
    """The nodes of a fitted `GradientBoostingClassifier` or `-Regressor`, all trees one after the other.

    Args:
        row: (1, F), any features: what the model adds to its trees is measured there.
    Returns:
        `left`, `right`, `feature` int32 (nodes,), -1 at leaves; `threshold`, `value` float64 (nodes,), the value multiplied by
        the learning rate; `roots` int32 (rounds, K); `start` float64 (K,), what the trees are added to.
    """
    left, right, feature, threshold, value = [], [], [], [], []
    roots: list[list[int]] = []
    offset = 0
    for estimators in model.estimators_:
        roots.append([])
        for estimator in estimators:
            tree = estimator.tree_
            is_leaf = tree.children_left == LEAF
            left.append(np.where(is_leaf, LEAF, tree.children_left + offset))
            right.append(np.where(is_leaf, LEAF, tree.children_right + offset))
            feature.append(np.where(is_leaf, LEAF, tree.feature))
            threshold.append(tree.threshold)
            value.append(tree.value[:, 0, 0] * model.learning_rate)
            roots[-1].append(offset)
            offset += tree.node_count
    arrays: Arrays = {"left": np.concatenate(left).astype(np.int32), "right": np.concatenate(right).astype(np.int32),
                      "feature": np.concatenate(feature).astype(np.int32), "threshold": np.concatenate(threshold),
                      "value": np.concatenate(value), "roots": np.array(roots, np.int32), "start": np.zeros(len(roots[0]))}
    said = model.decision_function(row) if hasattr(model, "decision_function") else model.predict(row)
    return arrays | {"start": np.asarray(said, np.float64).reshape(-1) - evaluate_trees(arrays, row)[0]}


def evaluate_trees(arrays: Arrays, rows: NDArray) -> NDArray[np.float64]:
    """Sums of the trees (n, K) for features (n, F).

    scikit-learn compares features in 32 bits with thresholds in 64 (sklearn.tree._tree); so does this.
    """
    features = rows.astype(np.float32)
    roots = arrays["roots"]
    nodes = np.broadcast_to(roots.ravel(), (len(rows), roots.size)).copy()
    units = np.arange(len(rows))[:, None]
    while True:
        feature = arrays["feature"][nodes]
        inside = feature != LEAF
        if not inside.any():
            break
        goes_left = features[units, np.maximum(feature, 0)] <= arrays["threshold"][nodes]
        nodes = np.where(inside, np.where(goes_left, arrays["left"][nodes], arrays["right"][nodes]), nodes)
    values = arrays["value"][nodes].reshape(len(rows), *roots.shape)
    return arrays["start"] + values.sum(axis=1)

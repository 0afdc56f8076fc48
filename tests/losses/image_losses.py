"""Losses of whole images written as loops over samples, one number at a time: the second implementation."""

from __future__ import annotations

import math


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def mean(terms):
    return sum(terms) / len(terms) if terms else 0.0


def naive_binary(logits, truths, weights):
    terms = []
    for row, wanted in zip(logits, truths, strict=True):
        for x, y, w in zip(row, wanted, weights, strict=True):
            if not math.isnan(y):
                terms.append(-(w * y * math.log(sigmoid(x)) + (1 - y) * math.log(sigmoid(-x))))
    return mean(terms)


def naive_focal(logits, truths, gamma, alpha):
    terms = []
    for row, wanted in zip(logits, truths, strict=True):
        for x, y in zip(row, wanted, strict=True):
            if not math.isnan(y):
                q, a = (sigmoid(x), alpha) if y == 1 else (sigmoid(-x), 1 - alpha)
                terms.append(-a * (1 - q) ** gamma * math.log(q))
    return mean(terms)


def naive_softmax(logits, classes, weights, smoothing):
    terms = []
    for row, label in zip(logits, classes, strict=True):
        if label < 0:
            continue
        total = sum(math.exp(x) for x in row)
        targets = [smoothing / len(row) + (1 - smoothing) * (k == label) for k in range(len(row))]
        terms.append(-sum(w * t * math.log(math.exp(x) / total) for w, t, x in zip(weights, targets, row, strict=True)))
    return mean(terms)


def naive_hinges(logits, classes, gather, squared):
    """`gather`: max (Crammer and Singer) or sum (Weston and Watkins) over the other classes."""
    terms = []
    for row, label in zip(logits, classes, strict=True):
        if label < 0:
            continue
        others = [max(0.0, 1 + x - row[label]) for k, x in enumerate(row) if k != label]
        terms.append(gather([x**2 for x in others] if squared else others))
    return mean(terms)


def naive_cumulative(logits, classes):
    terms = []
    for row, grade in zip(logits, classes, strict=True):
        if grade < 0:
            continue
        terms.append(sum(-math.log(sigmoid(x) if grade > k else sigmoid(-x)) for k, x in enumerate(row)))
    return mean(terms)


def naive_squared(predicted, truths):
    return mean([(x - y) ** 2 for row, wanted in zip(predicted, truths, strict=True)
                 for x, y in zip(row, wanted, strict=True) if not math.isnan(y)])

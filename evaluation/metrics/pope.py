"""POPE: do answers say that objects are in an image which are not?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from .summary import percent
from .variants import check_variant
from .yes_no import YesNo, YesNoVariant, parse_yes_no


def score_pope(answer: str, label: YesNo, *, variant: YesNoVariant = "official") -> float:
    """Return 1 where the answer says what the label says, else 0; `variant` as in `parse_yes_no`."""
    return float(parse_yes_no(answer, variant=variant) == label)


def summarize_pope(
    predictions: Sequence[YesNo | None], labels: Sequence[YesNo], *, variant: YesNoVariant = "official"
) -> dict[str, float]:
    """Return accuracy, precision, recall, F1 and yes ratio in percent, with yes as the positive class.

    Args:
        predictions: sequence of N "yes", "no" or `None`, from `parse_yes_no`. `None` is wrong, and not a yes.
        labels: sequence of N "yes" or "no".
        variant: name of the code that is followed, as in `parse_yes_no`. With "lmms-eval", recall and F1 leave out the
            questions whose prediction is `None`, so that unreadable answers raise them.

    Returns:
        Percent under "accuracy", "precision", "recall", "f1" and "yes_ratio". A ratio with a zero denominator is 0,
        where the official code stops with an error. The yes ratio is the share of the predictions that are "yes";
        lmms-eval's `pope_yes_ratio` is that of the labels.

    Raises:
        ValueError: the lengths differ, there are no samples, a label is neither "yes" nor "no", or the variant is
            unknown.
    """
    check_variant(variant, get_args(YesNoVariant))
    if len(predictions) != len(labels) or not labels:
        raise ValueError(
            f"POPE needs one prediction per label, but there are {len(predictions)} predictions and {len(labels)} "
            "labels."
        )
    unknown = sorted(set(labels) - {"yes", "no"})
    if unknown:
        raise ValueError(f'A label of POPE is "yes" or "no", not {unknown[0]!r}.')
    pairs = list(zip(predictions, labels, strict=True))
    true_positives = sum(prediction == label == "yes" for prediction, label in pairs)
    positives = sum(prediction == "yes" for prediction in predictions)
    relevant = sum(label == "yes" and (prediction is not None or variant != "lmms-eval") for prediction, label in pairs)
    return {
        "accuracy": percent([float(prediction == label) for prediction, label in pairs]),
        "precision": 100 * true_positives / positives if positives else 0.0,
        "recall": 100 * true_positives / relevant if relevant else 0.0,
        "f1": 100 * 2 * true_positives / (positives + relevant) if positives + relevant else 0.0,
        "yes_ratio": 100 * positives / len(labels),
    }

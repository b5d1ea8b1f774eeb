"""Agreement with lmms-eval on the same answers: with its stored scores, and with itself where it is installed."""

import json
from pathlib import Path

import pytest

from ..parity import cases, differences, score_with_lmms_eval, score_with_lyrics

STORED = Path(__file__).parents[1] / "golden" / "lmms_eval.json"


def test_scores_are_those_that_lmms_eval_gave():
    stored = json.loads(STORED.read_text())
    assert stored["lmms-eval"] == "0.7.3"
    assert differences(stored["rows"], stored["scores"], score_with_lyrics(stored["rows"])) == []


@pytest.mark.lmms_eval
def test_scores_are_those_that_lmms_eval_gives():
    rows = cases(1, 5000)
    assert differences(rows, score_with_lmms_eval(rows), score_with_lyrics(rows)) == []

"""The same answers scored by lmms-eval and by our metrics.

Both functions below return the same structure of numbers. `score_with_lmms_eval` runs where lmms-eval is installed;
what it returned for `cases(0, 60)` is stored in `golden/lmms_eval.json` by `golden/write_golden.py`.
"""

import random

from lyrics.evaluation.metrics.anls import score_anls
from lyrics.evaluation.metrics.exact_match import score_exact_match
from lyrics.evaluation.metrics.mme import COGNITION, PERCEPTION, MmeResult, parse_mme, score_mme, summarize_mme
from lyrics.evaluation.metrics.multiple_choice import score_choice
from lyrics.evaluation.metrics.pope import score_pope, summarize_pope
from lyrics.evaluation.metrics.referring import box_iou, parse_box, summarize_referring
from lyrics.evaluation.metrics.vqa_accuracy import normalize_answer, score_vqa
from lyrics.evaluation.metrics.yes_no import parse_yes_no

PIECES = [
    *("yes", "no", "Yes", "No.", "NO", "y", "n", "not", "maybe", "nope", "none", "None", "zero", "ten", "Two", "the"),
    *("a", "An", "dog", "Dog", "cat", "dont", "don't", "Im", "yall'd've", "ow's'at", "somebody'd", "isnt", "whats"),
    *("red", "1,000", "1,,000", "3.5", "3.", ".5", "10:30", "U.S.A.", "St. John's", "What's", "left/right", "red-car"),
    *("$5", "(ok)", "a,b", "...", "?", "!", ",", ";", "-", "'", "'s", "\n", "\t", " ", "  ", "", "naïve", "東京", "İ"),
    *("A", "B", "C.", "b", "E", "A. red", "B.", "The answer is B.", "The answer is C", "[", "]", "0.1", "0.25", "1"),
    *(
        "[0.1, 0.2, 0.3, 0.4]",
        "[0.5,0.6,0.9,1.0]",
        "star: [0.100, 0.200, 0.500, 0.700]",
        "[1, 2, 3, 4]",
        "[.1,.2,.3,.4]",
    ),
    *(
        "[0.9, 0.8, 0.2, 0.1]",
        "[0.1 0.2 0.3 0.4]",
        "[ 0.1, 0.2,0.3 , 0.4 ]",
        "[-0.1, 0.2, 0.3, 1.4]",
        "[1e-3, 0, 1, 1]",
    ),
    *("green apple", "green aple", "abcd", "abxx", "abc", "xyz", "." * 40),
]


def cases(seed, count):
    """Answers with references of all kinds; `count` random ones beside every piece alone."""
    draw = random.Random(seed)

    def text():
        return draw.choice(["", " "]).join(draw.choices(PIECES, k=draw.randint(1, 4)))

    answers = [*PIECES, *(text() for _ in range(count))]
    return [
        {
            "answer": answer,
            "references": draw.choices([answer, text(), text(), draw.choice(PIECES)], k=10),
            "label": draw.choice(["yes", "no"]),
            "choices": ["red", "blue", "green", "a dog", "none"][: draw.randint(2, 5)],
            "correct": draw.randint(0, 1),
            "box": [0.1, 0.2, draw.choice([0.3, 0.5]), draw.choice([0.4, 0.7])],
        }
        for answer in answers
    ]


def score_with_lmms_eval(rows):
    """What lmms-eval's functions return."""
    import numpy as np
    from lmms_eval.api.metrics import anls, exact_match_hf_evaluate
    from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor
    from lmms_eval.tasks.mme import utils as mme
    from lmms_eval.tasks.ok_vqa.utils import ok_vqa_process_results
    from lmms_eval.tasks.pope import utils as pope
    from lmms_eval.tasks.refcoco import utils_rec as rec
    from lmms_eval.tasks.scienceqa.utils import sqa_process_results
    from lmms_eval.tasks.vqav2.utils import vqav2_process_results

    process = EvalAIAnswerProcessor()
    scores, pope_results, mme_results, boxes = [], [], [], []
    for number, row in enumerate(rows):
        answer, references = row["answer"], row["references"]
        plain = list(references)
        annotators = [{"answer": reference, "answer_id": place} for place, reference in enumerate(references)]
        choice = {"choices": row["choices"], "answer": row["correct"]}
        pope_results.append(pope.pope_process_results({"answer": row["label"], "question_id": number}, [answer]))
        category = (PERCEPTION + COGNITION)[number // 2 % 14]
        document = {"answer": row["label"], "category": category, "question_id": number // 2}
        mme_results.append(mme.mme_process_results(document, [answer]))
        boxes.append(rec.parse_float_sequence_within(answer))
        scores.append(
            {
                "vqav2": vqav2_process_results({"answers": annotators, "question_id": 0}, [answer])["exact_match"],
                "evalai": ok_vqa_process_results({"answers": plain, "question_id": 0}, [answer])["exact_match"],
                "evalai_text": process(answer),
                "gqa": float(
                    exact_match_hf_evaluate(
                        np.array([answer]), np.array([references[0]]), ignore_case=True, ignore_punctuation=True
                    )["exact_match"]
                ),
                "anls": float(anls(references, [answer])["anls"]),
                "pope": pope_results[-1]["pope_accuracy"]["score"],
                "mme": next(iter(mme_results[-1].values()))["score"],
                "mme_text": mme.parse_pred_ans(answer),
                "scienceqa": sqa_process_results({"hint": "", "question": "", **choice}, [answer])["exact_match"],
                "iou": float(rec.compute_iou(row["box"], boxes[-1])),
            }
        )
    pairs = [{"bbox": row["box"], "pred": box} for row, box in zip(rows, boxes, strict=True)]
    of_pope = [result["pope_accuracy"] for result in pope_results]
    whole = len(rows) // 28 * 28  # two questions of each of fourteen subtasks
    summary = {
        "pope_accuracy": pope.pope_aggregate_accuracy(of_pope),
        "pope_precision": pope.pope_aggregate_precision(of_pope),
        "pope_recall": pope.pope_aggregate_recall(of_pope),
        "pope_f1": pope.pope_aggregate_f1_score(of_pope),
        **{
            key: mme.mme_aggregate_results([result[key] for result in mme_results[:whole] if key in result])
            for key in ("mme_perception_score", "mme_cognition_score")
        },
        "rec_iou": rec.refcoco_bbox_rec_iou(pairs),
        "rec_accuracy@0.5": rec.refcoco_bbox_rec_acc05(pairs),
        "rec_accuracy@0.7": rec.refcoco_bbox_rec_acc07(pairs),
    }
    return {"samples": scores, "summary": {name: float(value) for name, value in summary.items()}}


def score_with_lyrics(rows):
    """What our functions return for the variant "lmms-eval"."""
    scores = [
        {
            "vqav2": score_vqa(row["answer"], row["references"], variant="lmms-eval"),
            "evalai": score_vqa(row["answer"], row["references"], variant="evalai"),
            "evalai_text": normalize_answer(row["answer"], variant="evalai"),
            "gqa": score_exact_match(row["answer"], row["references"][:1], variant="lmms-eval"),
            "anls": score_anls(row["answer"], row["references"], variant="lmms-eval"),
            "pope": score_pope(row["answer"], row["label"], variant="lmms-eval"),
            "mme": score_mme(row["answer"], row["label"], variant="lmms-eval"),
            "mme_text": parse_mme(row["answer"], variant="lmms-eval") or "other",
            "scienceqa": score_choice(row["answer"], row["choices"], row["correct"], variant="lmms-eval"),
            "iou": box_iou(parse_box(row["answer"], variant="lmms-eval") or (0, 0, 0, 0), row["box"]),
        }
        for row in rows
    ]
    labels = [row["label"] for row in rows]
    says = [parse_yes_no(row["answer"], variant="lmms-eval") for row in rows]
    pope = summarize_pope(says, labels, variant="lmms-eval")
    whole = len(rows) // 28 * 28
    subtasks = PERCEPTION + COGNITION
    results = [
        MmeResult(subtasks[number // 2 % 14], str(number // 2), score["mme"])
        for number, score in enumerate(scores[:whole])
    ]
    mme, rec = summarize_mme(results), summarize_referring([score["iou"] for score in scores])
    summary = {
        **{f"pope_{name}": pope[name] / 100 for name in ("accuracy", "precision", "recall", "f1")},
        "mme_perception_score": mme["perception"],
        "mme_cognition_score": mme["cognition"],
        "rec_iou": rec["mean_iou"] / 100,
        "rec_accuracy@0.5": rec["accuracy@0.5"] / 100,
        "rec_accuracy@0.7": rec["accuracy@0.7"] / 100,
    }
    return {"samples": scores, "summary": summary}


def differences(rows, expected, actual):
    """Answers on which two results differ, with what each says."""
    found = []
    for row, theirs, ours in zip(rows, expected["samples"], actual["samples"], strict=True):
        found += [(name, row, theirs[name], ours[name]) for name in theirs if not equal(theirs[name], ours[name])]
    theirs, ours = expected["summary"], actual["summary"]
    return found + [(name, theirs[name], ours[name]) for name in theirs if not equal(theirs[name], ours[name])]


def equal(first, second):
    """Whether two texts or numbers are the same up to rounding."""
    return first == second if isinstance(first, str) else abs(first - second) < 1e-9

"""The table of tasks: data, prompts, reading and scoring of answers, files for servers; and wrong words."""

import json
from dataclasses import replace

import pytest

from lyrics.datasets_lyrics.catalog.registry import find_format
from lyrics.evaluation.results import score_responses, summarize
from lyrics.evaluation.samples import Response
from lyrics.evaluation.tasks import TASKS, Unit, parse_units, read_task
from lyrics.evaluation.tasks.table import Source
from lyrics.processing_lyrics import format_box

from ..datasets_lyrics.catalog.data_sets import dump_lines, put, write

DATA = {name: next(iter(task.splits.values())) for name, task in TASKS.items() if name not in ("custom", "llava_bench")}
SCORED = [name for name, task in TASKS.items() if name in DATA and task.metric.name != "CIDEr-D"]


def open_task(name, folder, **changes):
    """The samples of a task in a small data set of its format, whose first split is read."""
    source = DATA[name]
    split = next(iter(find_format(source.data).splits))
    task = replace(TASKS[name], splits={"any": Source(source.data, split, source.tasks)}, **changes)
    return read_task(Unit(task, "any", write(source.data, folder)))


def right_answer(sample):
    if sample.box is not None:
        return f"dog: {format_box(sample.box)}"
    return "ABCDE"[sample.choices.index(sample.answers[0])] if sample.choices else sample.answers[0]


def score(data, answers):
    responses = {number: Response(answer, "stop") for number, answer in enumerate(answers)}
    return summarize(data, score_responses(data, responses), {})


@pytest.mark.parametrize("name", TASKS)
def test_every_split_is_one_of_the_catalog(name):
    for source in TASKS[name].splits.values():
        assert name == "custom" or source.split in find_format(source.data).splits
    assert set(TASKS[name].default) <= set(TASKS[name].splits)


@pytest.mark.parametrize("name", SCORED)
def test_right_and_wrong_answers(name, tmp_path):
    """The answers of the data get everything that the metric gives, an answer that says something else nothing."""
    data = open_task(name, tmp_path)
    right = score(data, [right_answer(sample) for sample in data.samples])
    wrong = score(data, ["[0.9, 0.9, 1.0, 1.0]" if sample.box else "perhaps zebra" for sample in data.samples])
    few = {"vqav2": 50.0, "okvqa": 50.0, "aokvqa_direct": 200 / 3}  # two or three people agree, not ten
    best = {"mme": 400.0} | few  # two subtasks
    assert right["score"] == pytest.approx(best.get(name, 100.0))
    assert wrong["score"] == (100.0 if name == "pope" else 0.0)  # everything but a no is a yes there
    assert right["unparseable"] == right["failed"] == 0
    if name in ("scienceqa", "mme", "pope", "aokvqa"):
        assert wrong["unparseable"] == len(data.samples)
    interval = next(iter(right["values"].values()))["interval"]
    assert interval[0] <= right["score"] <= interval[1]


def test_samples_without_a_picture_and_with_choices(tmp_path):
    data = open_task("scienceqa", tmp_path)
    assert [len(sample.images) for sample in data.samples] == [1, 0]
    first = data.samples[0]
    assert first.prompt.startswith("Look.\nWhich?\nA. one\nB. two\nAnswer with the option's letter")
    assert first.groups == {"context": "picture"}
    assert score(data, ["B", "A"])["groups"]["context"][1]["value"] == 100.0


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.submission and name in DATA])
def test_submissions(name, tmp_path):
    """Each file is of the form of its server: an entry for each sample, under the id of the data set."""
    data = open_task(name, tmp_path)
    metric = data.unit.task.metric
    outcomes = [metric.outcome(sample, Response("A\tb\nc", "stop")) for sample in data.samples]
    files = data.unit.task.submission.write(outcomes)
    if name == "mme":
        lines = [line.split("\t") for content in files.values() for line in content.splitlines()]
        assert [len(line) for line in lines] == [4] * len(data.samples)
        assert set(files) == {"submission/existence.txt", "submission/OCR.txt"}
        return
    (content,) = files.values()
    rows = [json.loads(line) for line in content.splitlines()] if name == "pope" else json.loads(content)
    assert len(rows) == len(data.samples)
    if name in ("vqav2", "docvqa"):
        key = "question_id" if name == "vqav2" else "questionId"
        assert [type(row[key]) for row in rows] == [int] * len(rows)
    if name == "textcaps":
        assert [row["image_id"] for row in rows] == [sample.id for sample in data.samples]
    if name == "coco_caption":
        assert rows[0] == {"image_id": int(data.samples[0].id), "caption": "A b c"}


def test_a_split_without_public_answers_has_a_submission_and_no_score(tmp_path):
    root = write("vqav2", tmp_path)
    put(root, "test2015/COCO_test2015_000000000007.jpg")
    question = {"question_id": 5, "image_id": 7, "question": "What?"}
    (root / "v2_OpenEnded_mscoco_test-dev2015_questions.json").write_text(json.dumps({"questions": [question]}))
    (unit,) = parse_units([f"vqav2/testdev:{root}"])
    data = read_task(unit)
    results = score(data, ["dog"])
    assert (results["score"], results["samples"], results["scored"]) == (None, 1, 0)


def test_a_draw_is_always_the_same_and_keeps_pictures_whole(tmp_path):
    (unit,) = parse_units([f"mme:{write('mme', tmp_path)}"])
    for limit in (1, 2):
        data = read_task(unit, limit)
        pictures = [sample.images for sample in data.samples]
        existence, other = [("existence/1.jpg",)] * 2, [("OCR/images/2.jpg",)]
        assert pictures in (existence, other, existence + other)
        assert [sample.id for sample in read_task(unit, limit).samples] == [sample.id for sample in data.samples]
        assert len(data.samples) == 3 or "a draw of" in data.notes[-1]


# ---------------------------------------------------------------- questions of one's own

ROWS = {
    "exact_match": {"question": "What?", "answer": "A dog."},
    "vqa_accuracy": {"question": "What?", "answers": ["dog"] * 10},
    "yes_no": {"question": "Is it?", "answer": "yes"},
    "anls": {"question": "What?", "answer": "dog"},
    "multiple_choice": {"question": "What?", "answer": "dog", "choices": ["cat", "dog"]},
    "iou": {"question": "the dog", "box": [4, 3, 24, 18], "box_units": "pixel"},
}


def custom(folder, *rows):
    put(folder, "a.jpg")
    dump_lines(folder / "rows.jsonl", [{"image": "a.jpg", **row} for row in rows])
    return f"custom:{folder / 'rows.jsonl'}"


@pytest.mark.parametrize("metric", ROWS)
def test_custom_rows_with_every_metric(metric, tmp_path):
    (unit,) = parse_units([custom(tmp_path, ROWS[metric])], metric=metric)
    data = read_task(unit)
    assert score(data, [right_answer(data.samples[0])])["score"] == 100.0
    assert score(data, ["no idea"])["score"] == 0.0


def test_custom_rows_that_cannot_be_used_are_counted(tmp_path):
    good = {"question": "What?", "answer": "A dog.", "id": "x", "groups": {"kind": "easy"}}
    bad = [{"question": "", "answer": "x"}, {"answer": "x"}, {**good, "image": "../a.jpg"}, {**good, "answer": 5}]
    bad += [
        {"question": "?", "box": [4, 3, 24, 18]},
        {"question": "?", "box": [0.5, 0.5, 0.5, 0.5]},
        {**good, "groups": 3},
    ]
    bad += [{**good, "choices": ["a", "b"]}, {**good, "image": ["a.jpg", 7]}, {**good, "image": "gone.jpg"}]
    (unit,) = parse_units([custom(tmp_path, good, *bad)])
    data = read_task(unit)
    assert [sample.id for sample in data.samples] == ["x"]
    assert sum(data.omitted.values()) == len(bad)
    assert data.samples[0].groups == {"kind": "easy"}
    assert str(tmp_path) not in " ".join(data.notes)


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["vqa2"], {}, "There is no task 'vqa2'. Did you mean vqav2 or"),
        (["zzz"], {}, "Known are coco_caption, flickr30k"),
        (["vqav2/dev"], {}, "vqav2 has no split 'dev'; it has val, testdev, test"),
        (["vqav2"], {}, r"Give --data ROOT \(ROOT/vqav2\), or vqav2:FOLDER"),
        (["pope:x", "pope/random:x"], {}, "pope/random is given twice"),
        (["pope:x"], {"prompts": ["Say yes."]}, "has no {question}"),
        (["pope:x"], {"prompts": ["gqa={question}"]}, "There is a prompt for gqa, which is not evaluated"),
        (["pope:x"], {"prompts": ["{question}", "{question}!"]}, "two prompts for all tasks"),
        (["custom:x"], {"metric": "bleu"}, "There is no metric 'bleu'; known are exact_match"),
    ],
)
def test_wrong_words(words, options, message):
    with pytest.raises(ValueError, match=message):
        parse_units(words, **options)


def test_missing_data_say_what_to_download_and_where_to_put_it(tmp_path):
    for root in (tmp_path, tmp_path / "none"):
        (unit,) = parse_units([f"vqav2:{root}"])
        with pytest.raises(FileNotFoundError, match=r"visualqa.org.*train2014/COCO_train2014.*lyrics data list"):
            read_task(unit)
    (unit,) = parse_units([f"custom:{tmp_path / 'none.jsonl'}"])
    with pytest.raises(FileNotFoundError, match="custom:FILE"):
        read_task(unit)


@pytest.mark.parametrize(
    ("rows", "metric", "message"),
    [
        ([ROWS["iou"], ROWS["anls"]], None, "mixes rows of several kinds"),
        ([ROWS["anls"]], "iou", "has rows with answers, and referring accuracy needs boxes"),
        ([ROWS["anls"]], "vqa_accuracy", "needs the answers of several people"),
        ([ROWS["anls"]], "yes_no", "and not yes or no"),
    ],
)
def test_rows_that_do_not_fit_the_metric(rows, metric, message, tmp_path):
    (unit,) = parse_units([custom(tmp_path, *rows)], metric=metric)
    with pytest.raises(ValueError, match=message):
        read_task(unit)

"""The shipped micro model answers questions, by every interface."""

import json

import numpy as np
import pytest
import torch
from transformers import pipeline

from lyrics.assets import MICRO_CHECKPOINT, SCENE_PICTURE
from lyrics.modeling_lyrics import LyricsForConditionalGeneration, attribute_answer
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.recipes.micro.evaluate import answer_cases
from lyrics.recipes.micro.world.cases import accuracies, draw_cases
from lyrics.recipes.micro.world.second import draw_second_scene
from lyrics.trainers.rewards import box_iou
from lyrics_cli.main import main

ABOUT_THE_SCENE = [
    ("What color is the ring?", "purple"),
    ("What shape is the cyan object?", "star"),
    ("Which character is on the red star?", "C"),
    ("Is there a red star?", "yes"),
    ("Is there a red circle?", "no"),
]
# of the second world, lower than what is measured with more questions
LEAST = {"existence": 90, "count": 72, "color": 88, "shape": 88, "referring": 88}


@pytest.fixture(scope="module")
def model():
    return LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT)


@pytest.fixture(scope="module")
def processor():
    return LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)


@pytest.fixture(scope="module")
def cases():
    return draw_cases(8, draw_second_scene, tuple(LEAST))


@pytest.fixture(scope="module")
def answers(model, processor, cases):
    return [outcome.answer for outcome in answer_cases(model, processor, cases)]


def user(text, image=None):
    picture = [] if image is None else [{"type": "image", "path": str(image)}]
    return {"role": "user", "content": [*picture, {"type": "text", "text": text}]}


def assistant(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def answer(model, processor, conversation):
    inputs = processor.apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.inference_mode():
        generated = model.generate(**inputs, max_new_tokens=40, do_sample=False)
    return processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize(("question", "expected"), ABOUT_THE_SCENE)
def test_answers_about_the_shipped_scene_are_correct(model, processor, question, expected):
    assert answer(model, processor, [user(question, SCENE_PICTURE)]) == expected


def test_an_object_of_the_shipped_scene_is_grounded(model, processor):
    said = answer(model, processor, [user("Where is the red star?", SCENE_PICTURE)])
    found = processor.post_process_grounding(said)[0]
    assert found["labels"] == ["red star"]
    assert box_iou(found["boxes"][0].tolist(), (0.465, 0.398, 0.676, 0.615)) > 0.7


def prepare_question(processor, image, question, objects):
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"visual_objects": [objects]},
    )


def test_accuracy_in_a_world_that_training_does_not_show(model, processor):
    measured = accuracies(answer_cases(model, processor, draw_cases(40, draw_second_scene, tuple(LEAST))))
    assert {kind: measured[kind] for kind in LEAST if measured[kind] < LEAST[kind]} == {}


def test_a_batch_is_answered_like_single_questions(model, processor, cases, answers):
    alone = [outcome.answer for outcome in answer_cases(model, processor, cases, batch_size=1)]
    assert alone == answers


def test_generation_uses_the_cache(model, processor):
    """Trainers turn the cache off in the configuration, which must not be saved."""
    inputs = prepare_question(
        processor, str(SCENE_PICTURE), ABOUT_THE_SCENE[0][0], processor.refine([SCENE_PICTURE])[0]
    )
    generated = model.generate(**inputs, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    assert generated.cache.get_seq_length() == generated.sequences.shape[1] - 1


def test_later_turns_are_answered_correctly(model, processor):
    """Later questions are about the same image."""
    conversation = []
    for question, expected in ABOUT_THE_SCENE:
        conversation.append(user(question, None if conversation else SCENE_PICTURE))
        assert answer(model, processor, conversation) == expected
        conversation.append(assistant(expected))


def test_a_pipeline_answers(model, processor):
    question, expected = ABOUT_THE_SCENE[0]
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    chat = ask(text=[user(question, SCENE_PICTURE)], max_new_tokens=8, do_sample=False)[0]["generated_text"]
    assert chat[-1]["content"].strip() == expected


def test_a_reloaded_model_gives_the_same_answers(model, processor, cases, answers, tmp_path):
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    again = LyricsForConditionalGeneration.from_pretrained(tmp_path), LyricsProcessor.from_pretrained(tmp_path)
    assert [outcome.answer for outcome in answer_cases(*again, cases)] == answers


def test_most_answers_are_the_same_in_bfloat16(cases, answers):
    half = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT, dtype=torch.bfloat16)
    found = answer_cases(half, LyricsProcessor.from_pretrained(MICRO_CHECKPOINT).to(dtype=torch.bfloat16), cases)
    assert np.mean([one.answer == other for one, other in zip(found, answers, strict=True)]) > 0.75


def test_an_answer_attends_to_the_object_in_question(model, processor):
    """Often it is the object that the answer attends to most, of about seven."""
    hits = []
    for case in draw_cases(24, draw_second_scene, ("color", "referring")):
        objects = processor.refine([case.scene.image])[0]
        inputs = prepare_question(processor, case.scene.image, case.question.text, objects)
        with torch.inference_mode():
            generated = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        weights = attribute_answer(model, inputs, generated).region_weights()[0]
        named = [thing for thing in case.scene.objects if thing.shape in case.question.text]
        asked = [thing for thing in named if thing.color in case.question.text] or named
        overlaps = [max(box_iou(box, thing.box) for thing in asked) for box in objects.boxes.tolist()]
        hits.append(overlaps[int(weights.argmax())] > 0.5)
    assert np.mean(hits) > 0.3


def test_the_command_uses_the_shipped_model_by_default(capsys, tmp_path):
    question, expected = ABOUT_THE_SCENE[0]
    why = tmp_path / "why.png"
    assert main(["ask", str(SCENE_PICTURE), question, "--json", "--why", str(why)]) == 0
    printed = capsys.readouterr()
    assert "micro model" in printed.err
    assert json.loads(printed.out)["answer"] == expected
    assert why.is_file()

"""One model, one processor and one store serve many threads: their results are those of a single thread."""

import io
import random
import sys
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TextIteratorStreamer

from lyrics import (
    MICRO_CHECKPOINT,
    MICRO_SEARCH,
    SCENE_PICTURE,
    LyricsForConditionalGeneration,
    LyricsProcessor,
    VisualObjects,
)
from lyrics.assets import EXAMPLE_PICTURE
from lyrics.modeling_lyrics import attribute_answer

from .threads import run_at_once

THREADS = 8
QUESTIONS = ["What color is the star?", "How many objects are there? " * 3, "Where is the ring?"]
GREEDY = {"max_new_tokens": 8, "do_sample": False}


@pytest.fixture(autouse=True)
def _frequent_switches():
    """Let threads take turns often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def load():
    """Return a processor and a model that nobody has used; eager attention returns its weights."""
    model = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT, attn_implementation="eager")
    return LyricsProcessor.from_pretrained(MICRO_CHECKPOINT), model


def ask(processor, *numbers, **options):
    """Return the inputs of one question about the scene, or of several."""
    chats = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": str(SCENE_PICTURE)},
                    {"type": "text", "text": QUESTIONS[number]},
                ],
            }
        ]
        for number in numbers
    ]
    return processor.apply_chat_template(
        chats if len(chats) > 1 else chats[0],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )


def refine(processor, _, **options):
    """Return the objects of two images."""
    pictures = [Image.open(SCENE_PICTURE), Image.open(EXAMPLE_PICTURE)]
    return [vars(found) for found in processor.refine(pictures, progress=False, **options)]


def prepare(processor, _, *numbers, **options):
    """Return the inputs of questions."""
    return dict(ask(processor, *numbers, **options))


def truncate(processor, _):
    """Return the tokens of texts, one of which is cut."""
    return dict(processor(text=["word " * 60, "x"], truncation=True, max_length=20, padding=True, return_tensors="pt"))


def generate(processor, model, *numbers, **options):
    """Return answers, and what was recorded on the way."""
    inputs = ask(processor, *numbers, **({"padding": True} if len(numbers) > 1 else {}))
    output = model.generate(**inputs, **GREEDY, return_dict_in_generate=True, **options)
    recorded = [output[name] for name in ("attentions", "hidden_states") if output.get(name) is not None]
    return processor.batch_decode(output.sequences, skip_special_tokens=True), output.sequences, recorded


def stream(processor, model, number):
    """Return the pieces of an answer that is generated in a thread of its own."""
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, timeout=600)
    inputs = ask(processor, number)
    thread = Thread(target=model.generate, kwargs={**inputs, **GREEDY, "streamer": streamer}, daemon=True)
    thread.start()
    pieces = list(streamer)
    thread.join()
    return pieces


def explain(processor, model, number):
    """Return an answer and its explanation."""
    inputs = ask(processor, number)
    answer = model.generate(**inputs, **GREEDY)
    return answer, vars(attribute_answer(model, inputs, answer))


TASKS = [  # function, numbers of questions, options
    (refine, (), {}),
    (refine, (), {"tags": ["red star", "ring"], "return_masks": True}),
    (refine, (), {"tags": [["star"], ["cup", "ball"]], "batch_size": 1}),
    (prepare, (0, 1), {"padding": True}),
    (prepare, (1, 2), {"padding": "max_length", "max_length": 150, "padding_side": "right"}),
    (prepare, (2, 1), {"truncation": True, "max_length": 60, "padding": True}),
    (truncate, (), {}),
    (generate, (0, 1), {"output_attentions": True, "output_hidden_states": True}),
    (generate, (2,), {"num_beams": 2, "no_repeat_ngram_size": 2}),
    (stream, (1,), {}),
    (explain, (0,), {}),
    (explain, (2,), {}),
]


def assert_equal(found, expected):
    """Nested results are equal, floats up to rounding, which large terms of a sum leave to a small result."""
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor | np.ndarray):
        one, other = torch.as_tensor(found), torch.as_tensor(expected)
        largest = other.double().abs().max().item() if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1.0, largest))
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_equal(found[name], expected[name])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert found == expected


@pytest.fixture(scope="module")
def expected():
    """The results of a single thread."""
    processor, model = load()
    return [task(processor, model, *numbers, **options) for task, numbers, options in TASKS]


def test_mixed_work_of_many_threads(expected):
    """From the first use on, each thread does half of the work in an order of its own."""
    processor, model = load()

    def work(thread):
        order = random.Random(thread).sample(range(len(TASKS)), len(TASKS) // 2)
        for index in order:
            task, numbers, options = TASKS[index]
            assert_equal(task(processor, model, *numbers, **options), expected[index])

    run_at_once(work, THREADS)


def test_an_explanation_beside_the_first_recording_of_outputs():
    """Transformers adds its hooks to a model on first use; a copy that got some of them would record twice."""
    processor, model = load()
    inputs = ask(processor, 0)
    answer = model.generate(**inputs, **GREEDY)
    weights = attribute_answer(model, inputs, answer).token_weights
    states = model(**inputs, output_hidden_states=True).hidden_states

    def work(thread, fresh):
        if thread % 2:
            assert_equal(fresh(**inputs, output_hidden_states=True).hidden_states, states)
        else:
            assert_equal(attribute_answer(fresh, inputs, answer).token_weights, weights)

    for _ in range(4):
        fresh = load()[1]
        run_at_once(lambda thread, fresh=fresh: work(thread, fresh), THREADS)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF"])
def test_a_picture_whose_file_was_not_read_yet(image_format):
    """Pillow reads the pixels of a file on first use, which two threads must not do at once."""
    file = io.BytesIO()
    Image.open(SCENE_PICTURE).resize((900, 700)).save(file, image_format)
    processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT, refiner=False)
    whole = np.asarray(processor.load_pictures(Image.open(io.BytesIO(file.getvalue())))[0])
    for _ in range(2):
        picture = Image.open(io.BytesIO(file.getvalue()))
        found = run_at_once(lambda _, picture=picture: np.asarray(processor.load_pictures(picture)[0]), THREADS)
        assert all(np.array_equal(one, whole) for one in found)


def test_texts_of_the_first_stage_beside_questions():
    """Long texts are cut in every thread, whatever the tokenizer does for the others."""
    processor = LyricsProcessor.from_pretrained(MICRO_SEARCH)
    objects = VisualObjects(["star"] * 9, [[0.1, 0.1, 0.2, 0.2]] * 9, [0.5] * 9, np.zeros((9, 36)))
    picture = Image.new("RGB", (64, 64))
    texts = ["a red star"] * 20
    options = {"padding": True, "visual_objects": [objects, objects], "return_tensors": "np"}

    def work(index):
        lengths = set()
        for _ in range(4):
            if index % 3 == 0:
                lengths.add(processor.prepare_texts(["a red star and " * 200] * 3)["input_ids"].shape[1])
            elif index % 3 == 1:
                processor.prepare_texts(texts, visual_objects=[objects] * len(texts))
            else:
                processor(text=["a <image>"] * 2, images=[picture] * 2, **options)
        return lengths

    assert set().union(*run_at_once(work, THREADS)) == {513}

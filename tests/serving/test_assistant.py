"""`Lyrics`: its answers are those of `generate`, whatever is cached, batched, streamed or shared by threads."""

import asyncio
import base64
import shutil
import sys
import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest
from PIL import Image

from lyrics import MICRO_CHECKPOINT, SCENE_PICTURE, Lyrics, LyricsProcessor, VisualObjects
from lyrics.assets import EXAMPLE_PICTURE
from lyrics.serving import BusyError, CacheLimits, ClosedError, GenerationOptions
from lyrics.serving.notices import UNFAMILIAR

from ..threads import run_at_once

COLOR, WHERE, MANY, LONG = (
    "What color is the ring?",
    "Where is the red star?",
    "How many objects are there?",
    "Describe the picture.",
)


def generate(parts, question, picture=SCENE_PICTURE):
    """The answer as Transformers gives it."""
    model, processor = parts
    content = [{"type": "image", "path": str(picture)}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    generated = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    return processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


@pytest.fixture(scope="module")
def expected(parts):
    """Answers of `generate`, by image and question."""
    asked = [(SCENE_PICTURE, COLOR), (SCENE_PICTURE, WHERE), (SCENE_PICTURE, LONG), (EXAMPLE_PICTURE, LONG)]
    return {one: generate(parts, one[1], one[0]) for one in asked}


def test_answers_are_those_of_generate(assistant, forgetful, expected):
    for _ in range(2):  # the second time from the caches
        for (picture, question), text in expected.items():
            assert assistant.ask(picture, question, max_new_tokens=20).text == text
    for (picture, question), text in list(expected.items())[:2]:
        assert forgetful.ask(picture, question, max_new_tokens=20).text == text


def test_an_answer_has_boxes_in_pixels_and_says_what_was_seen(assistant, parts):
    picture = Image.open(SCENE_PICTURE).resize((600, 300))
    answer = assistant.ask(picture, WHERE)
    grounded = parts[1].post_process_grounding(answer.text, [(300, 600)])[0]
    assert len(answer.boxes) == 1
    np.testing.assert_allclose(answer.boxes, grounded["boxes"])
    assert (answer.boxes[:, 2] > 1).all()
    assert answer.labels == grounded["labels"] == ["red star"]
    assert answer.objects == parts[1].refine(picture)[0]
    assert answer.finish_reason == "stop"
    assert answer.completion_tokens == len(answer.token_ids[1]) > 5
    drawn = answer.draw()
    assert drawn.tobytes() == parts[1].visualize(picture, answer.objects, answer.text).tobytes()
    assert answer.why().size == drawn.size
    assert answer.attribution().region_weights().sum().item() == pytest.approx(1)
    assert answer.provenance["refiner"]["fingerprint"] == parts[1].refiner_fingerprint
    assert answer.provenance["options"]["max_new_tokens"] == 256
    shown = answer._repr_html_()
    png = base64.b64decode(shown.split("base64,")[1].split('"')[0])
    assert png.startswith(b"\x89PNG")
    assert "red star" in shown


def test_pictures_of_every_kind(assistant, expected):
    picture = Image.open(SCENE_PICTURE)
    text = expected[SCENE_PICTURE, COLOR]
    data = f"data:image/png;base64,{base64.b64encode(SCENE_PICTURE.read_bytes()).decode()}"
    kinds = (str(SCENE_PICTURE), picture, SCENE_PICTURE.read_bytes(), np.asarray(picture.convert("RGB")), data)
    before = assistant.cache_stats()["refined"].misses
    assert {assistant.ask(one, COLOR).text for one in kinds} == {text}
    assert assistant.cache_stats()["refined"].misses == before  # they have one content
    content = [{"type": "image", "path": str(SCENE_PICTURE)}, {"type": "text", "text": COLOR}]
    assert assistant.ask_messages([{"role": "user", "content": content}]).text == text
    assert assistant.ask([picture, EXAMPLE_PICTURE], COLOR, max_new_tokens=4).picture.size == (480, 320)
    blind = assistant.ask(None, COLOR, max_new_tokens=4)
    assert blind.pictures == []
    assert len(blind.objects) == 0
    assert "<img" not in blind._repr_html_()


def test_given_objects_are_used_and_told_apart(assistant):
    """The same image and question with other objects is another question."""
    everything = assistant.see(SCENE_PICTURE)
    assert assistant.ask(SCENE_PICTURE, MANY, objects=everything).text == assistant.ask(SCENE_PICTURE, MANY).text
    width = everything.region_features.shape[1]
    none = VisualObjects(region_features=np.zeros((0, width), np.float32))
    answer = assistant.ask(SCENE_PICTURE, MANY, objects=none)
    assert len(answer.objects) == 0
    assert answer.text != assistant.ask(SCENE_PICTURE, MANY).text
    with pytest.raises(ValueError, match="visual objects for 2 images, but 1"):
        assistant.ask(SCENE_PICTURE, MANY, objects=[none, none])


# ---------------------------------------------------------------- many questions


def test_many_questions_in_batches(assistant, expected):
    rows = [{"image": str(picture), "question": question} for picture, question in expected] * 2
    answers = assistant.ask_many(rows, batch_size=5, max_new_tokens=20)
    assert [answer.text for answer in answers] == list(expected.values()) * 2


def test_a_row_that_fails_fails_alone(assistant, expected, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows = [
        (SCENE_PICTURE, COLOR),
        (tmp_path / "broken.png", COLOR),
        {"image": str(SCENE_PICTURE)},
        (SCENE_PICTURE, COLOR),
    ]
    found = list(assistant.ask_many(rows, on_error="yield"))
    assert [getattr(one, "text", None) for one in found] == [expected[SCENE_PICTURE, COLOR], None, None, found[0].text]
    assert "broken.png" in str(found[1])
    assert "no conversation" in str(found[2])
    answers = assistant.ask_many(rows)
    assert next(answers).text == found[0].text
    with pytest.raises(ValueError, match=r"broken\.png"):
        next(answers)


def test_urls_in_rows_are_refused(assistant):
    found = list(assistant.ask_many([{"image": "http://127.0.0.1:9/a.png", "question": COLOR}], on_error="yield"))
    assert "is a URL; images are not fetched" in str(found[0])


def test_an_error_in_a_batch_reaches_only_its_question(parts, expected):
    """One image of a batch cannot be prepared: the other questions are answered."""

    def refuse(picture, objects):
        if picture.size == (480, 320):
            raise ValueError("not this one")

    with Lyrics(*parts, notice_checks=[refuse]) as assistant:
        rows = [(SCENE_PICTURE, COLOR), (EXAMPLE_PICTURE, COLOR), (SCENE_PICTURE, WHERE)]
        found = list(assistant.ask_many(rows, on_error="yield"))
        assert [getattr(one, "text", str(one)) for one in found] == [
            expected[SCENE_PICTURE, COLOR],
            "not this one",
            expected[SCENE_PICTURE, WHERE],
        ]


def test_threads_with_different_pictures_never_mix(parts, expected):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with Lyrics(*parts, max_batch_size=3) as assistant:
            asked = list(expected) * 2

            def work(index):
                if index % 2:
                    return "".join(assistant.stream(*asked[index], max_new_tokens=20))
                return assistant.ask(*asked[index], max_new_tokens=20).text

            assert run_at_once(work, len(asked)) == [expected[one] for one in asked]
            assert assistant.load() == (0, 0)
    finally:
        sys.setswitchinterval(interval)


def test_draws_depend_on_their_seed_alone(assistant):
    drawn = {"temperature": 1.5, "top_p": 0.9, "max_new_tokens": 16}
    alone = {seed: assistant.ask(SCENE_PICTURE, LONG, **drawn, seed=seed).text for seed in (1, 2)}
    assert alone[1] != alone[2]
    options = (drawn | {"seed": 2}, {"max_new_tokens": 16}, drawn | {"seed": 1})
    requests = [assistant._request_of_row((SCENE_PICTURE, LONG), 8, one) for one in options]
    together = [stream.result().text for stream in assistant._submit(requests)]
    assert together == [alone[2], assistant.ask(SCENE_PICTURE, LONG, max_new_tokens=16).text, alone[1]]
    nearly_none = assistant.ask(SCENE_PICTURE, LONG, temperature=1e-40, max_new_tokens=16).text
    assert nearly_none == assistant.ask(SCENE_PICTURE, LONG, max_new_tokens=16).text
    unseeded = assistant.ask(SCENE_PICTURE, LONG, temperature=1.5, max_new_tokens=8)
    again = assistant.ask(SCENE_PICTURE, LONG, temperature=1.5, max_new_tokens=8, seed=unseeded.options.seed)
    assert again.text == unseeded.text


# ---------------------------------------------------------------- streams and ends


def test_a_stream_joins_to_the_answer(assistant):
    stream = assistant.stream(SCENE_PICTURE, LONG)
    pieces = list(stream)
    assert len(pieces) > 3
    assert "".join(pieces) == stream.result().text == assistant.ask(SCENE_PICTURE, LONG).text
    assert list(stream) == pieces  # it can be read again
    assert stream.result().finish_reason == "stop"

    async def read():
        return [piece async for piece in assistant.stream(SCENE_PICTURE, LONG)]

    assert asyncio.run(read()) == pieces


def test_leaving_the_loop_stops_the_answer(assistant):
    stream = assistant.stream(SCENE_PICTURE, LONG)
    for _ in stream:
        break
    answer = stream.result()
    assert answer.finish_reason == "cancelled"
    assert assistant.ask(SCENE_PICTURE, LONG).text.startswith(answer.text)
    assert len(answer.text) < len(assistant.ask(SCENE_PICTURE, LONG).text)

    async def leave():
        stream = assistant.stream(SCENE_PICTURE, LONG)
        pieces = stream.__aiter__()
        await anext(pieces)
        await pieces.aclose()
        return stream

    assert asyncio.run(leave()).result().finish_reason == "cancelled"


def test_length_and_stop_strings(assistant):
    whole = assistant.ask(SCENE_PICTURE, LONG).text
    short = assistant.ask(SCENE_PICTURE, LONG, max_new_tokens=3)
    assert (short.finish_reason, short.completion_tokens) == ("length", 3)
    assert whole.startswith(short.text)
    stop = whole[10:14]
    stopped = assistant.stream(SCENE_PICTURE, LONG, stop=["never said", stop])
    text = "".join(stopped)
    assert text == whole[: whole.index(stop)].rstrip()
    assert stopped.result().finish_reason == "stop"
    searched = assistant.ask(SCENE_PICTURE, LONG, stop=stop, num_beams=2)
    assert stop not in searched.text


def test_beams_are_those_of_generate(assistant, parts):
    answer = assistant.ask(SCENE_PICTURE, LONG, num_beams=3, max_new_tokens=12)
    both = list(assistant.ask_many([(SCENE_PICTURE, LONG), (EXAMPLE_PICTURE, LONG)], num_beams=3, max_new_tokens=12))
    assert both[0].text == answer.text
    model, processor = parts
    inputs = processor.apply_chat_template(
        answer.question.messages_with(answer.pictures),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    generated = model.generate(**inputs, num_beams=3, max_new_tokens=12, do_sample=False)
    text = processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer.text == text.strip()


@pytest.fixture
def held(parts):
    """An object whose only thread waits, before its first answer, until the returned event is set."""
    entered, go = threading.Event(), threading.Event()

    def wait(picture, objects):
        entered.set()
        go.wait(60)

    assistant = Lyrics(*parts, notice_checks=[wait], max_waiting=2)
    first = assistant.stream(SCENE_PICTURE, COLOR)
    entered.wait(60)
    yield assistant, first, go
    go.set()
    assistant.close()


def test_questions_that_wait(held):
    """They can be stopped, end in time, and are so many as may be."""
    assistant, first, go = held
    stopped, late = assistant.stream(SCENE_PICTURE, WHERE), assistant.stream(SCENE_PICTURE, WHERE, timeout=1e-9)
    assert assistant.load() == (2, 1)
    with pytest.raises(BusyError, match="2 questions wait already, and the limit is 2"):
        assistant.ask(SCENE_PICTURE, MANY)
    with pytest.raises(TimeoutError, match="not complete after"):
        stopped.result(timeout=0.01)
    stopped.cancel()
    go.set()
    with pytest.raises(CancelledError):
        stopped.result()
    with pytest.raises(TimeoutError, match="did not begin within"):
        list(late)
    assert first.result().finish_reason == "stop"


def test_closing_finishes_what_was_taken(held):
    assistant, first, go = held
    second = assistant.stream(SCENE_PICTURE, WHERE)
    go.set()
    assistant.close()
    assert first.done
    assert second.result().finish_reason == "stop"
    with pytest.raises(ClosedError, match="takes no more questions"):
        assistant.ask(SCENE_PICTURE, COLOR)


def test_closing_at_once_ends_answers_as_they_are(held):
    assistant, first, go = held
    second = assistant.stream(SCENE_PICTURE, WHERE)
    closing = threading.Thread(target=assistant.close, kwargs={"finish": False})
    closing.start()
    while not second.cancelled:  # which the other thread does before it waits
        pass
    go.set()
    closing.join()
    for stream in (first, second):
        with pytest.raises(CancelledError):
            stream.result()


def test_notices_come_with_the_answer(parts):
    def look(picture, objects):
        return f"{len(objects)} objects" if picture.size == (512, 512) else None

    with Lyrics(*parts, notice_checks=[look, look]) as assistant:
        stream = assistant.stream(SCENE_PICTURE, COLOR)
        next(iter(stream))
        assert stream.notices == (f"{len(assistant.see(SCENE_PICTURE))} objects",)
        assert stream.result().notices == stream.notices
        blank = Image.new("RGB", (128, 128), "white")  # nothing is found in it
        assert assistant.ask(blank, COLOR, max_new_tokens=2).notices == (UNFAMILIAR,)
        assert assistant.ask(blank, COLOR, objects=VisualObjects(), max_new_tokens=2).notices == ()


# ---------------------------------------------------------------- caches and refiner


def test_caches_stay_within_their_bytes(parts, tmp_path):
    limits = CacheLimits(refined=8000, encoded=30000, prefix=400_000, pictures=700, vision=30000)
    scene = Image.open(SCENE_PICTURE).convert("RGB")
    with Lyrics(parts[0], LyricsProcessor.from_pretrained(MICRO_CHECKPOINT), caches=limits) as assistant:
        for size in (500, 520, 540):
            scene.resize((size, size)).save(tmp_path / "scene.png")
            assistant.ask(tmp_path / "scene.png", COLOR)
            for name, stats in assistant.cache_stats().items():
                assert 0 < stats.bytes <= stats.max_bytes == getattr(limits, name)
        assert assistant.cache_stats()["refined"].entries < 3
        assistant.clear_caches()
        assert {stats.bytes for stats in assistant.cache_stats().values()} == {0}


def test_another_question_about_a_picture_runs_no_vision_encoder(parts, forgetful, tmp_path):
    """Nor is the file decoded again, alone and beside an image that is new."""
    shutil.copy(SCENE_PICTURE, tmp_path / "scene.png")
    other = Image.open(SCENE_PICTURE).convert("RGB").rotate(180)
    sizes: list[int] = []
    hook = parts[0].model.vision_model.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    try:
        with Lyrics(parts[0], LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)) as assistant:
            assistant.ask(tmp_path / "scene.png", COLOR)
            kept = assistant.ask(tmp_path / "scene.png", "Where is the red star?")
            assert "picture" not in vars(kept.question.opened[0])
            rows = [
                (tmp_path / "scene.png", "How many objects are there?"),
                (other, COLOR),
                (other, "Is there a ring?"),
            ]
            together = list(assistant.ask_many(rows))
    finally:
        hook.remove()
    assert sizes == [1, 1]
    assert kept.token_ids[1] == forgetful.ask(SCENE_PICTURE, "Where is the red star?").token_ids[1]
    assert [one.text for one in together] == [forgetful.ask(*row).text for row in rows]


@pytest.mark.parametrize("size", [-1, "1GB", 1.5, True])
def test_a_size_of_a_cache_is_a_number_of_bytes(size):
    with pytest.raises(ValueError, match=r"refined must be a whole number of bytes, 0 or more, got"):
        CacheLimits(refined=size)


def test_sizes_of_caches_have_names(parts):
    with pytest.raises(TypeError, match="caches must be CacheLimits"):
        Lyrics(*parts, caches=100)


def test_a_picture_is_seen_with_other_words_and_thresholds(assistant):
    everything = assistant.see(SCENE_PICTURE)
    few = assistant.see(SCENE_PICTURE, thresholds={"box_threshold": 0.8})
    assert 0 < len(few) < len(everything)
    assert (few.scores >= 0.8).all()
    assert set(assistant.see(SCENE_PICTURE, tags=["ring"]).labels) == {"ring"}
    assert assistant.see(SCENE_PICTURE, masks=True).masks.shape == (len(everything), 512, 512)
    assert assistant.see(SCENE_PICTURE) == everything  # the refiner's own settings stay
    with pytest.raises(ValueError, match="Unknown thresholds box: known are box_threshold"):
        assistant.see(SCENE_PICTURE, thresholds={"box": 0.5})
    with pytest.raises(ValueError, match="box_threshold"):
        assistant.see(SCENE_PICTURE, thresholds={"box_threshold": 2.0})


def test_without_a_refiner(model, processor, saved):
    """Nothing is seen, and the answer is the model's; objects are asked for in vain."""
    bare = LyricsProcessor.from_pretrained(saved, refiner=False)
    with Lyrics(model, bare) as assistant:
        answer = assistant.ask(SCENE_PICTURE, COLOR, max_new_tokens=3)
        assert len(answer.objects) == 0
        with pytest.raises(ValueError, match="has no refiner"):
            assistant.see(SCENE_PICTURE)
        with pytest.raises(ValueError, match="region_features"):
            answer.why()


# ---------------------------------------------------------------- loading, and wrong arguments


def test_an_adapter_without_a_processor_has_that_of_its_base(saved, model, tmp_path):
    peft = pytest.importorskip("peft")
    base = type(model).from_pretrained(saved)
    tuned = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path)
    assert not (tmp_path / "processor_config.json").exists()
    with Lyrics.from_pretrained(tmp_path, device="cpu", dtype="float32") as assistant:
        assert assistant.ask(SCENE_PICTURE, COLOR, max_new_tokens=2).objects.labels
        weights = dict(assistant.model.named_parameters())
        assert any("lora_B" in name and weight.any() for name, weight in weights.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "/no/such/place"}, "there is no such directory, and it is not a Hub id"),
        ({"device": "toaster"}, "cannot run on device 'toaster'"),
        ({"dtype": "int8"}, "dtype must be auto, float32, bfloat16 or float16, got 'int8'"),
        ({"store": "/no/store"}, "/no/store"),
        ({"tag_thresholds": str(SCENE_PICTURE), "max_batch_size": 0}, "max_batch_size must be at least 1"),
    ],
)
def test_wrong_arguments_of_loading(arguments, message):
    with pytest.raises((ValueError, OSError), match=message):
        Lyrics.from_pretrained(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number from 1 on, got 0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens"),
        ({"temperature": -1}, "temperature must be a number from 0 to 100, got -1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p must be a number above 0 and at most 1, got 0"),
        ({"top_k": 0}, "top_k"),
        ({"num_beams": 2, "temperature": 0.5}, "choose one of both"),
        ({"seed": -1}, "seed"),
        ({"stop": [""]}, "stop must be strings that are not empty"),
        ({"stop": 3}, "stop must be strings"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        GenerationOptions(**options)


def test_wrong_questions(assistant):
    for question in ("", " \n"):
        with pytest.raises(ValueError, match="The question is empty"):
            assistant.ask(SCENE_PICTURE, question)
    with pytest.raises(ValueError, match="The question is no text: 3"):
        assistant.ask(SCENE_PICTURE, 3)
    with pytest.raises(ValueError, match=r"'none\.png' does not exist"):
        assistant.ask("none.png", COLOR)
    with pytest.raises(TypeError, match="max_tokens"):
        assistant.ask(SCENE_PICTURE, COLOR, max_tokens=3)
    with pytest.raises(ValueError, match="last message is one of the assistant"):
        assistant.ask_messages([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}])
    with pytest.raises(ValueError, match="reads 1024"):
        assistant.ask(SCENE_PICTURE, "star " * 1100)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        assistant.ask_many([], batch_size=0)


def test_a_stream_keeps_its_assistant(expected):
    """Also where nothing else does."""
    assert "".join(Lyrics.from_pretrained().stream(SCENE_PICTURE, COLOR)) == expected[SCENE_PICTURE, COLOR]


def test_rows_of_other_types_are_errors_of_their_own(assistant):
    image = {"type": "image", "path": str(SCENE_PICTURE)}
    box = {"type": "box", "box": [0, 0, 1, 1], "label": 5}
    rows = [
        {"messages": [{"role": "user", "content": [image, box, {"type": "text", "text": "What?"}]}]},
        {"image": str(SCENE_PICTURE), "question": COLOR, "objects": 5},
        {"image": str(SCENE_PICTURE), "question": COLOR},
    ]
    found = list(assistant.ask_many(rows, on_error="yield"))
    assert [str(error).split(",")[0] for error in found[:2]] == [
        "The label of a box must be text",
        "visual_objects must be VisualObjects or their dictionaries",
    ]
    assert found[2].text == assistant.ask(SCENE_PICTURE, COLOR).text

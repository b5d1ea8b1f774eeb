"""The page without Gradio: its conversation, its HTML, its limits, and the Gradio that it refuses."""

import contextlib
import io
import json
import sys
import threading
from concurrent.futures import CancelledError
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from lyrics import MICRO_CHECKPOINT, SCENE_PICTURE, Lyrics, LyricsProcessor, VisualObjects
from lyrics.assets import EXAMPLE_PICTURE
from lyrics.serving.notices import UNFAMILIAR
from lyrics.serving.page import PageSession, examples_in_folder, shipped_examples
from lyrics.serving.page.gradio_version import check_gradio_version
from lyrics.serving.page.html_views import render_chosen, render_conversation, render_start, render_text, render_viewer
from lyrics.serving.page.layout import build_page
from lyrics.serving.page.page_picture import MAX_FILE_BYTES, PagePicture, RefinerSettings, clean_name
from lyrics.serving.page.session import read_settings

SCENE = SCENE_PICTURE.read_bytes()
RED_STAR = "Where is the red star?"
DEFAULTS = {"box_threshold": 0.25, "text_threshold": 0.25, "iou_threshold": 0.5, "max_regions": 24}


def finish(stream):
    """The last turn of an iterator of `ask`."""
    *_, turn = stream
    return turn


@pytest.fixture
def session(assistant):
    """A conversation with an image."""
    session = PageSession(assistant)
    session.add_picture(SCENE, "scene.png")
    return session


# ---------------------------------------------------------------- Gradio


@pytest.mark.parametrize("installed", ["6.31.0", "6.40.2", "6.31.0rc1"])
def test_a_fitting_gradio_is_taken(installed):
    check_gradio_version(installed)


@pytest.mark.parametrize(
    ("installed", "reason"), [("3.36.1", "pip silently takes an old one"), ("6.30.9", "an old one"), ("7.0", "")]
)
def test_another_gradio_is_refused_by_name(installed, reason):
    with pytest.raises(ImportError, match=f"from 6.31 on, below 7, and {installed} is installed.*{reason}.*Pillow<13"):
        check_gradio_version(installed)


def test_without_gradio_the_extra_is_named(assistant, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"This needs gradio: pip install 'ziya-lyrics\[demo\]'"):
        build_page(assistant)


# ---------------------------------------------------------------- the conversation


def test_a_conversation_is_that_of_a_chat(session, assistant):
    chat = assistant.chat(SCENE_PICTURE)
    assert finish(session.ask(RED_STAR)).text == chat.ask(RED_STAR).text
    session.show(0)
    session.choose(0)
    box = session.chosen[0].box
    assert finish(session.ask(" ")).question == "What is this?"
    assert session.turns[-1].text == chat.ask("What is this?", boxes=[box]).text
    session.add_picture(EXAMPLE_PICTURE.read_bytes(), "example.png")
    chat.add_image(EXAMPLE_PICTURE)
    assert finish(session.ask("What is this?")).text == chat.ask("What is this?").text
    assert [turn.pictures for turn in session.turns] == [[0], [], [1]]
    assert json.loads(session.conversation_file()) == chat.to_row()


def test_the_text_grows_while_it_is_written(session):
    texts = [turn.text for turn in session.ask(RED_STAR)]
    assert texts[0] == ""
    assert len(texts) > 5
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


def test_its_program_repeats_it(session, tmp_path, monkeypatch):
    settings = RefinerSettings(("star", "ring"), {"box_threshold": 0.3})
    answers = [finish(session.ask(RED_STAR)).text]
    session.refine(settings)
    session.choose(1)
    answers.append(finish(session.ask("What color is this?")).text)
    (tmp_path / "scene.png").write_bytes(SCENE)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(session.python_code(), "page", "exec"), {})
    assert printed.getvalue().splitlines() == answers


def test_names_and_options_are_strings_in_the_program(assistant):
    options = {"max_new_tokens": 3, "temperature": 0.0}
    session = PageSession(assistant, "/a'b", options)
    session.add_picture(SCENE, "a'); import os #\n.png")
    assert session.python_code() == (
        "from lyrics import Lyrics\n\n"
        'assistant = Lyrics.from_pretrained("/a\'b")\n'
        "chat = assistant.chat(max_new_tokens=3)\n"
        'chat.add_image("a\'); import os #.png")\n'
    )
    assert len(finish(session.ask("Describe the picture.")).answer.token_ids[1]) <= 3


def test_a_question_that_fails_leaves_the_conversation_as_it_was(session):
    session.choose(2)
    with pytest.raises(ValueError, match="10,000 characters, and the limit is 2,000"):
        finish(session.ask("x" * 10_000))
    session.chosen.clear()
    with pytest.raises(ValueError, match="question is empty"):
        finish(session.ask(" "))
    finish(session.ask(RED_STAR))
    with pytest.raises(ValueError, match="tokens, and the model reads"):
        [finish(session.ask("ab cd " * 300)) for _ in range(50)]
    assert session.turns
    assert all(turn.answer is not None for turn in session.turns)
    assert finish(PageSession(session.assistant).ask(RED_STAR)).picture is None


def test_a_stopped_answer_ends(session):
    stream = session.ask("Describe the picture.")
    next(stream)
    session.stop()
    with contextlib.suppress(CancelledError):  # raised where no token was written
        assert list(stream)[-1].answer.finish_reason in ("cancelled", "stop")
    assert all(turn.answer is not None for turn in session.turns)
    assert finish(session.ask("What color is the ring?")).text == "purple"


def test_a_conversation_that_is_begun_anew_stays_empty(session):
    stream = session.ask("Describe the picture.")
    next(stream)
    session.reset()
    with contextlib.suppress(CancelledError):
        list(stream)
    assert (session.pictures, session.turns, session.shown) == ([], [], None)
    session.add_picture(SCENE, "scene.png")
    assert finish(session.ask("What color is the ring?")).text == "purple"
    assert session.python_code().count("chat.") == 2


def test_a_conversation_that_is_begun_anew_while_the_refiner_looks_stays_empty(session):
    calls = []

    def begin_anew(*args):
        calls.append(1)
        session.reset()

    with session.assistant.processor.refiner.register_forward_pre_hook(begin_anew):
        session.refine(RefinerSettings(tags=("a purple comb",)))
    assert calls
    assert (session.pictures, session.shown) == ([], None)
    session.add_picture(SCENE, "scene.png")
    assert session.python_code().count("thresholds") == session.python_code().count("tags=") == 0


def test_what_an_answer_looked_at(session):
    finish(session.ask(RED_STAR))
    session.show_reasons(0)
    weights = [weight for _, weight in session.view.reasons.weights]
    assert len(weights) == 9
    assert weights == sorted(weights, reverse=True)
    assert "What the answer looked at" in render_viewer(session)
    for wrong in (-1, 1, 10**9):
        with pytest.raises(ValueError, match="no such answer"):
            session.show_reasons(wrong)


def test_objects_of_the_last_picture_alone_are_chosen(session):
    for wrong in (-1, 9, 10**9):
        with pytest.raises(ValueError, match="no such object"):
            session.choose(wrong)
    session.choose(3)
    session.choose(3)
    assert session.chosen == []
    for index in range(8):
        session.choose(index)
    with pytest.raises(ValueError, match="at most 8 objects"):
        session.choose(8)
    session.add_picture(SCENE, "again.png")
    assert session.chosen == []
    session.show(0)
    with pytest.raises(ValueError, match="show that one"):
        session.choose(0)
    with pytest.raises(ValueError, match="no such image"):
        session.show(2)


def test_a_conversation_has_a_largest_number_of_pictures(session):
    for _ in range(7):
        session.add_picture(SCENE, "scene.png")
    with pytest.raises(ValueError, match="at most 8 images"):
        session.add_picture(SCENE, "scene.png")


def test_a_model_without_a_refiner_shows_the_picture_alone(parts):
    bare = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT, refiner=False)
    with Lyrics(parts[0], bare) as assistant:
        session = PageSession(assistant)
        session.add_picture(SCENE, "scene.png")
        assert session.shown.objects is None
        assert "ly-object" not in render_viewer(session)
        assert finish(session.ask(RED_STAR)).answer is not None


# ---------------------------------------------------------------- images and settings


def test_a_picture_is_refined_with_masks_and_remarks(session, assistant):
    picture = session.shown
    assert picture.objects == assistant.see(SCENE_PICTURE)
    assert picture.masks.startswith("data:image/png;base64,")
    assert picture.notices == ()
    file = io.BytesIO()
    Image.new("RGB", (128, 128), "white").save(file, "PNG")
    session.add_picture(file.getvalue(), "blank.png")
    assert session.shown.notices == (UNFAMILIAR,)
    assert UNFAMILIAR in render_viewer(session)


def test_files_are_refused_with_a_sentence():
    bomb = io.BytesIO()
    Image.new("1", (30_000, 1_000)).save(bomb, "PNG")
    for file, message in (
        (b"text", "not in one of the formats"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not in one of the formats"),
        (SCENE[:200], "image"),
        (bomb.getvalue(), r"30000 x 1000 pixels, and the limit is 25,000,000 pixels"),
        (b"\0" * (MAX_FILE_BYTES + 1), r"20.0 MB, and the limit is 20 MB"),
    ):
        with pytest.raises(ValueError, match=message):
            PagePicture.load(file, "a.png")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/folder/12/a b.png", "a b.png"),
        ("..\\..\\evil.png", "evil.png"),
        ("\u202egnp.exe", "gnp.exe"),
        ("a\n\0.png", "a.png"),
        ("/", "image"),
        ("x" * 300 + ".png", "x" * 60 + "..." + "x" * 13 + ".png"),
    ],
)
def test_names_are_cleaned(name, expected):
    assert clean_name(name) == expected


def test_settings_are_those_that_differ():
    assert read_settings(DEFAULTS, " star,ring\nstar ", {"box_threshold": 0.5, "max_regions": 24}) == RefinerSettings(
        ("star", "ring"), {"box_threshold": 0.5}
    )
    assert not read_settings(DEFAULTS, "", DEFAULTS).changed
    for wrong in ({"box_threshold": 2}, {"max_regions": 0}, {"iou_threshold": float("nan")}, {"text_threshold": "1"}):
        with pytest.raises(ValueError, match="must lie between"):
            read_settings(DEFAULTS, "", wrong)
    with pytest.raises(ValueError, match="Up to 100 tags"):
        read_settings(DEFAULTS, "x" * 101, {})


def test_examples_of_a_folder(tmp_path):
    with pytest.raises(ValueError, match="is no folder"):
        examples_in_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no image"):
        examples_in_folder(tmp_path)
    (tmp_path / "b.png").write_bytes(SCENE)
    assert [one.title for one in examples_in_folder(tmp_path)] == ["b"]
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"a\.png: The image is damaged"):
        examples_in_folder(tmp_path)
    assert all(one.path.is_file() for one in shipped_examples())


# ---------------------------------------------------------------- HTML


def test_texts_of_others_are_escaped_everywhere(assistant):
    evil = "<script>x</script>\"'"
    session = PageSession(assistant)
    session.add_picture(SCENE, f"{evil}.png", [evil])
    objects = VisualObjects([evil], np.array([[0.1, 0.1, 0.5, 0.5]]), np.array([0.9]))
    session.pictures[0] = PagePicture(evil, session.pictures[0].image, "data:,", objects, None, (evil,))
    finish(session.ask(evil))
    session.turns[0].text = f"{evil}: [0.1, 0.1, 0.2, 0.2] {evil}"
    session.add_picture(SCENE, f"{evil}.png", [f"again {evil}"])
    views = [render_conversation(session), render_chosen(session)]
    session.show(0)
    views.append(render_viewer(session))
    session.view.turn = 0
    views.append(render_viewer(session))
    assert all("<script" not in view and "&lt;script&gt;" in view for view in views)


def test_an_answer_shows_its_boxes_as_plates():
    text = render_text("a red star: [0.1, 0.2, 0.3, 0.4]; ring: [0.5, 0.5, 0.6, 0.6] and [0.1, 0.1, 0.2, 0.2].")
    assert "<b>a red star</b> <small>[0.1, 0.2, 0.3, 0.4]</small></mark>; " in text
    assert text.count("<mark") == 3
    assert " and <mark" in text
    assert text.endswith("</mark>.")
    assert render_text("1 < 2") == "1 &lt; 2"


def test_the_beginning_offers_examples():
    html = render_start(shipped_examples())
    assert html.count('data-event="example"') == len(shipped_examples())
    assert "or try" not in render_start([])


def test_several_threads_use_one_conversation(session):
    """An image that is added while an answer is written waits for its end, and belongs to the next question."""
    stream = session.ask("Describe the picture.")
    next(stream)
    adding = threading.Thread(target=session.add_picture, args=(SCENE, "other.png"))
    adding.start()
    turn = finish(stream)
    adding.join()
    assert turn.picture == 0
    assert finish(session.ask(RED_STAR)).pictures == [1]


def test_a_question_that_fails_in_the_model_is_forgotten(session):
    def fail(*args):
        raise MemoryError("out of memory")

    with session.assistant.model.register_forward_pre_hook(fail), pytest.raises(MemoryError):
        finish(session.ask("How many stars are there, and where?"))
    assert session.turns == []
    assert finish(session.ask("What color is the ring?")).text == "purple"

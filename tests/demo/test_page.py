"""The page in a browser: images, questions, boxes, several people at once, and everything that can be sent to it."""

import contextlib
import io
import json
import re
import struct
import threading
import zlib
from itertools import pairwise
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image, ImageOps

from lyrics.datasets_lyrics.conversations import read_question
from lyrics.processing_lyrics.drawing import PALETTE

from .conftest import ask, refusal, show, upload

RED_STAR = "Where is the red star?"


PAINTED = """() => Promise.all([...document.images].map(image => image.decode().catch(() => null)))
    .then(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))))"""


def picture_of(page, selector=".ly-stage"):
    """A screenshot of a part of the page, once everything is painted."""
    page.evaluate(PAINTED)
    return Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")


def count_color(picture, color, tolerance=12):
    """How many pixels have a color."""
    pixels = picture.get_flattened_data() if hasattr(picture, "get_flattened_data") else picture.getdata()
    return sum(all(abs(a - b) <= tolerance for a, b in zip(pixel, color, strict=True)) for pixel in pixels)


def png(width, height, content=b""):
    """A PNG file whose header promises a size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


# ---------------------------------------------------------------- images and answers


def test_a_picture_shows_at_once_what_the_refiner_saw(visit, server, scene):
    page = visit()
    show(page, scene)
    objects = server.assistant.see(scene)
    labels = page.locator(".ly-object .ly-label").all_text_contents()
    assert labels == objects.labels
    assert page.locator(".ly-object .ly-score").all_text_contents() == [f"{score:.2f}" for score in objects.scores]
    assert page.locator(".ly-masks").count() == 1
    assert "ring" in page.get_by_alt_text(re.compile(r"^scene\.png: ")).get_attribute("alt")
    page.wait_for_function("document.getElementById('ly-live').textContent.includes('9 objects')")
    frame = page.locator(".ly-stage").bounding_box()
    ring = page.locator(".ly-object").first.bounding_box()
    left = (ring["x"] - frame["x"]) / frame["width"]
    assert left == pytest.approx(objects.boxes[0][0], abs=0.01)


def test_each_layer_is_switched_and_stays_so(visit, scene):
    page = visit()
    show(page, scene)
    orange = PALETTE[0]  # of the first label, the ring
    shots = [picture_of(page)]
    for name in ("Labels", "Scores", "Masks", "Boxes"):
        page.get_by_label(name, exact=True).uncheck()
        shots.append(picture_of(page))
    assert not page.locator(".ly-plate >> visible=true").count()
    assert all(before.tobytes() != after.tobytes() for before, after in pairwise(shots))
    assert count_color(shots[0], orange) > 1000
    assert count_color(shots[-1], orange) == 0
    page.get_by_role("button", name="Add an image").wait_for()
    show(page, scene)
    page.wait_for_selector(".ly-thumb >> nth=1")
    assert not page.locator(".ly-masks").last.is_visible()


def test_an_answer_streams_and_its_box_is_drawn_in_the_color_of_its_text(visit, server, scene):
    page = visit()
    show(page, scene)
    before = picture_of(page)
    text = ask(page, RED_STAR)
    expected = server.assistant.ask(scene, RED_STAR)
    assert " ".join(text.split()) == expected.text.replace(":", "")
    found = page.locator(".ly-found")
    assert found.count() == len(expected.boxes) == 1
    colors = [
        page.locator(one).evaluate(f"element => getComputedStyle(element).{what}")
        for one, what in ((".ly-found", "borderTopColor"), (".ly-box", "backgroundColor"))
    ]
    assert colors[0] == colors[1] == f"rgb{PALETTE[0]}".replace(" ", "").replace(",", ", ")
    after = picture_of(page)
    box = found.bounding_box()
    frame = page.locator(".ly-stage").bounding_box()
    scale = expected.picture.width / frame["width"]
    drawn = [(box["x"] - frame["x"]) * scale, (box["y"] - frame["y"]) * scale]
    assert drawn == pytest.approx(expected.boxes[0][:2].tolist(), abs=2)
    edge = (round(box["x"] - frame["x"] + box["width"] / 2), round(box["y"] - frame["y"] + box["height"] - 2))
    assert after.getpixel(edge) == pytest.approx(PALETTE[0], abs=8)
    assert before.getpixel(edge) != pytest.approx(PALETTE[0], abs=8)


def test_an_object_that_is_clicked_goes_into_the_question(visit, server, scene):
    page = visit()
    show(page, scene)
    frame = page.locator(".ly-stage").bounding_box()
    objects = server.assistant.see(scene)
    index = objects.labels.index("circle")
    x1, y1, x2, y2 = objects.boxes[index].tolist()
    page.mouse.click(frame["x"] + frame["width"] * (x1 + x2) / 2, frame["y"] + frame["height"] * (y1 + y2) / 2)
    page.get_by_role("button", name="Do not ask about circle").wait_for()
    assert page.locator(".ly-chosen").count() == 1
    page.get_by_role("button", name="Ask: What is this?").click()
    page.wait_for_selector(".ly-answer .ly-tools")
    box = [round(value * 512, 1) for value in (x1, y1, x2, y2)]
    expected = server.assistant.chat(scene).ask("What is this?", boxes=[box])
    assert page.locator(".ly-answer p").inner_text().removeprefix("Answer:").strip() == expected.text
    assert page.locator(".ly-question .ly-chip").inner_text() == "circle"
    assert page.locator(".ly-chosen").count() == 0


def test_the_smallest_object_at_a_place_is_the_one_that_is_chosen(visit, server, scene):
    page = visit()
    show(page, scene)
    objects, frame = server.assistant.see(scene), page.locator(".ly-stage").bounding_box()
    x1, y1, x2, y2 = objects.boxes[objects.labels.index("H")].tolist()  # lies on a star
    page.mouse.click(frame["x"] + frame["width"] * (x1 + x2) / 2, frame["y"] + frame["height"] * (y1 + y2) / 2)
    page.get_by_role("button", name="Do not ask about H").wait_for()


def test_why_shows_what_an_answer_looked_at(visit, server, scene):
    page = visit()
    show(page, scene)
    ask(page, RED_STAR)
    page.get_by_role("button", name="Why?").click()
    page.wait_for_selector(".ly-reasons meter")
    answer = server.assistant.ask(scene, RED_STAR)
    weights = sorted(answer.attribution().region_weights()[0].tolist(), reverse=True)
    shown = page.locator(".ly-reasons li span:last-child").all_text_contents()
    assert shown == [f"{weight:.2f}" for weight in weights]
    page.get_by_role("button", name="Back to the objects").click()
    page.wait_for_selector(".ly-object")


def test_the_picture_is_refined_again_with_other_tags_and_thresholds(visit, server, scene):
    page = visit()
    show(page, scene)
    page.get_by_role("button", name="Look again").first.click()
    page.get_by_label("Look for").fill("star, ring")
    page.locator("#ly-box_threshold input[type=number]").fill("0.5")
    page.click("#ly-refine")
    expected = server.assistant.see(scene, tags=["star", "ring"], thresholds={"box_threshold": 0.5})
    page.wait_for_function(f"document.querySelectorAll('.ly-object').length === {len(expected)}")
    assert page.locator(".ly-object .ly-label").all_text_contents() == expected.labels
    assert 0 < len(expected) < 9
    ask(page, RED_STAR)
    page.get_by_role("button", name="Take it along").click()
    page.wait_for_selector("#ly-code >> text=box_threshold")
    page.locator("#ly-box_threshold input[type=number]").fill("0.99")
    page.click("#ly-refine")
    page.wait_for_function("document.querySelectorAll('.ly-object').length === 0")


def test_several_pictures_and_turns(visit, server, scene, other_scene):
    page = visit()
    show(page, scene)
    first = ask(page, "What color is the ring?")
    upload(page, other_scene)
    page.wait_for_selector(".ly-thumb >> nth=1")
    second = ask(page, "Which character is on the orange square?")
    chat = server.assistant.chat(scene)
    assert first == chat.ask("What color is the ring?").text
    chat.add_image(other_scene)
    assert second == chat.ask("Which character is on the orange square?").text
    page.get_by_role("button", name="Show image 1, scene.png").click()
    page.wait_for_selector('.ly-object[aria-label^="Ask about star"]')
    assert page.locator(".ly-object").first.is_disabled()  # a question is about the last image
    page.get_by_role("button", name="New conversation").click()
    page.wait_for_selector(".ly-drop")
    assert not page.locator(".ly-turns").count()


def test_examples_and_their_questions(visit):
    page = visit()
    page.get_by_role("button", name="Try stars and a ring").click()
    page.get_by_role("button", name=f"Ask: {RED_STAR}").click()
    page.wait_for_selector(".ly-found")
    assert page.locator(".ly-question").inner_text().endswith(RED_STAR)
    assert not page.get_by_role("button", name=f"Ask: {RED_STAR}").count()


def test_an_unfamiliar_picture_is_remarked_on(visit):
    page = visit()
    file = io.BytesIO()
    Image.new("RGB", (128, 128), "white").save(file, "PNG")
    upload(page, ("blank.png", file.getvalue()))
    page.wait_for_selector(".ly-notice")
    assert "does not look like those" in page.locator(".ly-notice").inner_text()


def paste_or_drop(page, event, file):
    """Send an event with a file in it, as the browser does."""
    page.evaluate(
        """([event, name, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, {type: 'image/png'}));
            const options = {bubbles: true, cancelable: true};
            document.body.dispatchEvent(event === 'paste'
                ? new ClipboardEvent(event, {...options, clipboardData: data})
                : new DragEvent(event, {...options, dataTransfer: data}));
        }""",
        [event, file.name, list(file.read_bytes())],
    )


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_a_picture_is_pasted_or_dropped(visit, scene, event):
    page = visit()
    paste_or_drop(page, event, scene)
    page.wait_for_selector(".ly-object")


# ---------------------------------------------------------------- to take along


def code_of(page):
    """The program of the page, with its line breaks."""
    lines = page.locator("#ly-code .cm-line").all_text_contents()
    return "\n".join(lines)


def test_the_conversation_as_python_gives_the_same_answers(visit, scene, tmp_path, monkeypatch):
    page = visit()
    show(page, scene)
    answers = [ask(page, "What color is the ring?")]
    page.locator('[aria-label^="Ask about circle"]').click()
    page.get_by_role("button", name="Do not ask about circle").wait_for()
    answers.append(ask(page, "What is this?"))
    page.get_by_role("button", name="Take it along").click()
    page.wait_for_selector("#ly-code >> text=boxes=")
    code = code_of(page)
    (tmp_path / scene.name).write_bytes(scene.read_bytes())
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "page", "exec"), {})
    assert printed.getvalue().splitlines() == answers


def test_conversation_and_objects_are_downloaded(visit, scene):
    page = visit()
    show(page, scene)
    answer = ask(page, "What color is the ring?")
    page.get_by_role("button", name="Take it along").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the conversation").click()
    assert download.value.suggested_filename == "conversation.jsonl"
    row = json.loads(download.value.path().read_text())
    assert row["messages"][-1]["content"][0]["text"] == answer
    assert len(read_question({"messages": row["messages"][:1]}).pictures) == 1
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the objects").click()
    objects = json.loads(download.value.path().read_text())[0]
    assert objects["picture"] == "scene.png"
    assert objects["size"] == [512, 512]
    assert len(objects["objects"]) == 9


# ---------------------------------------------------------------- several people


def test_two_browsers_never_see_each_others_pictures(visit, server, scene, other_scene, tmp_path):
    """Both are open at once, upload at once and ask in turns."""
    mirrored = ImageOps.mirror(Image.open(other_scene))  # the page offers the scene itself as an example
    other_scene = tmp_path / "mirrored.png"
    mirrored.save(other_scene)
    one, other = visit(), visit()
    upload(one, scene)
    upload(other, other_scene)
    for page in (one, other):
        page.wait_for_selector(".ly-object")
    answers = [ask(one, "What color is the ring?"), ask(other, "What color is the ring?")]
    assert answers == [
        server.assistant.ask(scene, "What color is the ring?").text,
        server.assistant.ask(other_scene, "What color is the ring?").text,
    ]
    assert answers[0] != answers[1]
    names = [scene.name, other_scene.name]
    for page, mine, foreign in ((one, *names), (other, *reversed(names))):
        content = page.content()
        assert mine in content
        assert foreign not in content
        assert page.locator(".ly-stage").count() == 1
    sources = [page.locator(".ly-picture").get_attribute("src") for page in (one, other)]
    assert sources[0] != sources[1]
    assert sources[0] not in other.content()
    assert sources[1] not in one.content()


def test_a_reloaded_page_is_a_new_one(visit, scene, other_scene):
    page = visit()
    show(page, scene)
    ask(page, RED_STAR)
    page.reload()
    page.wait_for_selector(".ly-drop")
    assert scene.name not in page.content()
    assert not page.locator(".ly-turns, .ly-stage").count()
    show(page, other_scene)
    assert ask(page, "Which character is on the orange square?") == "A"


def test_a_browser_keeps_nothing(visit, server, scene):
    page = visit()
    show(page, scene)
    ask(page, RED_STAR)
    kept = page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
    assert RED_STAR not in kept
    assert page.evaluate("indexedDB.databases().then(found => found.length)") == 0
    assert page.context.cookies() == []


# ---------------------------------------------------------------- what is refused


def test_a_file_over_the_limit_is_refused_with_a_sentence(visit, scene):
    page = visit()
    upload(page, ("big.png", b"\0" * 20_000_001))
    assert refusal(page) == "This file has 20.0 MB, and the limit is 20 MB."
    show(page, scene)


def test_the_server_refuses_a_file_over_the_limit_too(server):
    boundary, body = "b", b"\0" * 20_100_000
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="big.png"\r\n\r\n'.encode()
    data = head + body + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{server.url}/gradio_api/upload", data, headers))
    assert refused.value.code == 413


HOSTILE = {
    "text": (b"This is no image.", "not in one of the formats"),
    "script": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>window.hacked = 1</script></svg>", "not in one of"),
    "cut": (png(64, 64, zlib.compress(b"\0" * 100)), "image"),
    "bomb": (png(30_000, 30_000, zlib.compress(b"\0" * 1000)), "far more pixels than are read"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not in one of the formats"),
    "large": (png(6_000, 5_000, zlib.compress(b"\0" * 1000)), "6000 x 5000 pixels, and the limit is"),
    "empty": (b"", "not in one of the formats"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_and_the_page_goes_on(visit, scene, kind):
    content, sentence = HOSTILE[kind]
    page = visit()
    upload(page, (f"{kind}.png", content))
    told = refusal(page)
    assert sentence in told
    assert "/tmp" not in told
    assert "Traceback" not in told
    show(page, scene)


NAMES = [
    "<img src=x onerror=window.hacked=1>.png",
    "\"><script>window.hacked=1</script>'.png",
    "..\\..\\evil.png",
    "a'); import os; os.abort() #.png",
    "\u202egnp.exe.png",
    "x" * 300 + ".png",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_hostile_file_name_is_only_text(visit, scene, name):
    page = visit()
    show(page, (name, scene.read_bytes()))
    ask(page, "What color is the ring?")
    page.get_by_role("button", name="Take it along").click()
    page.wait_for_selector("#ly-code >> text=chat.ask")
    code = code_of(page)
    compile(code, "page", "exec")
    assert len(code.splitlines()) == 6
    assert page.evaluate("window.hacked === undefined")
    assert not page.locator(".ly-stage script, .ly-stage img[onerror], .ly-turns img[onerror]").count()


def test_a_hostile_question_is_only_text(visit, scene):
    page = visit()
    show(page, scene)
    question = "<img src=x onerror=window.hacked=1> <b>bold</b> & [0.1, 0.1, 0.2, 0.2]"
    ask(page, question)
    assert page.locator(".ly-question").inner_text().endswith(question)
    assert page.evaluate("window.hacked === undefined")


def test_an_empty_question_is_refused_with_a_sentence(visit, scene):
    page = visit()
    show(page, scene)
    page.click("#ly-ask")
    assert "The question is empty." in refusal(page)
    assert ask(page, "What color is the ring?") == "purple"


def join_queue(server, event, data, session):
    """Start an event as a program without a browser can, and return what the server tells of it."""
    with urlopen(f"{server.url}/config") as response:
        dependencies = json.load(response)["dependencies"]
    number = next(one["id"] for one in dependencies if any(name == event for _, name in one["targets"]))
    body = json.dumps({"data": data, "fn_index": number, "session_hash": session}).encode()
    request = Request(f"{server.url}/gradio_api/queue/join", body, {"Content-Type": "application/json"})
    try:
        urlopen(request).read()
        with urlopen(f"{server.url}/gradio_api/queue/data?session_hash={session}") as stream:
            lines = []
            for line in stream:
                lines.append(line.decode())
                if '"process_completed"' in lines[-1] or '"close_stream"' in lines[-1]:
                    break
            return "".join(lines)
    except HTTPError as error:
        return error.read().decode()


@pytest.mark.parametrize("path", ["/etc/hostname", "../../../../etc/hostname", "http://127.0.0.1:1/x.png"])
def test_a_path_of_the_server_is_not_read(server, path):
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    told = join_queue(server, "upload", [None, file], f"s{abs(hash(path))}")
    assert '"success":true' not in told.replace(" ", "")


def test_an_upload_is_deleted_when_it_was_read(visit, server, scene, tmp_path):
    """What one browser uploads cannot be fetched by another that guesses its name."""
    page = visit()
    with page.expect_response(lambda one: "/upload" in one.url) as uploaded:
        show(page, scene)
    path = uploaded.value.json()[0]
    with pytest.raises(HTTPError):
        urlopen(f"{server.url}/gradio_api/file={path}")


# ---------------------------------------------------------------- looks, and use without a mouse


def names_of_controls(page):
    """For each control that is seen, whether it has a name that a screen reader says."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.gradio-container :is(button, input, textarea, a)')]
            .filter(one => one.checkVisibility() && one.type !== 'file')
            .map(one => [one.outerHTML.slice(0, 120), (one.getAttribute('aria-label') || one.innerText || one.title ||
                [...(one.labels || [])].map(label => label.innerText).join('')).trim()])
            .filter(([, name]) => !name).map(([html]) => html)"""
    )


def test_every_control_has_a_name(visit, scene):
    page = visit()
    assert names_of_controls(page) == []
    show(page, scene)
    ask(page, RED_STAR)
    page.get_by_role("button", name="Look again").first.click()
    page.get_by_role("button", name="Take it along").click()
    page.wait_for_selector("#ly-save-objects")
    assert names_of_controls(page) == []


def test_an_object_is_chosen_and_asked_about_with_the_keyboard(visit, scene):
    page = visit()
    page.locator(".ly-drop").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the first example
    page.wait_for_selector(".ly-object")
    page.locator(".ly-object").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Do not ask about ring").wait_for()
    page.wait_for_function("document.activeElement.closest('#ly-question') !== null")
    page.keyboard.type("What is this?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".ly-answer .ly-tools")
    page.wait_for_function("document.getElementById('ly-live').textContent.startsWith('Answer: ')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system(visit, scene, scheme):
    page = visit(color_scheme=scheme)
    show(page, scene)
    corner = picture_of(page, "body").getpixel((5, 5))
    assert (sum(corner) > 600) == (scheme == "light")


def test_a_phone_shows_everything_in_its_width(visit, scene):
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    show(page, scene)
    ask(page, RED_STAR)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    picture, question = (page.locator(one).bounding_box() for one in (".ly-stage", "#ly-composer"))
    assert picture["width"] > 300
    assert question["y"] > picture["y"] + picture["height"]


# ---------------------------------------------------------------- the end of the stream


def test_many_at_once_get_their_own_answers(server, scene, other_scene):
    """Sixteen conversations in threads, as Gradio runs them."""
    from lyrics.serving.page import PageSession

    expected = {one: server.assistant.ask(one, "What color is the ring?").text for one in (scene, other_scene)}
    wrong = []

    def talk(path):
        session = PageSession(server.assistant)
        session.add_picture(path.read_bytes(), path.name)
        *_, turn = session.ask("What color is the ring?")
        if turn.text != expected[path]:
            wrong.append((path, turn.text))

    threads = [threading.Thread(target=talk, args=((scene, other_scene)[number % 2],)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

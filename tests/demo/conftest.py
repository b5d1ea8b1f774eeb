"""A server of the page with the micro model, and a browser. Nothing may leave this machine, and no script may fail."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = []
for module, package in (("gradio", "'gradio>=6.31,<7' 'Pillow<13'"), ("playwright", "playwright")):
    try:
        __import__(module)
    except ImportError:
        MISSING.append(f"pip install {package}")
if CHROMIUM is None:
    MISSING.append("install Chromium (Debian: apt-get install chromium)")
if MISSING:
    pytest.exit(f"The page's tests need a browser and Gradio: {'; '.join(MISSING)}. `make test-demo` does the rest.", 2)

from playwright.sync_api import sync_playwright  # noqa: E402

from lyrics import SCENE_PICTURE, Lyrics  # noqa: E402
from lyrics.serving.page import build_page, launch_page, shipped_examples  # noqa: E402

REACHED = set()  # addresses outside of this machine that this process connects to


def _watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = str(arguments[1][0])
        if not host.startswith("127.") and host not in ("::1", "localhost", "0.0.0.0"):
            REACHED.add(host)


sys.addaudithook(_watch)


@pytest.fixture(scope="session")
def server():
    """The page's address and the model behind it."""
    with Lyrics.from_pretrained() as assistant:
        page = build_page(assistant, examples=shipped_examples())
        address = launch_page(page, port=0).local.rstrip("/")
        yield SimpleNamespace(url=address, assistant=assistant)
        page.close(verbose=False)
    assert not REACHED


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(server, browser):
    """Opens the page as somebody new, and in the end checks what no visit may do."""
    contexts, wrong = [], []

    def watch(page):
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", lambda line: wrong.append(f"console: {line.text}") if line.type == "error" else None)
        page.on(
            "request", lambda one: None if one.url.startswith((server.url, "data:", "blob:")) else wrong.append(one.url)
        )

    def open_page(**options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        watch(page)
        page.goto(server.url)
        page.wait_for_selector(".ly-drop")
        return page

    open_page.wrong = wrong
    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def scene():
    return SCENE_PICTURE


@pytest.fixture(scope="session")
def other_scene():
    """An image with other objects: a ring and squares, and no star."""
    return next(one.path for one in shipped_examples() if "squares" in one.title)


def upload(page, file):
    """Give a file to the page: a path, or a name with bytes."""
    if isinstance(file, Path):
        page.set_input_files("#ly-actions input[type=file]", file)
    else:
        name, content = file
        payload = {"name": name, "mimeType": "image/png", "buffer": content}
        page.set_input_files("#ly-actions input[type=file]", payload)


def show(page, file):
    """Upload an image, and wait for its objects."""
    upload(page, file)
    page.wait_for_selector(".ly-object")


def ask(page, question):
    """Ask, and return the text of the answer."""
    before = page.locator(".ly-answer").count()
    page.get_by_label("Question").fill(question)
    page.click("#ly-ask")
    page.wait_for_selector(f".ly-answer >> nth={before} >> .ly-tools")
    return page.locator(".ly-answer >> nth=-1 >> p").inner_text().removeprefix("Answer:").strip()


def refusal(page):
    """The sentence with which the page refuses something."""
    return page.locator("#ly-refused, [data-testid=toast-body]").first.inner_text()

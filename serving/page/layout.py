"""The page as Gradio's components: where things are, and which method of `PageSession` each event calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from ..assistant import Lyrics
from ..engine import BusyError, ClosedError
from ..refined_pictures import THRESHOLDS
from .examples import Example
from .gradio_version import import_gradio
from .html_views import (
    describe_status,
    list_suggestions,
    render_chosen,
    render_conversation,
    render_start,
    render_viewer,
)
from .session import MAX_QUESTION, MAX_REGIONS, PageSession, read_settings

LAYERS = ("Boxes", "Masks", "Labels", "Scores")
_EVENTS = ("object", "picture", "back", "answer", "why", "suggestion", "example")
# Gradio finds the names of events in this code, between quotation marks
_MAKE_EVENTS = f"""
const known = {list(_EVENTS)!r};
element.addEventListener('click', (event) => {{
  const pressed = event.target.closest('[data-event]');
  if (!pressed || !known.includes(pressed.dataset.event)) return;
  trigger(pressed.dataset.event, {{index: Number(pressed.dataset.index)}});
}});
"""
_TELL = "watch('value', () => window.lyricsPage.tell(element.textContent));"
_FOLLOW = "watch('value', () => window.lyricsPage.follow());"
_THRESHOLDS = {  # label, description
    "box_threshold": ("Box threshold", "Score from which a box is kept"),
    "text_threshold": ("Text threshold", "Score from which a word belongs to a box"),
    "iou_threshold": ("Overlap threshold", "Overlap from which the weaker of two boxes is dropped"),
    "max_regions": ("Largest number of objects", "The best are kept"),
}
_MISTAKES = (ValueError, OSError, BusyError, ClosedError, CancelledError, TemplateError)  # a TimeoutError is an OSError


def build_page(
    assistant: Lyrics,
    *,
    model: str | None = None,
    title: str = "the micro model",
    examples: Sequence[Example] = (),
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Return the page as `gradio.Blocks`, to be launched with `launch_page`.

    Args:
        assistant: `Lyrics`.
        model: folder or Hub id of the model in code that repeats a conversation, or `None` for the micro model.
        title: name of the model on the page.
        examples: sequence of images to try.
        options: fields of `GenerationOptions`, for all answers.

    Raises:
        ImportError: Gradio is missing, or of another version than the page needs.
    """
    gr = import_gradio()
    return _Page(gr, assistant, model, title, examples, options or {}).build()


class _Page:
    """Components, and the functions behind their events.

    Args:
        gr: module of Gradio.
        assistant, model, title, examples, options: arguments of `build_page`.
    """

    def __init__(
        self,
        gr: Any,
        assistant: Lyrics,
        model: str | None,
        title: str,
        examples: Sequence[Example],
        options: Mapping[str, Any],
    ) -> None:
        self.gr, self.assistant, self.model, self.title = gr, assistant, model, title
        self.examples, self.options = list(examples), options
        config = assistant.processor.refiner_config if assistant.processor.has_refiner else None
        self.thresholds = {} if config is None else {name: getattr(config, name) for name in THRESHOLDS}

    # ---------------------------------------------------------------- components

    def build(self) -> Any:
        """Return the page."""
        gr = self.gr
        # Each browser, and each load of the page, has a state of its own; Gradio drops it after the page is closed
        with gr.Blocks(title="Lyrics", analytics_enabled=False, fill_width=True, delete_cache=(600, 600)) as page:
            self.session = gr.State(None)
            gr.HTML(self._header(), elem_id="ly-header")
            with gr.Row(elem_id="ly-columns", equal_height=False):
                with gr.Column(scale=6, min_width=320, elem_id="ly-left"):
                    self._place_picture()
                with gr.Column(scale=5, min_width=320, elem_id="ly-right"):
                    self._place_conversation()
            self.status = gr.HTML("", visible="hidden", js_on_load=_TELL)
            self._connect()
        return page.queue(max_size=64, default_concurrency_limit=16, api_open=False)

    def _header(self) -> str:
        return (
            "<header><h1>Lyrics</h1><p>Show an image, see what the refiner sees in it, and ask. "
            f"You are talking to <b>{escape(self.title)}</b>.</p></header>"
            '<div id="ly-live" class="ly-hidden" role="status" aria-live="polite"></div>'
        )

    def _place_picture(self) -> None:
        gr = self.gr
        self.start = gr.HTML(render_start(self.examples), elem_id="ly-start", js_on_load=_MAKE_EVENTS)
        self.viewer = gr.HTML("", elem_id="ly-viewer", js_on_load=_MAKE_EVENTS, visible=False)
        self.layers = gr.CheckboxGroup(LAYERS, value=list(LAYERS), label="Show", elem_id="ly-layers", visible=False)
        with gr.Row(elem_id="ly-actions"):
            self.upload = gr.UploadButton("Add an image", type="filepath", elem_id="ly-upload", size="sm")
            self.reset = gr.Button("New conversation", size="sm", elem_id="ly-reset")
        with gr.Accordion("Look again", open=False, visible=False, elem_id="ly-again") as self.again:
            self.tags = gr.Textbox(
                label="Look for",
                info="Words, separated by commas; empty: whatever the tagger finds",
                placeholder="star, ring",
                lines=1,
                elem_id="ly-tags",
            )
            self.sliders = [self._slider(name, default) for name, default in self.thresholds.items()]
            with gr.Row():
                self.refine = gr.Button("Look again", variant="primary", size="sm", elem_id="ly-refine")
                self.usual = gr.Button("The model's own values", size="sm", elem_id="ly-usual")

    def _slider(self, name: str, default: float) -> Any:
        label, info = _THRESHOLDS[name]
        low, high, step = (1, MAX_REGIONS, 1) if name == "max_regions" else (0, 1, 0.01)
        return self.gr.Slider(low, high, default, step=step, label=label, info=info, elem_id=f"ly-{name}")

    def _place_conversation(self) -> None:
        gr = self.gr
        self.conversation = gr.HTML(
            render_conversation(PageSession(self.assistant)),
            elem_id="ly-conversation",
            js_on_load=f"{_MAKE_EVENTS}{_FOLLOW}",
        )
        self.chosen = gr.HTML("", elem_id="ly-next", js_on_load=_MAKE_EVENTS)
        with gr.Row(elem_id="ly-composer", equal_height=True):
            self.question = gr.Textbox(
                label="Question",
                show_label=False,
                placeholder="Ask about the image",
                lines=1,
                max_lines=6,
                max_length=MAX_QUESTION,
                submit_btn=False,
                scale=5,
                min_width=160,
                elem_id="ly-question",
                html_attributes=gr.InputHTMLAttributes(autocomplete="off"),
            )
            self.ask = gr.Button("Ask", variant="primary", scale=1, min_width=80, elem_id="ly-ask")
            self.stop = gr.Button("Stop", variant="stop", scale=1, min_width=80, elem_id="ly-stop", visible=False)
        with gr.Accordion("Take it along", open=False, visible=False, elem_id="ly-take") as self.take:
            self.code = gr.Code(
                language="python", label="As Python", interactive=False, elem_id="ly-code", lines=4, buttons=["copy"]
            )
            with gr.Row():
                self.save_conversation = gr.Button(
                    "Download the conversation", size="sm", elem_id="ly-save-conversation"
                )
                self.save_objects = gr.Button("Download the objects", size="sm", elem_id="ly-save-objects")
            self.file = gr.Textbox("", visible="hidden", elem_id="ly-file")

    # ---------------------------------------------------------------- events

    def _connect(self) -> None:
        """Connect every event with its function."""
        session = self.session
        self.outputs = [
            session,
            self.start,
            self.viewer,
            self.conversation,
            self.chosen,
            self.status,
            self.code,
            self.layers,
            self.again,
            self.take,
        ]
        on, on_button, usual = self._on, self._on_button, list(self.thresholds.values())
        uploaded = on(self.upload.upload, self._add_picture, [self.upload], "full")
        uploaded.then(None, None, [self.upload], js="() => null")  # so that the same file can be given again
        on_button(self.start.example, self._add_example, "full")
        on(self.reset.click, PageSession.reset)
        on(self.refine.click, self._refine, [self.tags, *self.sliders], "full")
        self._listen(self.usual.click, lambda: ["", *usual], [], [self.tags, *self.sliders])
        self.layers.change(None, [self.layers], None, js="(shown) => window.lyricsPage.showLayers(shown)")
        for place in (self.viewer, self.chosen):
            on_button(place.object, PageSession.choose).then(None, js="() => window.lyricsPage.focusQuestion()")
        on_button(self.viewer.picture, PageSession.show)
        on(self.viewer.back, self._back)
        on_button(self.conversation.answer, PageSession.show_answer)
        on_button(self.conversation.why, PageSession.show_reasons)
        self._connect_questions()
        for button, write in (
            (self.save_conversation, self._conversation_file),
            (self.save_objects, self._objects_file),
        ):
            written = self._listen(button.click, write, [session], [self.file])
            written.then(None, [self.file], None, js="(text) => window.lyricsPage.download(text)")

    def _connect_questions(self) -> None:
        asked = {"fn": self._ask, "inputs": [self.session, self.question], "outputs": self._asked_outputs()}
        asked |= {"show_progress": "hidden", "api_visibility": "private"}
        self.gr.on([self.question.submit, self.ask.click], **asked)

        def suggest(session: PageSession | None, event: Any) -> str:
            return self._suggested(session, read_index(event))

        self._takes_event(suggest)
        self._listen(self.chosen.suggestion, suggest, [self.session], [self.question]).then(**asked)
        self.stop.click(self._stop, [self.session], None, show_progress="hidden", api_visibility="private", queue=False)

    def _asked_outputs(self) -> list[Any]:
        return [*self.outputs, self.question, self.ask, self.stop]

    def _on(
        self,
        event: Callable[..., Any],
        handler: Callable[..., None],
        inputs: Sequence[Any] = (),
        progress: str = "hidden",
    ) -> Any:
        """Connect an event with a function of the session, after which everything is shown anew."""

        def run(session: PageSession | None, *values: Any) -> list[Any]:
            session = session or self._new_session()
            handler(session, *values)
            return self._refresh(session)

        return self._listen(event, run, [self.session, *inputs], self.outputs, progress)

    def _on_button(
        self, event: Callable[..., Any], handler: Callable[[PageSession, int], None], progress: str = "hidden"
    ) -> Any:
        """Connect the buttons of an HTML view with a function that takes the number of the one that was pressed."""

        def run(session: PageSession | None, event: Any) -> list[Any]:
            session = session or self._new_session()
            handler(session, read_index(event))
            return self._refresh(session)

        self._takes_event(run)
        return self._listen(event, run, [self.session], self.outputs, progress)

    def _takes_event(self, function: Callable[..., Any]) -> None:
        """Annotate the argument `event`, by which Gradio knows what to give."""
        function.__annotations__ = {"event": self.gr.EventData}

    def _listen(
        self,
        event: Callable[..., Any],
        function: Callable[..., Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        progress: str = "hidden",
    ) -> Any:
        """Connect an event with a function whose mistakes are shown on the page."""

        @wraps(function)
        def run(*values: Any) -> Any:
            try:
                return function(*values)
            except _MISTAKES as error:
                raise self._mistake(error) from None

        return event(run, list(inputs), list(outputs), show_progress=progress, api_visibility="private")

    def _mistake(self, error: Exception) -> Exception:
        """Return what is shown of an error. Its text may hold a user's, and Gradio reads it as HTML."""
        text = str(error) or "The answer was stopped before it began."
        return self.gr.Error(escape(text), duration=15, title="That did not work", print_exception=False)

    def _new_session(self) -> PageSession:
        return PageSession(self.assistant, self.model, self.options)

    def _refresh(self, session: PageSession, is_writing: bool = False) -> list[Any]:
        """Return values of `outputs`."""
        gr, has_picture = self.gr, bool(session.pictures)
        return [
            session,
            gr.update(visible=not has_picture),
            gr.update(value=render_viewer(session), visible=has_picture),
            render_conversation(session, is_writing),
            render_chosen(session),
            escape(describe_status(session)),
            session.python_code(),
            gr.update(visible=has_picture),
            gr.update(visible=has_picture and bool(self.thresholds)),
            gr.update(visible=has_picture or bool(session.turns)),
        ]

    def _add_picture(self, session: PageSession, path: str | None) -> None:
        if path is None:
            return
        try:
            content = Path(path).read_bytes()
        finally:
            os.unlink(path)  # it is Gradio's copy, which others could fetch if they knew its name
        session.add_picture(content, os.path.basename(path))

    def _add_example(self, session: PageSession, index: int) -> None:
        if not 0 <= index < len(self.examples):
            raise ValueError("There is no such example.")
        example = self.examples[index]
        session.add_picture(example.path.read_bytes(), example.path.name, example.questions)

    def _refine(self, session: PageSession, tags: str, *thresholds: Any) -> None:
        given = dict(zip(self.thresholds, thresholds, strict=True))
        session.refine(read_settings(self.thresholds, tags or "", given))

    def _back(self, session: PageSession) -> None:
        if session.view.picture is not None:
            session.show(session.view.picture)

    # ---------------------------------------------------------------- answers

    def _suggested(self, session: PageSession | None, index: int) -> str:
        """Return the suggestion that was pressed."""
        suggestions = list_suggestions(session or self._new_session())
        if not 0 <= index < len(suggestions):
            raise ValueError("There is no such suggestion any more.")
        return suggestions[index]

    def _ask(self, session: PageSession | None, question: str) -> Iterator[list[Any]]:
        """Yield the page each time that more of an answer is written. The image is sent when a box is complete."""
        gr, skip = self.gr, self.gr.skip()
        session = session or self._new_session()
        writing = [gr.update(value=""), gr.update(visible=False), gr.update(visible=True)]
        rest = [gr.update(), gr.update(visible=True), gr.update(visible=False)]
        seen = None
        try:
            for turn in session.ask(question or ""):
                if turn.answer is not None:
                    break
                boxes = turn.text.count("]")
                if seen is None:
                    yield [*self._refresh(session, True), *writing]
                elif boxes != seen:
                    yield self._changed(render_viewer(session), render_conversation(session, True))
                else:
                    yield self._changed(skip, render_conversation(session, True))
                seen = boxes
        except Exception as error:
            yield [*self._refresh(session), gr.update(value=question), *rest[1:]]
            if isinstance(error, _MISTAKES):
                raise self._mistake(error) from None
            raise
        yield [*self._refresh(session), *rest]

    def _changed(self, viewer: Any, conversation: Any) -> list[Any]:
        """Return values of `_asked_outputs` of which these two change."""
        places = {id(self.viewer): viewer, id(self.conversation): conversation}
        return [places.get(id(one), self.gr.skip()) for one in self._asked_outputs()]

    def _stop(self, session: PageSession | None) -> None:
        if session is not None:
            session.stop()

    # ---------------------------------------------------------------- files

    def _conversation_file(self, session: PageSession | None) -> str:
        session = session or self._new_session()
        return f"conversation.jsonl\n{session.conversation_file()}"

    def _objects_file(self, session: PageSession | None) -> str:
        session = session or self._new_session()
        return f"objects.json\n{session.objects_file()}"


def read_index(event: Any) -> int:
    """Return the number of the button of an event, which a browser sends, or -1."""
    data = getattr(event, "_data", None)
    index = data.get("index") if isinstance(data, Mapping) else None
    return index if isinstance(index, int) and not isinstance(index, bool) else -1

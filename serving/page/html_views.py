"""HTML of the page: the image with its boxes, the conversation, and what goes into the next question.

Every text of a user, a model or a file name is escaped here, and nowhere else. Buttons carry `data-event` and
`data-index`, from which `page.js` makes events of Gradio.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...processing_lyrics import VisualObjects, parse_spatial_text
from ...processing_lyrics.drawing import PALETTE, color_labels, ink_on
from ..answer import Answer
from .examples import Example
from .page_picture import PagePicture
from .session import DEFAULT_QUESTION, ChosenObject, PageSession, Reasons, Turn

Color = tuple[int, int, int]
_ENDS = {"length": "The answer reached its longest length.", "cancelled": "Stopped.", "timeout": "It took too long."}


def button(event: str, index: int, content: str, *, label: str = "", kind: str = "", extra: str = "") -> str:
    """Return a button that makes an event of Gradio.

    Args:
        event: name of the event.
        index: number that goes with it.
        content: HTML inside.
        label: text for screen readers, where the content says too little.
        kind: CSS classes.
        extra: further attributes, as HTML.
    """
    spoken = f' aria-label="{escape(label)}" title="{escape(label)}"' if label else ""
    data = f'data-event="{event}" data-index="{index}"'
    return f'<button type="button" class="{kind}" {data}{spoken}{extra}>{content}</button>'


def color_style(color: Color) -> str:
    """Return CSS variables of a color and of the ink that can be read on it."""
    red, green, blue = color
    ink = "#000" if ink_on(color) == (0, 0, 0) else "#fff"
    return f"--ly-color:rgb({red},{green},{blue});--ly-ink:{ink}"


def place_style(box: Sequence[float]) -> str:
    """Return the place of a box within its image as CSS; small boxes lie above large ones.

    Args:
        box: xyxy in [0, 1].
    """
    x1, y1, x2, y2 = (min(max(float(value), 0.0), 1.0) for value in box)
    width, height = max(x2 - x1, 0.004), max(y2 - y1, 0.004)
    layer = round((1 - width * height) * 1000)
    return f"left:{x1:.2%};top:{y1:.2%};width:{width:.2%};height:{height:.2%};z-index:{layer}"


# ---------------------------------------------------------------- the image


def render_start(examples: Sequence[Example]) -> str:
    """Return the page's beginning: a place to drop an image on, and images to try.

    Args:
        examples: sequence of examples.
    """
    tries = "".join(
        f"<li>{button('example', number, example_picture(one), label=f'Try {one.title}', kind='ly-example')}</li>"
        for number, one in enumerate(examples)
    )
    offered = f'<p class="ly-or">or try one of these</p><ul class="ly-examples">{tries}</ul>' if tries else ""
    return (
        '<div class="ly-start"><button type="button" class="ly-drop" data-choose>'
        '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M4 17v2h16v-2M12 4v11M7 9l5-5 5 5"/></svg>'
        "<strong>Drop an image here</strong><span>paste it, or press to choose a file</span></button>"
        f"{offered}</div>"
    )


def example_picture(example: Example) -> str:
    """Return an example as a small image."""
    return f'<img src="{example.thumbnail}" alt="">'


def render_viewer(session: PageSession) -> str:
    """Return the shown image with its boxes, a row of all images, and the remarks about it."""
    picture, view = session.shown, session.view
    if picture is None:
        return ""
    if view.reasons is not None:
        stage = render_reasons(view.reasons, picture)
    else:
        turn = None if view.turn is None else session.turns[view.turn]
        chosen = session.chosen if session.can_choose else []
        stage = render_stage(picture, turn, chosen, session.can_choose)
        if turn is not None and turn.answer is not None and turn.answer.labels:
            stage += f'<div class="ly-below">{button("back", 0, "Back to the objects", kind="ly-small")}</div>'
    notices = "".join(f'<p class="ly-notice">{escape(one)}</p>' for one in picture.notices)
    return f'{render_pictures(session)}<div class="ly-stage-frame">{stage}</div>{notices}'


def render_stage(picture: PagePicture, turn: Turn | None, chosen: Sequence[ChosenObject], can_choose: bool) -> str:
    """Return an image with masks, objects and the boxes of an answer above it.

    Args:
        picture: image.
        turn: turn whose boxes are drawn, or `None`.
        chosen: sequence of the objects that are chosen.
        can_choose: whether objects can be chosen.
    """
    width, height = picture.image.size
    found = picture.objects
    seen = "not refined" if found is None else ", ".join(found.labels) or "no objects"
    answered = "" if turn is None else render_answer_boxes(turn)
    masks = "" if picture.masks is None else f'<img class="ly-masks" src="{picture.masks}" alt="">'
    objects = "" if found is None else render_objects(found, {one.index for one in chosen}, can_choose)
    place = f"aspect-ratio:{width}/{height};--ly-ratio:{width / height:.4f}"
    name, described = escape(f"{picture.name} with objects"), escape(f"{picture.name}: {seen}")
    return (
        f'<div class="ly-stage{" ly-answered" if answered else ""}" role="group" aria-label="{name}" style="{place}">'
        f'<img class="ly-picture" src="{picture.shown}" alt="{described}">{masks}{objects}{answered}</div>'
    )


def render_objects(objects: VisualObjects, chosen: set[int], can_choose: bool) -> str:
    """Return a button at the place of each object.

    Args:
        objects: objects of the image.
        chosen: numbers of the objects that are chosen.
        can_choose: whether objects can be chosen.
    """
    colors = color_labels(objects.labels)
    parts = []
    for index, (label, score, box) in enumerate(zip(objects.labels, objects.scores, objects.boxes, strict=True)):
        inside = " ly-inside" if float(box[1]) < 0.06 else ""
        words = f'<b class="ly-label">{escape(label)}</b><i class="ly-score">{float(score):.2f}</i>'
        plate = f'<span class="ly-plate{inside}">{words}</span>'
        kind = "ly-object ly-chosen" if index in chosen else "ly-object"
        extra = (
            f' style="{place_style(box)};{color_style(colors[label])}" aria-pressed="{str(index in chosen).lower()}"'
        )
        spoken = f"Ask about {label}, score {float(score):.2f}"
        extra += "" if can_choose else " disabled"
        parts.append(button("object", index, plate, label=spoken, kind=kind, extra=extra))
    return "".join(parts)


def render_answer_boxes(turn: Turn) -> str:
    """Return the boxes of an answer, in the colors of its text, as far as it is written."""
    parts = []
    for number, found in enumerate(parse_spatial_text(turn.text).objects):
        style = f"{place_style(found.box)};{color_style(PALETTE[number % len(PALETTE)])}"
        inside = " ly-inside" if found.box[1] < 0.06 else ""
        plate = f'<span class="ly-plate{inside}"><b>{escape(found.label or "answer")}</b></span>'
        parts.append(f'<span class="ly-found" data-found="{number}" style="{style}" aria-hidden="true">{plate}</span>')
    return "".join(parts)


def render_reasons(reasons: Reasons, picture: PagePicture) -> str:
    """Return an image in which stands out what an answer looked at, with the weights as bars."""
    largest = max([weight for _, weight in reasons.weights], default=0) or 1
    rows = "".join(
        f'<li><span>{escape(label)}</span><meter min="0" max="{largest:.4f}" value="{weight:.4f}"></meter>'
        f"<span>{weight:.2f}</span></li>"
        for label, weight in reasons.weights
    )
    first = "; ".join(f"{label} {weight:.2f}" for label, weight in reasons.weights[:5])
    described = f"{picture.name}, bright where the answer looked: {first}"
    return (
        f'<div class="ly-reasons"><img src="{reasons.shown}" alt="{escape(described)}">'
        f"<h2>What the answer looked at</h2><ol>{rows}</ol>"
        f"{button('back', 0, 'Back to the objects', kind='ly-small')}</div>"
    )


def render_pictures(session: PageSession) -> str:
    """Return a row of small images, where there are several."""
    if len(session.pictures) < 2:
        return ""
    items = []
    for number, one in enumerate(session.pictures):
        current = ' aria-current="true"' if number == session.view.picture else ""
        small = f'<img src="{one.thumbnail}" alt="">'
        spoken = f"Show image {number + 1}, {one.name}"
        items.append(f"<li>{button('picture', number, small, label=spoken, kind='ly-thumb', extra=current)}</li>")
    return f'<ul class="ly-pictures" aria-label="Images">{"".join(items)}</ul>'


# ---------------------------------------------------------------- the conversation


def render_conversation(session: PageSession, is_writing: bool = False) -> str:
    """Return all questions and answers.

    Args:
        session: conversation.
        is_writing: whether the last answer is being written.
    """
    if not session.turns:
        hint = "Ask about the image, or press an object in it to ask about that one."
        start = "Show an image to begin: its objects appear at once."
        return f'<p class="ly-hint">{hint if session.pictures else start}</p>'
    last = len(session.turns) - 1
    parts = [render_turn(session, number, is_writing and number == last) for number in range(len(session.turns))]
    return f'<ol class="ly-turns">{"".join(parts)}</ol>'


def render_turn(session: PageSession, number: int, is_writing: bool) -> str:
    """Return a question with its answer."""
    turn = session.turns[number]
    shown = ""
    for one in turn.pictures:
        picture = session.pictures[one]
        shown += f'<img src="{picture.thumbnail}" alt="{escape(f"Image {one + 1}: {picture.name}")}">'
    chosen = "".join(f' <span class="ly-chip">{escape(one.label)}</span>' for one in turn.chosen)
    cursor = '<span class="ly-cursor" aria-hidden="true"></span>' if is_writing else ""
    current = " ly-current" if number == session.view.turn else ""
    asked = f'<p><span class="ly-hidden">Question: </span>{escape(turn.question)}{chosen}</p>'
    answered = f'<p><span class="ly-hidden">Answer: </span>{render_text(turn.text)}{cursor}</p>'
    tools = "" if turn.answer is None else render_tools(turn.answer, number)
    return f'<li class="ly-question">{shown}{asked}</li><li class="ly-answer{current}">{answered}{tools}</li>'


def render_tools(answer: Answer, number: int) -> str:
    """Return what can be done with an answer, and why it ended early."""
    end = _ENDS.get(answer.finish_reason)
    note = f'<span class="ly-note">{end}</span>' if end else ""
    tools = ""
    if answer.pictures:
        tools += button("answer", number, "In the image", kind="ly-small") if len(answer.labels) else ""
        tools += button("why", number, "Why?", label="Why? Show what the answer looked at", kind="ly-small")
    return f'<div class="ly-tools">{tools}{note}</div>' if tools or note else ""


def render_text(text: str) -> str:
    """Return an answer with its boxes as plates in the colors in which they are drawn."""
    parts, end = [], 0
    for number, found in enumerate(parse_spatial_text(text).objects):
        start, stop = found.span
        before = text[end:start]
        head = before.rstrip(" ").removesuffix(":").rstrip(" ")
        label = found.label if found.label and head.endswith(found.label) else ""
        head = head.removesuffix(label) if label else before
        style = color_style(PALETTE[number % len(PALETTE)])
        name = f"<b>{escape(label)}</b> " if label else ""
        inside = f"{name}<small>{escape(text[start:stop])}</small>"
        parts += [escape(head), f'<mark class="ly-box" data-found="{number}" style="{style}">{inside}</mark>']
        end = stop
    return "".join([*parts, escape(text[end:])])


# ---------------------------------------------------------------- the next question


def list_suggestions(session: PageSession) -> list[str]:
    """Return questions to try next."""
    if session.chosen:
        return [DEFAULT_QUESTION]
    asked = {turn.question for turn in session.turns}
    return [one for one in session.suggestions if one not in asked]


def render_chosen(session: PageSession) -> str:
    """Return the objects that go into the next question, and questions to try."""
    chips = "".join(
        button("object", one.index, f"{escape(one.label)} ✕", label=f"Do not ask about {one.label}", kind="ly-chip")
        for one in session.chosen
    )
    tries = "".join(
        button("suggestion", number, escape(question), label=f"Ask: {question}", kind="ly-small")
        for number, question in enumerate(list_suggestions(session))
    )
    about = f'<span class="ly-about">About</span>{chips}' if chips else ""
    return f'<div class="ly-next">{about}{tries}</div>' if about or tries else ""


def describe_status(session: PageSession) -> str:
    """Return what a screen reader is told of the last change."""
    if session.view.reasons is not None:
        return "Shown: what the answer looked at."
    if session.turns and session.view.turn == len(session.turns) - 1 and session.turns[-1].answer is not None:
        return f"Answer: {session.turns[-1].answer.plain_text or session.turns[-1].text}"
    picture = session.shown
    if picture is None:
        return "A new conversation."
    if picture.objects is None:
        return f"{picture.name} is shown."
    labels = ", ".join(picture.objects.labels)
    return f"{picture.name} is shown, with {len(picture.objects)} objects: {labels}."

"""A conversation of the page as a Python program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .page_picture import USUAL_SETTINGS, RefinerSettings


@dataclass(frozen=True)
class Step:
    """Something that was done in a conversation.

    Attributes:
        kind: `"picture"` was added, `"refine"` was asked for, or a question was asked (`"ask"`).
        picture: number of the image that was added or refined.
        settings: settings by which it was refined.
        question: text of the question.
        boxes: tuple of the boxes in it, xyxy in pixels.
    """

    kind: Literal["picture", "refine", "ask"]
    picture: int = 0
    settings: RefinerSettings = USUAL_SETTINGS
    question: str = ""
    boxes: tuple[tuple[float, ...], ...] = ()


def write_code(model: str | None, options: Mapping[str, Any], names: Sequence[str], steps: Sequence[Step]) -> str:
    """Return a program that repeats a conversation.

    Args:
        model: folder or Hub id of the model, or `None` for the micro model.
        options: options of the answers.
        names: file name of each image. Whatever a name holds, it is a string in the program.
        steps: steps of the conversation.
    """
    chosen = ", ".join(f"{name}={value!r}" for name, value in options.items())
    lines = [
        "from lyrics import Lyrics",
        "",
        f"assistant = Lyrics.from_pretrained({'' if model is None else repr(model)})",
        f"chat = assistant.chat({chosen})",
    ]
    for step in steps:
        name = repr(names[step.picture]) if names else ""
        if step.kind == "picture":
            lines.append(f"chat.add_image({name})")
        elif step.kind == "refine":
            arguments = "".join(f", {key}={value!r}" for key, value in step.settings.arguments().items())
            lines.append(f"chat.objects[{step.picture}] = assistant.see({name}{arguments})")
        else:
            boxes = f", boxes={[list(box) for box in step.boxes]!r}" if step.boxes else ""
            lines.append(f"print(chat.ask({step.question!r}{boxes}))")
    return "\n".join(lines) + "\n"

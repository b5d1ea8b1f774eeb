"""The conversation of one browser: its images, its questions, and what is shown of them. It knows no Gradio."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..answer import Answer
from ..answer_stream import AnswerStream
from ..assistant import Lyrics
from ..generation_options import GenerationOptions
from ..refined_pictures import MAX_REGIONS, MAX_TAG_CHARACTERS, MAX_TAGS, THRESHOLDS
from .page_picture import USUAL_SETTINGS, PagePicture, RefinerSettings, encode_picture, shrink
from .python_code import Step, write_code

MAX_PICTURES = 8
MAX_QUESTION = 2_000  # characters
MAX_BOXES = 8  # of a question
MAX_TURNS = 50
DEFAULT_QUESTION = "What is this?"


@dataclass(frozen=True)
class ChosenObject:
    """An object of the last image that goes into the next question.

    Attributes:
        index: number of the object.
        label: its label.
        box: xyxy in pixels.
    """

    index: int
    label: str
    box: tuple[float, float, float, float]


@dataclass(eq=False)
class Turn:
    """A question and its answer.

    Attributes:
        question: text of the question.
        chosen: tuple of the objects in it.
        pictures: list of the numbers of the images that the question shows for the first time.
        picture: number of the image that the answer is about, or `None`.
        text: answer, as far as it is written.
        answer: answer when it is complete.
    """

    question: str
    chosen: tuple[ChosenObject, ...]
    pictures: list[int]
    picture: int | None
    text: str = ""
    answer: Answer | None = None


@dataclass(frozen=True)
class Reasons:
    """What an answer looked at.

    Attributes:
        shown: data URL of the image, bright where the answer looked at.
        weights: list of the label and the weight of each object, the largest first.
    """

    shown: str
    weights: list[tuple[str, float]]


@dataclass
class View:
    """What is shown of the images.

    Attributes:
        picture: number of the image, or `None` while there is none.
        turn: number of the turn whose boxes are drawn, or `None`.
        reasons: what the answer of that turn looked at, if it is shown.
    """

    picture: int | None = None
    turn: int | None = None
    reasons: Reasons | None = field(default=None, repr=False)


class PageSession:
    """A conversation with everything that one browser shows of it.

    Several threads may call it. While an answer is written, calls that change the conversation wait for its end.

    Args:
        assistant: `Lyrics`.
        model: folder or Hub id of the model for code that repeats the conversation, or `None` for the micro model.
        options: fields of `GenerationOptions`, for all answers.

    Attributes:
        pictures: list of the images.
        turns: list of the turns.
        chosen: list of the objects that go into the next question.
        suggestions: tuple of questions to try with the last image.
        view: what is shown.
    """

    def __init__(self, assistant: Lyrics, model: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        self.assistant = assistant
        self.model = model
        usual = GenerationOptions()
        self.options = {name: value for name, value in (options or {}).items() if value != getattr(usual, name)}
        self.pictures: list[PagePicture] = []
        self.turns: list[Turn] = []
        self.chosen: list[ChosenObject] = []
        self.suggestions: tuple[str, ...] = ()
        self.view = View()
        self._chat = assistant.chat(**self.options)
        self._steps: list[Step] = []
        self._stream: AnswerStream | None = None
        self._lock = threading.Lock()

    # ---------------------------------------------------------------- images

    def add_picture(self, file: bytes, name: str, questions: Sequence[str] = ()) -> None:
        """Show an image with the next question.

        Args:
            file: bytes of an image file.
            name: name of the file.
            questions: sequence of questions to suggest.

        Raises:
            ValueError: it cannot be read, is too large, or there are too many.
        """
        self._check_room()
        picture = PagePicture.load(file, name).refine(self.assistant, USUAL_SETTINGS)
        with self._lock:
            self._check_room()  # again, since another image may have come meanwhile
            self._chat.add_image(picture.image, picture.objects)
            self.pictures.append(picture)
            self._steps.append(Step("picture", picture=len(self.pictures) - 1))
            self.suggestions = tuple(questions)
            self.chosen.clear()
            self.view = View(len(self.pictures) - 1)

    def _check_room(self) -> None:
        if len(self.pictures) >= MAX_PICTURES:
            raise ValueError(f"A conversation has at most {MAX_PICTURES} images: begin a new one.")

    def refine(self, settings: RefinerSettings) -> None:
        """Refine the last image again, with other settings.

        Args:
            settings: settings that differ from the model's.

        Raises:
            ValueError: there is no image, or a setting is out of its range.
        """
        with self._lock:
            if not self.pictures:
                raise ValueError("There is no image yet.")
            index, before = len(self.pictures) - 1, self.pictures[-1]
        picture = before.refine(self.assistant, settings)
        with self._lock:
            if index >= len(self.pictures) or self.pictures[index] is not before:
                return  # the conversation was begun anew, or the image refined, meanwhile
            _ = self._chat.messages  # waits for an answer that is being written about the objects of before
            self._chat.objects[index] = picture.objects
            self.pictures[index] = picture
            self._steps.append(Step("refine", picture=index, settings=settings))
            self.chosen.clear()
            self.view = View(index)

    def show(self, picture: int) -> None:
        """Show an image of the conversation.

        Raises:
            ValueError: there is no such image.
        """
        if not 0 <= picture < len(self.pictures):
            raise ValueError("There is no such image.")
        self.view = View(picture)

    @property
    def shown(self) -> PagePicture | None:
        """The image that is shown."""
        return None if self.view.picture is None else self.pictures[self.view.picture]

    @property
    def can_choose(self) -> bool:
        """Whether objects of the shown image can go into a question: those of the last image can."""
        return self.view.picture is not None and self.view.picture == len(self.pictures) - 1

    # ---------------------------------------------------------------- questions

    def choose(self, index: int) -> None:
        """Put an object of the shown image into the next question, or take it out again.

        Raises:
            ValueError: there is no such object, it is not in the last image, or there are too many.
        """
        picture = self.shown
        if picture is None or picture.objects is None or not 0 <= index < len(picture.objects):
            raise ValueError("There is no such object.")
        if not self.can_choose:
            raise ValueError("A question is about the last image: show that one to choose an object.")
        if any(one.index == index for one in self.chosen):
            self.chosen = [one for one in self.chosen if one.index != index]
            return
        if len(self.chosen) >= MAX_BOXES:
            raise ValueError(f"A question names at most {MAX_BOXES} objects.")
        width, height = picture.image.size
        x1, y1, x2, y2 = (min(max(float(value), 0.0), 1.0) for value in picture.objects.boxes[index])
        box = (round(x1 * width, 1), round(y1 * height, 1), round(x2 * width, 1), round(y2 * height, 1))
        self.chosen.append(ChosenObject(index, picture.objects.labels[index], box))

    def ask(self, question: str) -> Iterator[Turn]:
        """Ask about the last image, and yield the turn each time that more of its answer is written.

        Raises:
            ValueError: the question cannot be answered; the conversation stays as it was.
        """
        question = question.strip() or (DEFAULT_QUESTION if self.chosen else "")
        if len(question) > MAX_QUESTION:
            raise ValueError(f"The question has {len(question):,} characters, and the limit is {MAX_QUESTION:,}.")
        if len(self.turns) >= MAX_TURNS:
            raise ValueError(f"A conversation has at most {MAX_TURNS} questions: begin a new one.")
        with self._lock:
            boxes = [one.box for one in self.chosen]
            stream = self._chat.stream(question, boxes=boxes)
            turn = Turn(question, tuple(self.chosen), self._new_pictures(), len(self.pictures) - 1)
            turn.picture = None if not self.pictures else turn.picture
            self._stream = stream
            self.turns.append(turn)
            self.chosen = []
            self.view = View(turn.picture, len(self.turns) - 1)
        try:
            yield turn
            for piece in stream:
                turn.text += piece
                yield turn
        except Exception:  # of any kind, such as too little memory: `Chat` has forgotten the question
            with self._lock:
                self._forget(turn)
            raise
        finally:
            stream.cancel()  # has no effect on a finished answer
        with self._lock:
            answer = stream.result()
            if turn not in self.turns:
                return  # the conversation was begun anew meanwhile
            if not answer.text and answer.finish_reason not in ("stop", "length"):
                self._forget(turn)  # as `Chat` does
            else:
                turn.answer, turn.text = answer, answer.text
                self._steps.append(Step("ask", question=question, boxes=tuple(boxes)))
        yield turn

    def stop(self) -> None:
        """Stop the answer that is being written."""
        if self._stream is not None:
            self._stream.cancel()

    def reset(self) -> None:
        """Forget everything, and stop the answer that is being written."""
        self.stop()
        with self._lock:
            self._chat.reset(keep_pictures=False)
            for kept in (self.pictures, self.turns, self.chosen, self._steps):
                kept.clear()
            self.suggestions, self.view = (), View()

    def _forget(self, turn: Turn) -> None:
        if turn in self.turns:
            self.turns.remove(turn)
            self.chosen = list(turn.chosen)
            self.view = View(self.view.picture)

    def _new_pictures(self) -> list[int]:
        """Return the numbers of the images that no question has shown yet."""
        return list(range(sum(len(turn.pictures) for turn in self.turns), len(self.pictures)))

    # ---------------------------------------------------------------- answers

    def show_answer(self, turn: int) -> None:
        """Show the boxes of an answer in its image.

        Raises:
            ValueError: there is no such answer.
        """
        self._answer_of(turn)
        self.view = View(self.turns[turn].picture, turn)

    def show_reasons(self, turn: int) -> None:
        """Show which objects an answer looked at.

        Raises:
            ValueError: there is no such answer, or no object that it could look at.
        """
        answer = self._answer_of(turn)
        if not answer.pictures:
            raise ValueError("This answer is about no image.")
        shown = encode_picture(shrink(answer.why()))
        weights = answer.attribution().region_weights()[-1].tolist()
        ranked = sorted(zip(answer.objects.labels, weights, strict=False), key=lambda one: -one[1])
        self.view = View(self.turns[turn].picture, turn, Reasons(shown, ranked))

    def _answer_of(self, turn: int) -> Answer:
        answer = self.turns[turn].answer if 0 <= turn < len(self.turns) else None
        if answer is None:
            raise ValueError("There is no such answer yet.")
        return answer

    # ---------------------------------------------------------------- to take along

    def python_code(self) -> str:
        """Return a program that repeats the conversation."""
        return write_code(self.model, self.options, [one.name for one in self.pictures], self._steps)

    def conversation_file(self) -> str:
        """Return the conversation as JSON Lines, which `lyrics sft --train_data` reads, with the images inside.

        Raises:
            ValueError: there is no answer yet.
        """
        with self._lock:
            return f"{json.dumps(self._chat.to_row(), ensure_ascii=False)}\n"

    def objects_file(self) -> str:
        """Return what the refiner saw in each image, as JSON.

        Raises:
            ValueError: there is no image yet.
        """
        if not self.pictures:
            raise ValueError("There is no image yet.")
        described = [
            {
                "picture": one.name,
                "size": list(one.image.size),
                "tags": [] if one.objects is None else list(one.objects.tags),
                "settings": one.settings.arguments(),
                "objects": [] if one.objects is None else one.objects.summary(),
            }
            for one in self.pictures
        ]
        return f"{json.dumps(described, ensure_ascii=False, indent=2)}\n"


def read_settings(defaults: Mapping[str, float], tags: str, thresholds: Mapping[str, Any]) -> RefinerSettings:
    """Return the settings of the page's fields, as far as they differ from the model's.

    Args:
        defaults: thresholds of the model.
        tags: words to look for, separated by commas or line breaks.
        thresholds: values of the fields.

    Raises:
        ValueError: a value is no number in its range, or there are too many tags.
    """
    words = tuple(dict.fromkeys(word for part in tags.split("\n") for one in part.split(",") if (word := one.strip())))
    if len(words) > MAX_TAGS or any(len(word) > MAX_TAG_CHARACTERS for word in words):
        raise ValueError(f"Up to {MAX_TAGS} tags of up to {MAX_TAG_CHARACTERS} characters can be looked for.")
    changed: dict[str, float] = {}
    for name in THRESHOLDS:
        value, default = thresholds.get(name), defaults.get(name)
        if value is None or default is None or value == default:
            continue
        low, high = (1, MAX_REGIONS) if name == "max_regions" else (0, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{name} must lie between {low} and {high}, got {value!r:.100}.")
        changed[name] = int(value) if name == "max_regions" else float(value)
    return RefinerSettings(words, changed)

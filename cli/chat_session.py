"""The lines of a conversation: questions, and commands that begin with a slash."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from .common import describe_objects, on_one_line, printable, require_picture_file
from .status_line import StatusLine

if TYPE_CHECKING:
    from lyrics import Chat, Lyrics

COMMANDS = {
    "/image": ("FILE", "show another image with the next question"),
    "/box": ("x1 y1 x2 y2", "ask about a part of the image, in pixels: the box goes behind the next question"),
    "/objects": ("", "list what the refiner sees in the image"),
    "/why": ("[FILE]", "list the objects that the last answer attended to, or draw them into a file"),
    "/draw": ("FILE", "draw the boxes of the last answer into a file"),
    "/save": ("FILE", "write the conversation as JSON, which `lyrics sft --train_data` reads"),
    "/reset": ("", "forget questions and answers, and keep the images"),
    "/help": ("", "list the commands"),
    "/quit": ("", "end"),
}


class ChatSession:
    """Answers lines until they end.

    Args:
        chat: conversation.
        assistant: `Lyrics`.
        status: line for what takes time.
        font: font file for labels in images, or `None`.
    """

    def __init__(self, chat: Chat, assistant: Lyrics, status: StatusLine, font: Path | None) -> None:
        self.chat = chat
        self.assistant = assistant
        self.status = status
        self.font = font
        self._boxes: list[list[float]] = []
        self._told = set[str]()
        self._saved: set[Path] = set()

    def talk(self, read: Callable[[], str]) -> None:
        """Read and answer lines until the input ends. Mistakes are told, and do not end the conversation."""
        while True:
            try:
                line = read().strip()
                if line == "/quit":
                    return
                if line:
                    self._answer(line)
            except EOFError:
                return
            except KeyboardInterrupt:
                self.status.clear()
                print("\n(Ctrl-D or /quit ends the conversation.)", file=sys.stderr)
            except (ValueError, OSError, TemplateError) as error:  # also a TimeoutError
                self.status.clear()
                print(f"error: {on_one_line(str(error))}", file=sys.stderr)

    def _answer(self, line: str) -> None:
        """Answer a question, or do what a command says."""
        if not line.startswith("/"):
            self._ask(line)
            return
        command, _, rest = line.partition(" ")
        if command not in COMMANDS:
            raise ValueError(f"there is no command {command}: /help lists them. No question begins with a slash.")
        wanted, words = COMMANDS[command][0], rest.strip()
        if bool(words) != bool(wanted) and not wanted.startswith("["):
            raise ValueError(f"{command} takes {wanted or 'nothing'}.")
        getattr(self, f"_{command[1:]}")(words)

    def _ask(self, question: str) -> None:
        """Print the answer as it is written; Ctrl-C stops it, and what was written of it is remembered."""
        self.status.show("Looking ...")
        stream = self.chat.stream(question, boxes=self._boxes)
        self._boxes = []
        is_first = True
        try:
            for piece in filter(None, stream):  # empty while the model reasons
                if is_first:
                    self._begin(stream.notices)
                    is_first = False
                print(printable(piece), end="", flush=True)
        except KeyboardInterrupt:
            self.status.clear()
            print(" [stopped]")
            return
        if is_first:
            self._begin(stream.notices)
        print(flush=True)

    def _begin(self, notices: tuple[str, ...]) -> None:
        """Remove the line of what is done, and print remarks that were not printed yet."""
        self.status.clear()
        for notice in notices:
            if notice not in self._told:
                self._told.add(notice)
                print(f"Note: {printable(notice)}", file=sys.stderr)

    # ---------------------------------------------------------------- commands

    def _image(self, words: str) -> None:
        picture = self.chat.add_image(_path(words))
        print(f"The next question is about this image of {picture.width} x {picture.height} pixels.")
        if self._boxes:
            self._boxes = []
            print("The box was one of the image before, and is dropped.")

    def _box(self, words: str) -> None:
        if not self.chat.pictures:
            raise ValueError("there is no image yet: /image FILE shows one.")
        try:
            box = [float(word) for word in words.replace(",", " ").strip("[] ").split()]
        except ValueError:
            box = []
        width, height = self.chat.pictures[-1].size
        if len(box) != 4 or not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
            raise ValueError(
                f"/box takes four numbers x1 y1 x2 y2, pixels of an image of {width} x {height}, with x1 < x2 and "
                f"y1 < y2, got {words!r}."
            )
        self._boxes.append(box)
        print("The box goes behind the next question.")

    def _objects(self, words: str) -> None:
        if not self.chat.pictures:
            raise ValueError("there is no image yet: /image FILE shows one.")
        self.status.show("Looking ...")
        objects = self.assistant.see(self.chat.pictures[-1])
        self.status.clear()
        print(describe_objects(objects))

    def _why(self, words: str) -> None:
        answer = self._last()
        if words:
            path = self._new_file("/why", words)
            require_picture_file("/why", path, [])
            answer.why(font=self.font).save(path)
            self._saved.add(path.resolve())
            print(on_one_line(f"Image with the objects that the answer attended to: {path}"))
            return
        weights = answer.attribution().region_weights()[-1].tolist()[: len(answer.objects)]
        if not any(weights):
            print("The answer attended to no object.")
        for weight, label in sorted(zip(weights, answer.objects.labels, strict=True), key=lambda pair: -pair[0]):
            print(f"  {weight:.2f}  {printable(label)}")

    def _draw(self, words: str) -> None:
        path = self._new_file("/draw", words)
        answer = self._last()
        require_picture_file("/draw", path, [])
        answer.draw(font=self.font).save(path)
        self._saved.add(path.resolve())
        of = "the answer's boxes, and thin ones of the objects" if len(answer.boxes) else "the objects' boxes"
        print(on_one_line(f"Image with {of}: {path}"))

    def _save(self, words: str) -> None:
        path = self._new_file("/save", words)
        if path.suffix not in (".json", ".jsonl"):
            raise ValueError(f"/save {path}: the name must end in .jsonl or .json, so that it can be read as data.")
        self.chat.save(path)
        self._saved.add(path.resolve())
        print(on_one_line(f"Wrote the conversation: {path}"))

    def _reset(self, words: str) -> None:
        self.chat.reset()
        self._boxes = []
        print("The conversation begins anew." + (" The images stay." if self.chat.pictures else ""))

    def _help(self, words: str) -> None:
        width = max(len(f"{name} {wanted}") for name, (wanted, _) in COMMANDS.items())
        for name, (wanted, text) in COMMANDS.items():
            print(f"  {f'{name} {wanted}':{width}}  {text}")

    def _new_file(self, command: str, words: str) -> Path:
        """Return the path behind a command; it may exist only if this session has written it."""
        path = Path(_path(words))
        if path.exists() and path.resolve() not in self._saved:
            raise ValueError(f"{command} {path}: the file exists, and is not overwritten.")
        return path

    def _last(self) -> Any:
        answer = self.chat.last
        if answer is None:
            raise ValueError("there is no answer yet.")
        if not answer.pictures:
            raise ValueError("the last answer is about no image.")
        return answer


def _path(words: str) -> str:
    """Return the path that is written behind a command, with or without quotation marks."""
    try:
        parts = shlex.split(words) if words[:1] in "'\"" else [words]
    except ValueError as error:
        raise ValueError(f"{words!r}: {error}") from error
    return os.path.expanduser(parts[0]) if len(parts) == 1 else words

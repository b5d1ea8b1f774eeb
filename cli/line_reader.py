"""Reading of lines for `lyrics chat`: with history and completion where prompt_toolkit is installed, else plain."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

PROMPT = "> "


def make_reader(commands: Sequence[str]) -> Callable[[], str]:
    """Return a function that reads the next line; it raises `EOFError` at the end, and `KeyboardInterrupt`.

    History is kept in memory alone.

    Args:
        commands: words that are completed at the beginning of a line; file names are completed behind them.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _read_pipe
    from lyrics.utils.optional_imports import import_optional

    try:
        toolkit, completion = import_optional("prompt_toolkit"), import_optional("prompt_toolkit.completion")
    except ImportError:
        return _read_terminal
    session = toolkit.PromptSession(completer=_make_completer(completion, commands))
    return lambda: session.prompt(PROMPT)


def _read_pipe() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def _read_terminal() -> str:
    with suppress(ImportError):  # on Windows
        importlib.import_module("readline")  # `input` then has history and keys for editing
    return input(PROMPT)


def _make_completer(completion: Any, commands: Sequence[str]) -> Any:
    """Return a completer of commands, and of file names behind them."""
    paths = completion.PathCompleter(expanduser=True)

    class FileNames(completion.Completer):
        """Completes what follows a command and a space as a path."""

        def get_completions(self, document: Any, complete_event: Any) -> Iterator[Any]:
            """Yield the completions of the text before the cursor."""
            command, space, path = document.text_before_cursor.partition(" ")
            if space and command in commands:
                yield from paths.get_completions(type(document)(path, len(path)), complete_event)

    return completion.merge_completers([completion.WordCompleter(list(commands), sentence=True), FileNames()])

"""Streaming of large JSON files: elements of a list and members of an object, one at a time.

The decoder of the standard library reads one value at a time from a sliding window of the file. It is several times
faster than an event parser, needs no further library, and holds one value in memory. A value is read whole, so that
the window grows to the largest one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import IO, Any

CHUNK = 1 << 16  # characters
LARGEST_VALUE = 1 << 28  # characters of one element
_MARGIN = 16  # characters from the end of the window: an error there may be a value that is cut
_CUT_STRING = "Unterminated string"
_ENDS = "and the file ends there: download it again"


class JSONStreamError(ValueError):
    """A file is no JSON, or not of the expected shape; the message names file and place."""


class JSONStream:
    """Reader of one JSON file from its start.

    Args:
        file: text file, open for reading.
        name: str, name of the file in messages.
        chunk: int, characters to read at a time.
    """

    def __init__(self, file: IO[str], name: str, chunk: int = CHUNK) -> None:
        self.name = name
        self._file, self._chunk = file, chunk
        self._text, self._place, self._before = "", 0, 0
        self._at_end = False
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """Return the next character that is no white space, without reading it; an empty string at the end."""
        while True:
            while self._place < len(self._text):
                character = self._text[self._place]
                if character not in " \t\r\n":
                    return character
                self._place += 1
            if not self._fill():
                return ""

    def value(self) -> Any:
        """Read one value.

        Raises:
            JSONStreamError: when there is no whole value.
        """
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                may_be_cut = error.pos >= len(self._text) - _MARGIN or error.msg.startswith(_CUT_STRING)
                if not may_be_cut:
                    raise self._error(error.msg, error.pos) from error
                if not self._fill(double=True):
                    raise self._error(f"{error.msg.removesuffix(' starting at')}, {_ENDS}", error.pos) from error
            except RecursionError as error:
                raise self._error("a value is nested too deeply", self._place) from error
            except ValueError as error:  # a number of thousands of digits
                raise self._error(str(error).partition(";")[0], self._place) from error
            else:
                if not self._may_be_cut(end) or not self._fill():
                    self._place = end
                    return value

    def require(self, start: str) -> None:
        """Check that the file starts with a list (`[`) or an object (`{`).

        Raises:
            JSONStreamError: when it does not.
        """
        found = self.peek()
        if found != start:
            what = "a list" if start == "[" else "an object"
            starts = f"it starts with {found}" if found else "the file is empty"
            raise JSONStreamError(f"{self.name} cannot be read: {what} was expected, and {starts}.")

    def elements(self) -> Iterator[Any]:
        """Yield the elements of a list."""
        self._expect("[")
        if self.peek() == "]":
            self._expect("]")
            return
        while True:
            yield self.value()
            if self._expect(",", "]") == "]":
                return

    def keys(self) -> Iterator[str]:
        """Yield the keys of an object; the caller reads or skips the value of each before it asks for the next."""
        self._expect("{")
        if self.peek() == "}":
            self._expect("}")
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise self._error("a key is no string", self._place)
            self._expect(":")
            yield key
            if self._expect(",", "}") == "}":
                return

    def skip(self) -> None:
        """Skip a value; the elements of a list and the members of an object are dropped one by one."""
        start = self.peek()
        if start == "[":
            for _ in self.elements():
                pass
        elif start == "{":
            for _ in self.keys():
                self.value()
        else:
            self.value()

    def finish(self) -> None:
        """Check that nothing follows.

        Raises:
            JSONStreamError: when something does.
        """
        if self.peek():
            raise self._error("something follows the end", self._place)

    def _expect(self, *characters: str) -> str:
        found = self.peek()
        if not found:
            raise self._error(f"expected {' or '.join(characters)}, {_ENDS}", self._place)
        if found not in characters:
            raise self._error(f"expected {' or '.join(characters)}, found {found}", self._place)
        self._place += 1
        return found

    def _may_be_cut(self, end: int) -> bool:
        """Return whether a value that ends here may be the first part of a number, such as 0 of 0.5."""
        if end == len(self._text):
            return True
        return end >= len(self._text) - _MARGIN and self._text[end] in ".eE+-0123456789"

    def _fill(self, double: bool = False) -> bool:
        """Read on, twice as much as is held if `double`; return whether there was anything."""
        if self._at_end:
            return False
        self._before += self._place
        self._text, self._place = self._text[self._place :], 0
        if len(self._text) > LARGEST_VALUE:
            raise self._error(f"a value has more than {LARGEST_VALUE:,} characters", 0)
        try:
            read = self._file.read(max(self._chunk, len(self._text) if double else 0))
        except UnicodeDecodeError as error:
            raise self._error(f"the file is not UTF-8: {error.reason}", len(self._text)) from error
        self._text += read
        self._at_end = not read
        return not self._at_end

    def _error(self, message: str, place: int) -> JSONStreamError:
        return JSONStreamError(f"{self.name} cannot be read: at character {self._before + place:,}: {message}.")


def stream_elements(path: str | os.PathLike, key: str | None = None, chunk: int = CHUNK) -> Iterator[Any]:
    """Yield the elements of a file's list, or of the list under a key of its object.

    Raises:
        JSONStreamError: naming file and place, when it is no JSON, or has no such list.
    """
    with open(path, encoding="utf-8-sig") as file:
        stream = JSONStream(file, os.fspath(path), chunk)
        stream.require("[" if key is None else "{")
        if key is None:
            yield from stream.elements()
        elif not (yield from _elements_under(stream, key)):
            raise JSONStreamError(f"{path} has no list {key!r}.")
        stream.finish()


def _elements_under(stream: JSONStream, key: str) -> Iterator[Any]:
    """Yield the elements of `key`, and return whether it was there."""
    found = False
    for name in stream.keys():  # noqa: SIM118  (no dictionary)
        if name == key and stream.peek() == "[":
            found = True
            yield from stream.elements()
        else:
            stream.skip()
    return found


def stream_members(path: str | os.PathLike, key: str | None = None, chunk: int = CHUNK) -> Iterator[tuple[str, Any]]:
    """Yield key and value of each member of a file's object, or of the object under one of its keys.

    Raises:
        JSONStreamError: naming file and place, when it is no JSON object.
    """
    with open(path, encoding="utf-8-sig") as file:
        stream = JSONStream(file, os.fspath(path), chunk)
        stream.require("{")
        for name in stream.keys():  # noqa: SIM118  (no dictionary)
            if key is None:
                yield name, stream.value()
            elif name == key:
                for inner in stream.keys():  # noqa: SIM118  (no dictionary)
                    yield inner, stream.value()
            else:
                stream.skip()
        stream.finish()


def stream_lines(path: str | os.PathLike) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each line of a JSON Lines file; a line that is no JSON is yielded as its error."""
    with open(path, encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _value_of(line)
        except UnicodeDecodeError as error:
            raise JSONStreamError(f"{path} cannot be read: it is not UTF-8: {error.reason}.") from error


def _value_of(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return JSONStreamError(f"no JSON: {error}")

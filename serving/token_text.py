"""Text of tokens as they arrive, up to a stop string, without white space around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..processing_lyrics.reasoning import ReasoningSplitter

_INCOMPLETE = "\ufffd"  # the decoder's mark of bytes that are no character yet
_LONGEST_CHARACTER = 8  # tokens of one byte that may be held back for a character


class TokenText:
    """Turns the tokens of an answer into pieces of its text, which joined are the whole.

    Spaces before the answer are left out. Spaces at its end are held back, and so is the beginning of a stop string,
    until it is known what follows.

    Args:
        decode: function from token ids to text without special tokens.
        stop: sequence of strings that end the text.
        splitter: holds back what comes before the answer, or `None`.

    Attributes:
        token_ids: list of the tokens so far.
        stopped: whether a stop string was found; further tokens add nothing.
    """

    def __init__(
        self, decode: Callable[[list[int]], str], stop: Sequence[str] = (), splitter: ReasoningSplitter | None = None
    ) -> None:
        self.token_ids: list[int] = []
        self.stopped = False
        self._decode = decode
        self._stop = tuple(stop)
        self._splitter = splitter
        self._start = self._read = 0  # tokens from `_start` to `_read` are decoded again, beside the new ones
        self._text, self._sent = "", 0

    @property
    def text(self) -> str:
        """The text so far, as far as it was returned in pieces."""
        return self._text[: self._sent]

    @property
    def waits(self) -> bool:
        """Whether the model still reasons, so that the text has not begun."""
        return self._splitter is not None and self._splitter.waits

    @property
    def reasoning(self) -> str:
        """What the model wrote before the answer, once it has begun."""
        return "" if self._splitter is None else self._splitter.reasoning

    def add(self, token_id: int) -> str:
        """Take a token, and return the next piece of text, which is often empty."""
        self.token_ids.append(token_id)
        return "" if self.stopped else self._send(self._decode_new(is_last=False), is_last=False)

    def finish(self) -> str:
        """Return what was held back."""
        return "" if self.stopped else self._send(self._decode_new(is_last=True), is_last=True)

    def _decode_new(self, is_last: bool) -> str:
        """Return the text of the tokens that were not read yet.

        A token is decoded beside those before it, since a decoder treats the beginning of a text in another way.
        """
        before = self._decode(self.token_ids[self._start : self._read])
        now = self._decode(self.token_ids[self._start :])
        held = len(self.token_ids) - self._read
        if not is_last and now.endswith(_INCOMPLETE) and held < _LONGEST_CHARACTER:
            return ""
        if len(now) <= len(before):
            return ""
        self._start, self._read = self._read, len(self.token_ids)
        return now[len(before) :]

    def _send(self, new: str, is_last: bool) -> str:
        """Add new text, and return what of it may be shown."""
        if self._splitter is not None:
            new = self._splitter.split(new, is_last)
        searched = max(0, len(self._text) - max(map(len, self._stop), default=0))
        self._text = (self._text + new) if self._text else new.lstrip()
        found = [place for one in self._stop if (place := self._text.find(one, searched)) >= 0]
        end = min(found, default=len(self._text))
        if found:
            self.stopped, is_last = True, True
        elif not is_last:
            end -= self._length_of_beginning()
        end = max(self._sent, len(self._text[:end].rstrip()))
        piece, self._sent = self._text[self._sent : end], end
        return piece

    def _length_of_beginning(self) -> int:
        """Return the number of characters at the end of the text that may become a stop string."""
        longest = min(max(map(len, self._stop), default=0), len(self._text))
        endings = range(longest, 0, -1)
        return next((size for size in endings if any(one.startswith(self._text[-size:]) for one in self._stop)), 0)

"""One line on the terminal about what is being done, which disappears when there is something to read."""

from __future__ import annotations

import sys


class StatusLine:
    """Shows what takes time, where standard error is a terminal."""

    def __init__(self) -> None:
        self._length = 0
        self._is_shown = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """Show a text in place of the last one."""
        if self._is_shown:
            self.clear()
            sys.stderr.write(text)
            sys.stderr.flush()
            self._length = len(text)

    def clear(self) -> None:
        """Remove the text."""
        if self._length:
            sys.stderr.write(f"\r{' ' * self._length}\r")
            sys.stderr.flush()
            self._length = 0

"""The two Java programs of pycocoevalcap: the Penn Treebank tokenizer and METEOR 1.5.

They are started here rather than by pycocoevalcap, which writes into its own folder, takes other line breaks than "\\n"
for parts of a caption, and ends METEOR only when Python collects its object.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lyrics.utils.optional_imports import import_optional

_UTF8 = ("-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8")
_PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
_SEPARATOR = "|||"  # METEOR's, between the fields of a line


def tokenize_captions(captions: Sequence[str]) -> list[str]:
    """Return captions lowercased, tokenized as in the Penn Treebank, without punctuation, joined by spaces.

    Raises:
        ImportError: pycocoevalcap is not installed.
        RuntimeError: Java is not installed, or failed.
    """
    if not captions:
        return []
    jar = _package_folder() / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    options = ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    text = "\n".join(_on_one_line(caption) for caption in captions) + "\n"
    process = subprocess.run(  # noqa: S603  (a program of a package, with our arguments)
        [_find_java(), *_UTF8, "-cp", str(jar), *options],
        input=text.encode("utf-8", "replace"),
        capture_output=True,
        check=False,
    )
    lines = process.stdout.decode("utf-8", "replace").split("\n")[:-1]
    if process.returncode or len(lines) != len(captions):
        raise RuntimeError(
            f"The tokenizer of captions returned {len(lines)} lines for {len(captions)} captions, and the exit code "
            f"{process.returncode}. Java said: {_last_line(process.stderr)}"
        )
    return [" ".join(word for word in line.split() if word not in _PUNCTUATION) for line in lines]


class Meteor:
    """METEOR 1.5 as a process, which ends with the `with` block.

    Raises:
        ImportError: pycocoevalcap is not installed.
        RuntimeError: Java is not installed, or failed.
    """

    def __enter__(self) -> Meteor:
        folder = _package_folder() / "meteor"
        self._errors = tempfile.TemporaryFile()
        self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603  (a program of a package)
            [_find_java(), "-Xmx2G", *_UTF8, "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # its other end may be gone
                    pipe.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def count_matches(self, candidate: str, references: Sequence[str]) -> str:
        """Return the statistics of a tokenized caption as METEOR writes them, 23 numbers."""
        fields = [" ".join(text.replace(_SEPARATOR, " ").split()) for text in (*references, candidate)]
        self._write(f" {_SEPARATOR} ".join(["SCORE", *fields]))
        return self._read()

    def evaluate(self, statistics: Sequence[str]) -> tuple[float, list[float]]:
        """Return the score of all captions together, and that of each, from their statistics."""
        self._write(f" {_SEPARATOR} ".join(["EVAL", *statistics]))
        samples = [float(self._read()) for _ in statistics]
        return float(self._read()), samples

    def _write(self, line: str) -> None:
        """Send a line to the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode("utf-8", "replace"))
            self._process.stdin.flush()
        except OSError as error:
            raise self._failure() from error

    def _read(self) -> str:
        """Return the next line of the process."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        return line.decode().strip()

    def _failure(self) -> RuntimeError:
        """Return the error for a process that ended."""
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        return RuntimeError(f"METEOR stopped. Java said: {_last_line(self._errors.read())}")


def _package_folder() -> Path:
    """Return the folder of pycocoevalcap."""
    return Path(next(iter(import_optional("pycocoevalcap").__path__)))


def _find_java() -> str:
    """Return the path of Java."""
    java = shutil.which("java")
    if java is None:
        raise RuntimeError(
            "The tokenizer of captions and METEOR need Java, and `java` is not on the PATH. Install a Java runtime "
            "(17 is tried), or score without them: score_captions(..., tokenize=your_function, meteor=False)."
        )
    return java


def _on_one_line(text: str) -> str:
    """Return a caption with single spaces for white space, which holds line breaks that Java sees and "\\n" is not."""
    return " ".join(text.replace("\x00", " ").split())


def _last_line(output: bytes) -> str:
    """Return the last line that a process wrote."""
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "nothing"

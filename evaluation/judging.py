"""Judging of long answers: another model rates the reference and the answer, in both orders, and is asked once."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..datasets_lyrics.catalog.json_stream import stream_lines
from ..utils.atomic_files import naming_disk_errors
from .metrics.llava_bench import judge_prompt, parse_scores
from .samples import Outcome
from .tasks import TaskData

_TIMEOUT = 300  # seconds for one review
_LONGEST_REVIEW = 16_000_000  # bytes of a reply
_JUDGMENTS = "judgments.jsonl"


class Judge(Protocol):
    """Function from a text to a review, with a name that results show."""

    @property
    def name(self) -> str:
        """Name and version of the judge."""
        ...

    def __call__(self, text: str) -> str:
        """Return the review."""
        ...


@dataclass(frozen=True)
class FunctionJudge:
    """A Python function as a judge.

    Attributes:
        name: str, name that results show.
        review: function from a text to a review.
    """

    name: str
    review: Callable[[str], str]

    def __call__(self, text: str) -> str:
        """Return the review."""
        return self.review(text)


@dataclass(frozen=True)
class ServerJudge:
    """A server with OpenAI's interface as a judge.

    Attributes:
        url: str, base URL, such as `http://127.0.0.1:8000/v1`.
        name: str, model that the server is asked for.
        key: str, API key, or empty.
    """

    url: str
    name: str
    key: str = ""

    def __post_init__(self) -> None:
        """Check the URL."""
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"The judge's URL must begin with http:// or https://, got {self.url!r}.")
        if not self.name:
            raise ValueError("The judge needs the name of its model, which is a part of every result (--judge-model).")

    def __call__(self, text: str) -> str:
        """Return the review.

        Raises:
            ValueError: the server refuses, or its reply is none of OpenAI's form; the message has its words.
            OSError: it cannot be reached.
        """
        body = {"model": self.name, "messages": [{"role": "user", "content": text}], "temperature": 0}
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        place = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(place, json.dumps(body).encode(), headers)  # noqa: S310  (checked above)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as reply:  # noqa: S310
                content = json.loads(reply.read(_LONGEST_REVIEW))
            review = content["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"The judge at {place} refuses ({error.code}): {error.read(500)!r}.") from error
        except urllib.error.URLError as error:
            raise OSError(f"The judge at {place} cannot be reached: {error.reason}.") from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"The judge at {place} replied in no form of OpenAI's: {error!r}.") from error
        if not isinstance(review, str):
            raise ValueError(f"The judge at {place} replied without a text: {review!r:.80}.")
        return review


def judge_outcomes(
    data: TaskData,
    outcomes: Sequence[Outcome],
    judge: Judge,
    folder: Path,
    progress: Callable[[], object] = lambda: None,
) -> list[Outcome]:
    """Return outcomes with the mean scores of both orders; those whose reviews cannot be read stay without a score.

    Reviews are kept in the folder, so that a resumed run asks for none twice. A review of another answer, or by another
    judge, is asked for again.

    Args:
        data: samples of the unit.
        outcomes: sequence of outcomes with answers.
        judge: judge.
        folder: folder of the unit.
        progress: function that is called for each review.
    """
    contexts = _read_contexts(data)
    path = folder / _JUDGMENTS
    known = _read_reviews(path)
    judged = []
    with naming_disk_errors(path), open(path, "a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        for one in outcomes:
            if one.response.error is not None:
                judged.append(one)
                continue
            pairs = []
            for swapped in (False, True):
                text = judge_prompt(
                    contexts.get(one.sample.images[0].rpartition("/")[2], ""),
                    one.sample.question,
                    one.sample.answers[0],
                    one.response.answer,
                    swapped=swapped,
                )
                key = (judge.name, text)
                if key not in known:
                    known[key] = judge(text)
                    line = {"id": one.sample.id, "judge": judge.name, "swapped": swapped, "text": text}
                    file.write(json.dumps(line | {"review": known[key]}).encode() + b"\n")
                    file.flush()
                pairs.append(parse_scores(known[key], swapped=swapped))
                progress()
            judged.append(_with_scores(one, pairs))
        os.fsync(file.fileno())
    return judged


def _with_scores(outcome: Outcome, pairs: Sequence[Any]) -> Outcome:
    """Return an outcome with the means over the orders whose reviews could be read."""
    read = [pair for pair in pairs if pair is not None]
    if not read:
        return replace(outcome, is_parseable=False)
    reference = sum(pair.reference for pair in read) / len(read)
    candidate = sum(pair.candidate for pair in read) / len(read)
    return replace(outcome, judged=(reference, candidate), score=candidate / 10)


def _read_reviews(path: Path) -> dict[tuple[str, str], str]:
    """Return the reviews of earlier runs by judge and text; a line that a killed run has cut is left out."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return {}
    rows: list[Mapping[str, str]] = [json.loads(line) for line in lines]
    return {(row["judge"], row["text"]): row["review"] for row in rows}


def _read_contexts(data: TaskData) -> dict[str, str]:
    """Return the descriptions of the images, which the judge reads in place of them.

    Raises:
        FileNotFoundError: the file of descriptions is missing.
    """
    found = sorted(data.unit.root.glob("**/context.jsonl"))
    if not found:
        raise FileNotFoundError(f"There is no context.jsonl in {data.unit.root}, whose texts the judge reads.")
    rows = [row for _, row in stream_lines(found[0]) if isinstance(row, dict)]
    contexts: dict[str, str] = {}
    for row in rows:
        caption = row.get("caption")
        text = "\n".join(map(str, caption)) if isinstance(caption, list) else str(caption or "")
        name = str(row.get("image", ""))
        contexts[name] = f"{contexts[name]}\n{text}" if name in contexts else text
    return contexts

"""Statistics of a data set: tasks, images, lengths of answers, boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from .formats import Row

COMMON = 10  # answers that are listed
_AREAS = ((0.01, "below 1 %"), (0.1, "1 to 10 %"), (0.5, "10 to 50 %"), (1.1, "above 50 %"))


@dataclass
class Statistics:
    """Counts of a data set.

    Attributes:
        rows, pictures: ints; rows of one image that follow each other are about the same one.
        tasks: number of rows by task.
        answers, answer_words: ints, number of answers, and of words in them.
        common_answers: number of rows by their most frequent answer.
        boxes: int.
        box_areas: number of boxes by their share of the image.
        turns: int, number of answers in conversations.
    """

    rows: int = 0
    pictures: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    answer_words: int = 0
    common_answers: Counter[str] = field(default_factory=Counter)
    boxes: int = 0
    box_areas: Counter[str] = field(default_factory=Counter)
    turns: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the counts in JSON types."""
        counts = {one.name: getattr(self, one.name) for one in fields(self)}
        counts |= {"tasks": dict(self.tasks), "box_areas": dict(self.box_areas)}
        return counts | {"common_answers": dict(self.common_answers.most_common(COMMON))}

    def describe(self) -> str:
        """Return the counts as lines of text."""
        tasks = ", ".join(f"{task} {count:,}" for task, count in self.tasks.most_common())
        lines = [
            f"Rows: {self.rows:,} ({tasks})",
            f"Images: {self.pictures:,}, {self.rows / max(1, self.pictures):.1f} rows each",
        ]
        if self.answers:
            lines.append(f"Answers: {self.answers:,}, {self.answer_words / self.answers:.1f} words each")
            common = ", ".join(f"{answer} {count:,}" for answer, count in self.common_answers.most_common(COMMON))
            lines.append(f"Most frequent: {common}")
        if self.turns:
            lines.append(f"Turns of dialogue: {self.turns:,}, {self.turns / self.tasks['dialogue']:.1f} each")
        if self.boxes:
            areas = ", ".join(f"{name} {self.box_areas[name]:,}" for _, name in _AREAS)
            lines.append(f"Boxes: {self.boxes:,}; by area: {areas}")
        return "\n".join(lines)


def measure(rows: Iterable[Row], progress: Callable[[], object] = lambda: None) -> Statistics:
    """Count rows, images, answers and boxes.

    Args:
        rows: rows of a reader.
        progress: function, called for every row.
    """
    found, seen = Statistics(), set[int]()
    for row in rows:
        progress()
        found.rows += 1
        found.tasks[row.task] += 1
        seen.update(map(hash, row.images))
        answers = [answer for answer in row.answers if answer]
        found.answers += len(answers)
        found.answer_words += sum(len(answer.split()) for answer in answers)
        if answers:
            found.common_answers[Counter(answers).most_common(1)[0][0]] += 1
        found.turns += sum(message["role"] == "assistant" for message in row.messages if row.task == "dialogue")
        for region in row.regions:
            x1, y1, x2, y2 = region.box
            found.boxes += 1
            found.box_areas[next(name for limit, name in _AREAS if (x2 - x1) * (y2 - y1) < limit)] += 1
        if len(found.common_answers) > 100_000:  # of free text nearly every answer is its own
            found.common_answers = Counter(dict(found.common_answers.most_common(10_000)))
    found.pictures = len(seen)
    return found

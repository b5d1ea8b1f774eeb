"""Images that the page offers to try, with questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...assets.example import EXAMPLE_PICTURE, SCENE_PICTURE
from .page_picture import PagePicture

MAX_EXAMPLES = 12
_SHIPPED = Path(__file__).with_name("examples")
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


@dataclass(frozen=True)
class Example:
    """An image to try.

    Attributes:
        path: its file.
        title: words for it.
        questions: tuple of questions to try.
    """

    path: Path
    title: str
    questions: tuple[str, ...] = ()

    @cached_property
    def thumbnail(self) -> str:
        """Data URL of a small copy."""
        return PagePicture.load(self.path.read_bytes(), self.path.name).thumbnail


def shipped_examples() -> list[Example]:
    """Return the examples for the micro model: scenes that training never showed, and an image of another kind."""
    stars = ("Where is the red star?", "What color is the ring?", "How many objects are there?")
    squares = ("Where is the pink ring?", "Which character is on the orange square?", "How many squares are there?")
    wide = ("Find the yellow ring.", "What color is the triangle?", "Which character is on the blue triangle?")
    seven = ("Where is the blue circle?", "What color is the circle?", "How many rings are there?")
    return [
        Example(SCENE_PICTURE, "stars and a ring", stars),
        Example(_SHIPPED / "squares_and_a_ring.png", "squares and a ring", squares),
        Example(_SHIPPED / "wide_scene.png", "a wide scene", wide),
        Example(_SHIPPED / "seven_shapes.png", "seven shapes", seven),
        Example(EXAMPLE_PICTURE, "a table, unlike what the micro model knows", ("What is this?",)),
    ]


def examples_in_folder(folder: Path, questions: Sequence[str] = ("Describe the picture.",)) -> list[Example]:
    """Return the images of a folder as examples, by name, at most twelve.

    Args:
        folder: folder.
        questions: sequence of questions to try with each.

    Raises:
        ValueError: it is no folder, holds no image, or one of them cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder.")
    files = sorted(one for one in folder.iterdir() if one.suffix.lower() in _ENDINGS and one.is_file())
    if not files:
        raise ValueError(f"{folder} holds no image ({', '.join(_ENDINGS)}).")
    examples = [Example(one, one.stem, tuple(questions)) for one in files[:MAX_EXAMPLES]]
    for one in examples:
        try:
            _ = one.thumbnail
        except ValueError as error:
            raise ValueError(f"{one.path}: {error}") from error
    return examples

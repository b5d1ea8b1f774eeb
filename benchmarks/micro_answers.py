"""How many answers of the model that ships with the package are right? Percent, with 95 % intervals, as a table.

Scenes are test scenes of the world of the recipe, and scenes of a second world that no training shows. Questions are
worded plainly, as in training, and as people word them who do not know the training (`unknown`).

python benchmarks/micro_answers.py
python benchmarks/micro_answers.py --model runs/micro/full-0/stage2/model --questions 50
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lyrics.assets import MICRO_CHECKPOINT
from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.recipes.micro.evaluate import answer_cases
from lyrics.recipes.micro.world.cases import KINDS, accuracies, draw_cases
from lyrics.recipes.micro.world.objects import Scene
from lyrics.recipes.micro.world.scenes import draw_test_scene
from lyrics.recipes.micro.world.second import draw_second_scene
from lyrics.recipes.micro.world.wordings import Wording

FIRST = 20_000  # number of the first scene; recipes were chosen with earlier ones
ROWS: tuple[tuple[str, Callable[[int], Scene], Wording], ...] = (
    ("own world, plain wording", draw_test_scene, "plain"),
    ("own world, varied wording", draw_test_scene, "varied"),
    ("own world, unknown wording", draw_test_scene, "unknown"),
    ("second world, plain wording", draw_second_scene, "plain"),
    ("second world, unknown wording", draw_second_scene, "unknown"),
    ("second world, saturated grounds", partial(draw_second_scene, grounds="saturated"), "plain"),
    ("second world, textured grounds", partial(draw_second_scene, grounds="textured"), "plain"),
    ("second world, 2:1", partial(draw_second_scene, aspect_ratio=2.0), "plain"),
)


def main() -> None:
    """Ask, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MICRO_CHECKPOINT, help="a model with its processor")
    parser.add_argument("--questions", type=int, default=200, help="how many of each kind and row (default: 200)")
    arguments = parser.parse_args()
    model = LyricsForConditionalGeneration.from_pretrained(arguments.model)
    processor = LyricsProcessor.from_pretrained(arguments.model)
    print(f"| | {' | '.join(kind.replace('_', ' ') for kind in KINDS)} |")
    print(f"|---|{'---:|' * len(KINDS)}")
    for title, draw, wording in ROWS:
        cases = draw_cases(arguments.questions, draw, wording=wording, first=FIRST)
        measured = accuracies(answer_cases(model, processor, cases))
        values = (f"{measured[kind]:.0f} ± {half_interval(measured[kind], arguments.questions):.0f}" for kind in KINDS)
        print(f"| {title} | {' | '.join(values)} |", flush=True)


def half_interval(percent: float, count: int) -> float:
    """Return half of Wilson's 95 % interval of a percentage of `count` answers."""
    share, z = percent / 100, 1.96
    return 100 * z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)


if __name__ == "__main__":
    main()

"""How many answers of the model that ships with the package are right? Percent, with 95 % intervals, as a table.

Scenes are test scenes of the world of the recipe, and scenes of a second world that no training shows. Questions are
worded plainly, as in training, and as people word them who do not know the training (`unknown`).

python benchmarks/micro_answers.py
python benchmarks/micro_answers.py --model runs/micro/full-0/stage2/model --questions 50
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lyrics.assets import MICRO_CHECKPOINT
from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.recipes.micro.report.measurements import format_answers, measure_answers


def main() -> None:
    """Ask, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MICRO_CHECKPOINT, help="a model with its processor")
    parser.add_argument("--questions", type=int, default=200, help="how many of each kind and row (default: 200)")
    arguments = parser.parse_args()
    model = LyricsForConditionalGeneration.from_pretrained(arguments.model)
    processor = LyricsProcessor.from_pretrained(arguments.model)
    print(format_answers(measure_answers(model, processor, arguments.questions), arguments.questions), end="")


if __name__ == "__main__":
    main()

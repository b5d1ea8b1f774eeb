"""How well does the refiner that ships with the package see? Percent, as a table.

Scenes are test scenes of the world that the refiner was trained in, and scenes of a second world that it has never
seen. A shape or character is found if a detection has its label and an IoU of at least 0.5 with its box.

python benchmarks/micro_refiner.py
python benchmarks/micro_refiner.py --model runs/micro/refiner --scenes 100
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lyrics.assets import MICRO_CHECKPOINT
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.recipes.micro.report.measurements import format_refiner, measure_refiner_in_worlds


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MICRO_CHECKPOINT, help="a processor with its refiner")
    parser.add_argument("--scenes", type=int, default=300, help="how many of each world (default: 300)")
    arguments = parser.parse_args()
    processor = LyricsProcessor.from_pretrained(arguments.model)
    print(format_refiner(measure_refiner_in_worlds(processor, arguments.scenes)), end="")


if __name__ == "__main__":
    main()

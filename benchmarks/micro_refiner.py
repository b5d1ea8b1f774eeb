"""How well does the refiner that ships with the package see? Percent, on test scenes, which are drawn on the spot.

python benchmarks/micro_refiner.py
python benchmarks/micro_refiner.py --model runs/micro/refiner --scenes 100
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lyrics.assets import MICRO_CHECKPOINT
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.recipes.micro.refiner.assemble import measure_refiner


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MICRO_CHECKPOINT, help="a processor with its refiner")
    parser.add_argument("--scenes", type=int, default=500, help="how many (default: 500)")
    arguments = parser.parse_args()
    print(
        json.dumps(measure_refiner(LyricsProcessor.from_pretrained(arguments.model), count=arguments.scenes), indent=2)
    )


if __name__ == "__main__":
    main()

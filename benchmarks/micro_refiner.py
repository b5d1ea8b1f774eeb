"""How well does the refiner that ships with the package see? Percent, on scenes that are drawn on the spot.

Scenes are test scenes of the world that the refiner was trained in, and scenes of a second world that it has never
seen.

python benchmarks/micro_refiner.py
python benchmarks/micro_refiner.py --model runs/micro/refiner --scenes 100
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

from lyrics.assets import MICRO_CHECKPOINT
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.recipes.micro.refiner.assemble import measure_refiner
from lyrics.recipes.micro.world.scenes import draw_test_scene
from lyrics.recipes.micro.world.second import draw_second_scene

WORLDS = {
    "own world": draw_test_scene,
    "second world": draw_second_scene,
    "second world, saturated grounds": partial(draw_second_scene, grounds="saturated"),
    "second world, textured grounds": partial(draw_second_scene, grounds="textured"),
    "second world, 2:1": partial(draw_second_scene, aspect_ratio=2.0),
    "second world, 1:3": partial(draw_second_scene, aspect_ratio=1 / 3),
}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MICRO_CHECKPOINT, help="a processor with its refiner")
    parser.add_argument("--scenes", type=int, default=500, help="how many (default: 500)")
    arguments = parser.parse_args()
    processor = LyricsProcessor.from_pretrained(arguments.model)
    print(
        json.dumps(
            {name: measure_refiner(processor, draw, arguments.scenes) for name, draw in WORLDS.items()}, indent=2
        )
    )


if __name__ == "__main__":
    main()

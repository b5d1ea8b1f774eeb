"""Draw `search_sheet.png`: what `lyrics search` finds among 60 validation scenes for the caption of one of them.

python docs/figures/search_sheet.py
"""

import tempfile
from pathlib import Path

from lyrics.recipes.micro.world.scenes import draw_scene
from lyrics_cli.main import main

QUERY = "It shows a red square, a green cross, a yellow triangle, a blue circle, a pink square and a cyan star."
OUT = Path(__file__).with_suffix(".png")

with tempfile.TemporaryDirectory() as folder:
    scenes = Path(folder) / "scenes"
    scenes.mkdir()
    for number in range(60):
        draw_scene("validation", number).image.save(scenes / f"{number:02}.png")
    main(["search", str(scenes), QUERY, "--save", str(OUT)])

"""Release of the first stage that was tuned to be searched (`lyrics pretrain --config micro_search`), in float16.

python -m lyrics.recipes.micro.report.release_search --from runs/micro-search --to assets/lyrics_micro_search
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ....assets import MICRO_CHECKPOINT
from .release import write_compact_first_stage

_CARD = Path(__file__).with_name("search_card.md")


def main() -> None:
    """Write the checkpoint and its model card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    trained, out = Path("runs/micro-search"), Path("assets/lyrics_micro_search")
    parser.add_argument("--from", dest="trained", type=Path, default=trained, help=f"folder (default: {trained})")
    parser.add_argument("--to", type=Path, default=out, help=f"folder of the checkpoint (default: {out})")
    arguments = parser.parse_args()
    write_compact_first_stage(arguments.trained, MICRO_CHECKPOINT, arguments.to, _CARD)


if __name__ == "__main__":
    main()

"""`lyrics convert`: the published checkpoint in this package's own layout."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.processing_lyrics import LyricsProcessor

from .common import DTYPES, require_new_folder

EXAMPLES = """example:
  lyrics convert IDEA-CCNL/Ziya-Visual-Lyrics-14B --out lyrics-14b --dtype bfloat16 \\
      --tag-thresholds ram_tag_list_threshold.txt
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "convert",
        help="convert the published checkpoint to this package's layout",
        description="Write model, processor and refiner as safetensors. A checkpoint also loads without being "
        "converted; a converted one loads faster and is read by safetensors alone.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="DIR|ID", help="a checkpoint in the published layout")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="an empty or a new directory")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: as they were saved)")
    parser.add_argument("--max-shard-size", default="5GB", help="of a file (default: 5GB)")
    parser.add_argument("--tag-thresholds", metavar="FILE", type=Path, help="RAM's thresholds, one per tag and line")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load and save, the model first, so that it is gone when the refiner is loaded."""
    require_new_folder(arguments.out)
    dtype = DTYPES.get(arguments.dtype, "auto")
    refiner_kwargs: dict[str, Any] = {"dtype": dtype}
    if arguments.tag_thresholds is not None:
        refiner_kwargs["tag_thresholds"] = arguments.tag_thresholds
    processor = LyricsProcessor.from_pretrained(arguments.source, refiner_kwargs=refiner_kwargs)
    LyricsForConditionalGeneration.from_pretrained(arguments.source, dtype=dtype).save_pretrained(
        arguments.out, max_shard_size=arguments.max_shard_size
    )
    processor.save_pretrained(arguments.out)
    print(f"Wrote model, processor and refiner to {arguments.out}")
    return 0

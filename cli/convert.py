"""`lyrics convert`: the published checkpoint in this package's own layout."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import add_command, add_output_arguments, require_new_folder

EXAMPLES = """example:
  lyrics convert IDEA-CCNL/Ziya-Visual-Lyrics-14B --out lyrics-14b --dtype bfloat16 \\
      --tag-thresholds ram_tag_list_threshold.txt
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = (
        "Write model, processor and refiner as safetensors. A checkpoint also loads without being converted; a "
        "converted one loads faster and is read by safetensors alone."
    )
    help_text = "convert the published checkpoint to this package's layout"
    parser = add_command(commands, "convert", help_text, description, EXAMPLES)
    parser.add_argument("source", metavar="DIR|ID", help="a checkpoint in the published layout")
    parser.add_argument("--tag-thresholds", metavar="FILE", type=Path, help="RAM's thresholds, one per tag and line")
    add_output_arguments(parser, "as they were saved")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load and save the model first, so that its memory is free when the refiner is loaded."""
    from lyrics import LyricsForConditionalGeneration, LyricsProcessor
    from lyrics.conversion.card_facts import describe_conversion, name_of_folder
    from lyrics.utils.model_card import write_card
    from lyrics.utils.model_folder import write_model

    require_new_folder(arguments.out)
    dtype = arguments.dtype or "auto"
    refiner_kwargs: dict[str, Any] = {"dtype": dtype}
    if arguments.tag_thresholds is not None:
        refiner_kwargs["tag_thresholds"] = arguments.tag_thresholds
    processor = LyricsProcessor.from_pretrained(arguments.source, refiner_kwargs=refiner_kwargs)
    model = LyricsForConditionalGeneration.from_pretrained(arguments.source, dtype=dtype)
    with write_model(arguments.out) as folder:
        model.save_pretrained(folder, max_shard_size=arguments.max_shard_size)
        del model
        processor.save_pretrained(folder)
        write_card(folder, describe_conversion(name_of_folder(arguments.out), arguments.source))
    print(f"Wrote model, processor and refiner to {arguments.out}")
    return 0

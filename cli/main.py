"""Entry point of `lyrics`: arguments, dispatch, and errors in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from huggingface_hub.errors import StrictDataclassError

DESCRIPTION = "Lyrics looks at an image twice, as a whole and object by object, and answers in text and boxes."


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    from . import ask, compose, convert, dpo, init, merge, pretrain, refine, refine_dataset, sft, store

    parser = argparse.ArgumentParser(prog="lyrics", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"lyrics {version('ziya-lyrics')}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    every = (ask, refine, refine_dataset, store, pretrain, compose, sft, dpo, merge, init, convert)
    for command in every:
        command.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, or 2 after a mistake of the user, who gets one line about it."""
    parser = build_parser()
    parsed, more = parser.parse_known_args(arguments)
    if more and not getattr(parsed, "takes_more", False):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    parsed.more = more
    try:
        return parsed.run(parsed)
    except (ValueError, OSError, ImportError, FloatingPointError, StrictDataclassError) as error:
        print(f"lyrics {parsed.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"lyrics {parsed.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

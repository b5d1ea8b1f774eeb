"""Entry point of `lyrics`: arguments, dispatch, and errors in one line.

This package lies outside `lyrics` and imports it, torch and Transformers only when a command runs, so that `--help`,
`--version` and wrong arguments are answered at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from . import (
    ask,
    chat,
    compose,
    convert,
    data,
    demo,
    dpo,
    evaluate,
    export,
    grpo,
    init,
    merge,
    pretrain,
    push,
    refine,
    refine_dataset,
    search,
    serve,
    sft,
    store,
)
from .common import printable
from .quiet import quiet_libraries

DESCRIPTION = "Lyrics looks at an image twice, as a whole and object by object, and answers in text and boxes."
COMMANDS = (
    ask,
    chat,
    demo,
    serve,
    refine,
    refine_dataset,
    search,
    store,
    data,
    evaluate,
    pretrain,
    compose,
    sft,
    dpo,
    grpo,
    merge,
    init,
    convert,
    export,
    push,
)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser with all commands."""
    parser = argparse.ArgumentParser(prog="lyrics", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"lyrics {version('ziya-lyrics')}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: list of strings, by default those of the process.

    Returns:
        0 after success, 2 after a mistake of the user, who gets one line about it, 130 after Ctrl-C.
    """
    parser = build_parser()
    parsed, more = parser.parse_known_args(arguments)
    if more and not getattr(parsed, "takes_more", False):
        parser.error(printable(f"unrecognized arguments: {' '.join(more)}"))
    parsed.more = more
    quiet_libraries()
    try:
        return parsed.run(parsed)
    except KeyboardInterrupt:
        print(f"lyrics {parsed.command}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not _is_users_mistake(error):
            raise
        message = " ".join(describe_mistake(error).split())
        print(printable(f"lyrics {parsed.command}: error: {message}"), file=sys.stderr)
        return 2


def _is_users_mistake(error: Exception) -> bool:
    from huggingface_hub.errors import StrictDataclassError

    return isinstance(error, ValueError | OSError | ImportError | FloatingPointError | StrictDataclassError)


def describe_mistake(error: Exception) -> str:
    """Return the message of an error; for a missing library, how to install it."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        from lyrics.utils.optional_imports import describe_missing

        return describe_missing(error.name) or str(error)
    return str(error)


if __name__ == "__main__":
    sys.exit(main())

"""`lyrics chat`: a conversation about images in the terminal."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .common import (
    add_command,
    add_font_argument,
    add_generation_arguments,
    add_model_arguments,
    generation_options,
    load_assistant,
    load_processor,
    quiet_loading,
    require_font,
)
from .status_line import StatusLine

EXAMPLES = """examples:
  lyrics chat scene.png                            # with the micro model, which ships with the package
  lyrics chat photo.jpg other.jpg --model DIR
  echo "What is this?" | lyrics chat photo.jpg --model DIR

In the conversation, /help lists commands. Ctrl-C stops an answer, Ctrl-D ends.
With `pip install 'ziya-lyrics[chat]'`, lines have history and completion.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = "Talk about images: the answers stream, and the images are looked at once."
    parser = add_command(commands, "chat", "talk about images in the terminal", description, EXAMPLES)
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="paths or URLs of images; /image adds more")
    add_generation_arguments(parser)
    add_font_argument(parser)
    add_model_arguments(parser, json=False)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load the model, and talk until the input ends."""
    require_font(arguments.font)
    options = generation_options(arguments)
    from .chat_session import COMMANDS, ChatSession
    from .line_reader import make_reader

    quiet_loading()
    status = StatusLine()
    processor = load_processor(arguments)
    pictures = [processor.load_pictures(name)[0] for name in arguments.images]
    status.show("Loading the model ...")
    with load_assistant(arguments, processor) as assistant:
        status.clear()
        session = ChatSession(assistant.chat(pictures, **options), assistant, status, arguments.font)
        if sys.stdin.isatty():
            about = "Ask about the image" if pictures else "Show an image with /image FILE, then ask"
            print(f"{about}. /help lists commands, Ctrl-C stops an answer, Ctrl-D ends.")
        session.talk(make_reader(tuple(COMMANDS)))
    return 0

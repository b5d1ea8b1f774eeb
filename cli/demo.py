"""`lyrics demo`: a page in the browser to try a model with."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path
from typing import Any

from .common import (
    add_command,
    add_generation_arguments,
    add_model_arguments,
    generation_options,
    is_loopback,
    load_assistant,
    load_processor,
    model_name,
    on_one_line,
    port_number,
    printable,
    quiet_loading,
)

EXAMPLES = """examples:
  lyrics demo                                  # the micro model on http://127.0.0.1:7860
  lyrics demo --model DIR --examples photos/   # another model, with images of your own to try
  lyrics demo --port 9000

The page listens on this machine alone, unless --host or --share says otherwise, and sends nothing to anybody else.
docs/demo.md describes it.
"""
OPEN_TO_OTHERS = """\
WARNING: --host {host} is reached by other machines: whoever reaches the port can use the model.\
"""
MAX_WAITING = 64  # questions
SHARED = """\
WARNING: --share sends everything through servers of Gradio, and whoever knows the address can use the model.\
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = "Open a page to show images, see what the refiner sees, and ask. It needs the extra `demo`."
    parser = add_command(commands, "demo", "try a model on a page in the browser", description, EXAMPLES)
    add_generation_arguments(parser)
    add_model_arguments(parser, json=False)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument(
        "--port", type=port_number, default=7860, help="port to listen on; 0 takes a free one (default: 7860)"
    )
    parser.add_argument("--share", action="store_true", help="give the page a public address, through Gradio's servers")
    parser.add_argument(
        "--examples", metavar="DIR", type=Path, help="folder of images to try (default: drawings of the micro model)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load the model, and serve the page until Ctrl-C."""
    options = generation_options(arguments)
    from lyrics.serving.listening import bind_socket
    from lyrics.serving.page import build_page, examples_in_folder, import_gradio, launch_page, shipped_examples

    import_gradio()
    examples = shipped_examples() if arguments.examples is None else examples_in_folder(arguments.examples)
    name, model = model_name(arguments.model), arguments.model  # of which `load_processor` makes a folder
    with bind_socket(arguments.host, arguments.port) as bound:  # a taken port is known before the model is loaded
        address, port = bound.getsockname()[:2]
        if not is_loopback(address):
            print(printable(OPEN_TO_OTHERS.format(host=arguments.host)), file=sys.stderr)
        if arguments.share:
            print(SHARED, file=sys.stderr)
        quiet_loading()
        processor = load_processor(arguments)
        if processor.has_refiner:
            _ = processor.refiner  # loaded now, and not with the first image
        assistant = load_assistant(arguments, processor, max_waiting=MAX_WAITING)
    with assistant:  # the port is free again, for Gradio
        page = build_page(assistant, model=model, title=name, examples=examples, options=options)
        try:
            address = launch_page(page, address, port, arguments.share)
            where = address.local if address.public is None else f"{address.local} and {address.public}"
            print(on_one_line(f"The page of {name} is on {where} (Ctrl-C ends it)."), file=sys.stderr)
            threading.Event().wait()
        finally:
            page.close(verbose=False)
    return 0

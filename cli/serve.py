"""`lyrics serve`: an OpenAI-compatible server."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .common import (
    add_command,
    add_model_arguments,
    is_loopback,
    load_assistant,
    load_processor,
    model_name,
    on_one_line,
    port_number,
    positive_int,
    printable,
    quiet_loading,
)

KEY_VARIABLE = "LYRICS_API_KEY"
EXAMPLES = """examples:
  lyrics serve                                       # the micro model on http://127.0.0.1:8000/v1
  lyrics serve --model DIR --port 9000
  LYRICS_API_KEY=... lyrics serve --model DIR --host 0.0.0.0   # for other machines, with a key

Clients of OpenAI's API work with it: base URL http://HOST:PORT/v1, and any key where the server has none. Other
endpoints: /v1/objects (what the refiner sees), /health, /metrics. docs/serving.md describes them, and what each limit
answers.
"""
OPEN_TO_OTHERS = """\
WARNING: --host {host} is reached by other machines, and there is no key: whoever reaches the port can use the model.
WARNING: Give a key (--api-key, or the environment variable LYRICS_API_KEY), or use --host 127.0.0.1.\
"""
_LIMITS = (  # name, default, description
    ("max_body_bytes", 20 * 2**20, "largest request, in bytes"),
    ("max_images", 8, "largest number of images in a request"),
    ("max_pixels", 25_000_000, "largest number of pixels of the images of a request together"),
    ("max_text", 50_000, "largest number of characters of the texts of a request together"),
    ("max_tokens", 1024, "largest number of tokens of an answer"),
    ("max_requests", 64, "largest number of requests at once"),
    ("timeout", 120.0, "seconds from a request to the end of its answer"),
    ("body_timeout", 30.0, "seconds within which a request must have arrived"),
)


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = "Serve a model to clients of OpenAI's chat API, with images. It needs the extra `serve`."
    parser = add_command(commands, "serve", "serve a model over HTTP, as OpenAI does", description, EXAMPLES)
    add_model_arguments(parser, json=False)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument(
        "--port", type=port_number, default=8000, help="port to listen on; 0 takes a free one (default: 8000)"
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"key that clients must send; better given as {KEY_VARIABLE}, since other users see arguments",
    )
    parser.add_argument(
        "--served-name", metavar="NAME", help="name of the model for clients (default: name of its directory or Hub id)"
    )
    parser.add_argument(
        "--allow-remote-images",
        action="store_true",
        help="fetch images that clients name by URL, from public addresses (default: data URLs alone)",
    )
    parser.add_argument(
        "--max-batch-size", metavar="N", type=positive_int, default=16, help="questions answered at once (default: 16)"
    )
    limits = parser.add_argument_group("limits of a request", "docs/serving.md says what each of them answers")
    for name, default, text in _LIMITS:
        kind = _seconds if isinstance(default, float) else positive_int
        described = (
            f"{text} (default: {default:,g})" if isinstance(default, float) else f"{text} (default: {default:,})"
        )
        limits.add_argument(f"--{name.replace('_', '-')}", metavar="N", type=kind, default=default, help=described)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load the model, and serve it until Ctrl-C."""
    from lyrics.utils.optional_imports import import_optional

    import_optional("starlette")
    import_optional("uvicorn")
    from lyrics.serving.server import ServerLimits, bind_socket, create_application, run_server

    key = os.environ.get(KEY_VARIABLE) if arguments.api_key is None else arguments.api_key
    if key is not None and not key.strip():
        raise ValueError(f"the key (--api-key or {KEY_VARIABLE}) is empty.")
    if arguments.served_name is not None and not arguments.served_name.strip():
        raise ValueError("--served-name is empty.")
    limits = ServerLimits(**{name: getattr(arguments, name) for name, _, _ in _LIMITS})
    with bind_socket(arguments.host, arguments.port) as bound:  # a taken port is known before the model is loaded
        address, port = bound.getsockname()[:2]
        if key is None and not is_loopback(address):
            print(printable(OPEN_TO_OTHERS.format(host=arguments.host)), file=sys.stderr)
        name = served_name(arguments)
        quiet_loading()
        processor = load_processor(arguments)
        if processor.has_refiner:
            _ = processor.refiner  # loaded now, and not with the first request
        options = {"max_batch_size": arguments.max_batch_size, "max_waiting": limits.max_requests}
        with load_assistant(arguments, processor, **options) as assistant:
            application = create_application(
                assistant,
                model_name=name,
                limits=limits,
                api_key=key,
                allow_remote_images=arguments.allow_remote_images,
            )
            bound.listen()  # from here on, whoever reads the next line may connect
            host = f"[{address}]" if ":" in address else address
            print(on_one_line(f"Serving {name} on http://{host}:{port}/v1 (Ctrl-C ends it)."), file=sys.stderr)
            run_server(application, bound, limits)
    print("Every answer is finished; the server has ended.", file=sys.stderr)
    return 0


def served_name(arguments: argparse.Namespace) -> str:
    """Return the name by which clients call the model."""
    if arguments.served_name is not None:
        return arguments.served_name
    return model_name(arguments.model)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, got {text!r}") from None
    if not 0 < value < 1e6:  # also refuses nan
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {value}")
    return value

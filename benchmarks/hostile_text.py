"""How long does the worst text take? Everything that reads text, on 1, 2 and 4 MB of texts made to be slow.

A time is the best of several runs, in milliseconds of processor time for 1 MB; `x2` and `x4` say how many times longer
twice and four times the text takes: 2 and 4 where the work is linear. The parser's goal is 250 ms.

    python benchmarks/hostile_text.py
    python benchmarks/hostile_text.py --only parse_spatial_text --size 200000
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from transformers.utils import logging

from lyrics.assets import random_parts
from lyrics.modeling_lyrics.refiner_prompts import build_prompts
from lyrics.processing_lyrics import LyricsProcessor, VisualObjects, parse_spatial_text
from lyrics.processing_lyrics.chat_templates import instructions_of_text, neutralize
from lyrics.processing_lyrics.spatial_text import clean_label

CONTROL = ["<s>", "</s>", "<pad>", "<image>"]
RESERVED = [f"<|reserved_special_token_{index}|>" for index in range(256)]  # as LLaMA 3 has
DOMINO = ["xb", " bb"]  # a token that begins with the space that was put into the one before

Reader = Callable[[str], object]
Writer = Callable[[int], str]


def repeat(unit: str) -> Writer:
    """A text of one unit again and again."""
    return lambda size: (unit * (size // len(unit) + 1))[:size]


def nest(begin: str, end: str) -> Writer:
    """Many beginnings, then as many ends."""
    return lambda size: begin * (size // len(begin + end)) + end * (size // len(begin + end))


def texts_for_the_parser() -> dict[str, Writer]:
    """What a bracket-anchored parser might choke on; the first three are nothing but boxes."""
    units = [
        "[0,0,0,0]",
        ":[0,0,0,0]",
        "a cup: [0.1, 0.2, 0.3, 0.4]; ",
        "[9,9,9,9]",
        "[+-1,1,1,1]",
        "[0.1, 0.2, 0.3, 0.4",
    ]
    units += ["[", "]", "[0", "[,,,,,,,", ": ", " ", ";", "[" + "9" * 119, "[" + " " * 119, "[" + "1," * 59, "\u2003"]
    found: dict[str, Writer] = {unit if len(unit) < 30 else f"{unit[:4]}... (120)": repeat(unit) for unit in units}
    return found | {"[999...": lambda size: "[" + "9" * size, "[[[...]]]": nest("[", "]")}


def readers(processor: LyricsProcessor) -> dict[str, tuple[Reader, dict[str, Writer]]]:
    """Each function with the texts that are worst for it."""
    parser = texts_for_the_parser()
    imitations = {unit: repeat(unit) for unit in ("<image>", "<imag", "USER:", "USER", "<", "</s>", "\ud800")}
    imitations |= {"<image... >...": nest("<image", ">"), "<<<... image>": nest("<", "image>")}
    prompts = {unit: repeat(unit) for unit in ("<image>", "USER: <image>", "USER:", "</s>", "x ")}
    tokenizer = processor.refiner.tokenizer

    def tag(text: str) -> None:
        with suppress(ValueError):  # too long for a prompt, says the message
            build_prompts([text], tokenizer, ", ", 256)

    def chat(text: str) -> object:
        messages = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        return processor.apply_chat_template(messages, tokenize=True, return_dict=True)

    def truncated(text: str) -> object:
        return processor(text=text, truncation=True, max_length=64)

    def drawn(text: str) -> object:
        objects = VisualObjects(labels=[text], boxes=[[0, 0, 1, 1]], scores=[1], region_features=[[0.0] * 36])
        return processor.mqformer_tokenizer(clean_label(objects.labels[0]))

    spatial = {name: parser[name] for name in ("[0,0,0,0]", "[", " ")}
    return {
        "parse_spatial_text": (parse_spatial_text, parser),
        "post_process_grounding": (processor.post_process_grounding, spatial),
        "clean_label": (clean_label, parser | {"\\n": repeat("\n"), "\\ud800": repeat("\ud800")}),
        "neutralize": (lambda text: neutralize(text, CONTROL), imitations),
        "neutralize, 256 tokens": (
            lambda text: neutralize(text, RESERVED),
            {unit: repeat(unit) for unit in ("<|", RESERVED[0], RESERVED[0][:-2])},
        ),
        "neutralize, domino": (lambda text: neutralize(text, DOMINO), {"xbbb...": lambda size: "x" + "b" * size}),
        "instructions_of_text": (lambda text: instructions_of_text(text, "<image>", CONTROL), prompts),
        "a tag": (tag, {unit: repeat(unit) for unit in ("a", ".", "a ", "\ud800")}),
        "a label": (drawn, {unit: repeat(unit) for unit in ("a", "[", "\u2003")}),
        "a chat": (chat, {unit: repeat(unit) for unit in ("<image>", "[0,0,0,0]", "a")}),
        "a truncated prompt": (truncated, {unit: repeat(unit) for unit in ("[0,0,0,0]", "a")}),
    }


def measure(read: Reader, text: str, runs: int) -> float:
    """The best processor time in seconds: of `runs` runs, and of more where they are short."""
    best, start = float("inf"), time.perf_counter()
    while runs > 0 or time.perf_counter() - start < 0.2:
        began = time.process_time()
        read(text)
        best, runs = min(best, time.process_time() - began), runs - 1
    return best


def machine() -> str:
    """Processor, cores and Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000, help="characters of the shortest text (default: 1 MB)")
    parser.add_argument("--runs", type=int, default=3, help="runs of which the best counts, at least (default: 3)")
    parser.add_argument("--only", default="", help="only functions whose name begins like this")
    options = parser.parse_args()
    logging.set_verbosity_error()
    all_readers = readers(random_parts()[1])
    gc.freeze()  # full collections of all that Transformers imported come in steps, and hide what is linear
    print(f"{machine()}; {options.size:,} characters\n")
    print(f"| {'function':22} | {'text':28} | {'ms':>6} | {'x2':>4} | {'x4':>4} |")
    print(f"|{'-' * 24}|{'-' * 30}|{'-' * 8}|{'-' * 6}|{'-' * 6}|")
    for name, (read, texts) in all_readers.items():
        for title, write in texts.items() if name.startswith(options.only) else ():
            once, twice, four = (measure(read, write(options.size * factor), options.runs) for factor in (1, 2, 4))
            shown = title.encode("ascii", "backslashreplace").decode()
            row = f"| {name:22} | {shown:28} | {once * 1e3:6.1f} | {twice / once:4.1f} | {four / once:4.1f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()

"""`lyrics ask`: a question about images, or a file of questions."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    add_command,
    add_font_argument,
    add_generation_arguments,
    add_model_arguments,
    describe_objects,
    generation_options,
    load_assistant,
    load_processor,
    on_one_line,
    positive_int,
    printable,
    quiet_loading,
    require_font,
    require_picture_file,
)
from .status_line import StatusLine

if TYPE_CHECKING:
    from lyrics import Answer, AnswerStream, LyricsProcessor

STDIN = "-"

EXAMPLES = """examples:
  lyrics ask scene.png "What color is the ring?"   # with the micro model, which ships with the package
  lyrics ask photo.jpg "What is on the table?" --model DIR
  lyrics ask photo.jpg "Where is the cat?" --model DIR --save seen.png --json
  lyrics ask photo.jpg "How many cats are there?" --model DIR --why why.png
  lyrics ask photo.jpg "And the dog?" --model DIR --objects photo.objects.safetensors
  lyrics ask photos/ more/*.jpg "What is this?" --model DIR   # the question is asked about every image
  cat photo.jpg | lyrics ask - "What is this?" --model DIR
  lyrics ask --batch questions.jsonl --out answers.jsonl --model DIR

A row of --batch is a JSON object with "image" or "images" (paths below the file's folder), and "question" or
"messages".
--out gets one line for each row, in order; the same command resumes where it was stopped. With --retry-failures it
also asks the rows again that failed.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    description = "Answer a question about images, and show the objects that the model looked at."
    parser = add_command(commands, "ask", "ask a question about images", description, EXAMPLES)
    batch = "%(prog)s --batch ROWS.jsonl --out ANSWERS.jsonl [options]"
    parser.usage = f"%(prog)s IMAGE... QUESTION [options]\n       {batch}"
    parser.add_argument(
        "words",
        metavar="IMAGE... QUESTION",
        nargs="*",
        help="paths or URLs of images, folders of images, or - for an image on standard input; then the question, in "
        "quotation marks, or - for a question on standard input",
    )
    parser.add_argument("--batch", metavar="ROWS.jsonl", type=Path, help="file of questions, one JSON object a line")
    parser.add_argument("--out", metavar="ANSWERS.jsonl", type=Path, help="file for the answers to --batch")
    parser.add_argument(
        "--batch-size", metavar="N", type=positive_int, default=16, help="questions at a time (default: 16)"
    )
    parser.add_argument("--image-root", metavar="DIR", type=Path, help="folder of the images of --batch")
    parser.add_argument("--fetch-urls", action="store_true", help="let rows of --batch name URLs of images")
    parser.add_argument("--retry-failures", action="store_true", help="ask the failed rows of --batch again")
    parser.add_argument("--objects", metavar="FILE", type=Path, help="objects that `lyrics refine --out` wrote")
    parser.add_argument(
        "--save",
        metavar="OVERLAY.png",
        type=Path,
        help="write the image with the boxes of the answer, above thin ones of the objects",
    )
    parser.add_argument(
        "--why", metavar="WHY.png", type=Path, help="write the image with the objects that the answer attended to"
    )
    add_generation_arguments(parser)
    add_font_argument(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Answer one question about one or several images, or a file of questions."""
    _check_words(arguments)
    if arguments.batch is not None:
        from .ask_batch import run_batch

        return run_batch(arguments)
    names, question = arguments.words[:-1], arguments.words[-1]
    if question == STDIN:
        question = sys.stdin.read().strip()  # `echo` ends it with a line break
    if not question.strip():
        raise ValueError("the question is empty.")
    several = len(names) > 1 or os.path.isdir(names[0])
    for option, path in (("--save", arguments.save), ("--why", arguments.why), ("--objects", arguments.objects)):
        if several and path is not None:
            raise ValueError(f"{option} {path} belongs to one image, and the question is asked about several.")
        if option != "--objects":
            require_picture_file(option, path, names)
    if arguments.save is not None and arguments.save == arguments.why:
        raise ValueError(f"--save and --why are the same file, {arguments.save}.")
    require_font(arguments.font)
    options = generation_options(arguments)
    if several:
        return _ask_about_each(arguments, names, question, options)
    return _ask_about_one(arguments, names[0], question, options)


def _check_words(arguments: argparse.Namespace) -> None:
    """End with the usage where the words are no question about an image."""
    words, parser = arguments.words, arguments.parser
    if (arguments.batch is None) != (arguments.out is None):
        parser.error("--batch and --out go together")
    if arguments.batch is not None:
        for name in ("words", "objects", "save", "why"):
            if getattr(arguments, name):
                parser.error(f"--batch takes no {'IMAGE and QUESTION' if name == 'words' else f'--{name}'}")
    elif len(words) < 2:
        parser.error(f"the following arguments are required: {'QUESTION' if words else 'IMAGE, QUESTION'}")
    elif words.count(STDIN) > 1:
        parser.error("only one argument can be read from standard input")
    elif arguments.image_root is not None or arguments.fetch_urls or arguments.retry_failures:
        parser.error("--image-root, --fetch-urls and --retry-failures belong to --batch")


# ---------------------------------------------------------------- one image


def _ask_about_one(arguments: argparse.Namespace, name: str, question: str, options: dict[str, Any]) -> int:
    """Answer, streamed on a terminal, and print what was seen."""
    from lyrics import VisualObjects
    from lyrics.utils.atomic_files import naming_disk_errors

    quiet_loading()
    status = StatusLine()
    given = VisualObjects.load(arguments.objects) if arguments.objects else None
    processor = load_processor(arguments)
    picture = read_picture(processor, name)
    status.show("Loading the model ...")
    with load_assistant(arguments, processor) as assistant:
        status.show("Looking at the image ...")
        answer = _show_answer(assistant.stream(picture, question, objects=given, **options), status, arguments.json)
        show_notices(answer.notices)
        if arguments.save:
            with naming_disk_errors(arguments.save):
                answer.draw(font=arguments.font).save(arguments.save)
        if arguments.why:
            with naming_disk_errors(arguments.why):
                answer.why(font=arguments.font).save(arguments.why)
        if arguments.json:
            result = describe_answer(answer, name, question) | {
                "overlay": str(arguments.save) if arguments.save else None,
                "why": describe_why(answer, str(arguments.why)) if arguments.why else None,
            }
            print(json.dumps(result, ensure_ascii=False, indent=2))
            return 0
    print(describe_objects(answer.objects))
    if arguments.save:
        of_answer = "the answer's boxes, and thin ones of the objects" if len(answer.boxes) else "the objects' boxes"
        print(on_one_line(f"Image with {of_answer}: {arguments.save}"))
    if arguments.why:
        print(on_one_line(f"Image with the objects that the answer attended to: {arguments.why}"))
    return 0


def _show_answer(stream: AnswerStream, status: StatusLine, is_silent: bool) -> Answer:
    """Print an answer, on a terminal as it is written, and return it."""
    if is_silent or not sys.stdout.isatty():
        answer = stream.result()
        status.clear()
        if not is_silent:
            print(f"Answer: {printable(answer.text)}")
        return answer
    is_first = True
    for piece in filter(None, stream):  # empty while the model reasons
        if is_first:
            status.clear()
        print(("Answer: " if is_first else "") + printable(piece), end="", flush=True)
        is_first = False
    status.clear()
    print("Answer:" if is_first else "")
    return stream.result()


def read_picture(processor: LyricsProcessor, name: str) -> Any:
    """Return the image of a path or URL, or the one on standard input."""
    if name != STDIN:
        return processor.load_pictures(name)[0]
    content = sys.stdin.buffer.read()
    if not content:
        raise ValueError("there is no image on standard input.")
    return processor.load_pictures(content)[0]


def show_notices(notices: tuple[str, ...]) -> None:
    """Print remarks about an image."""
    for notice in notices:
        print(f"Note: {printable(notice)}", file=sys.stderr)


def describe_answer(answer: Answer, name: str, question: str) -> dict[str, Any]:
    """Return everything about an answer, for JSON."""
    boxes = [{"label": box["label"], "box": box["box"]} for box in answer.to_dict()["boxes"]]
    return {
        "image": name,
        "question": question,
        "answer": answer.text,
        "answer_boxes": boxes,
        "finish_reason": answer.finish_reason,
        "notices": list(answer.notices),
        **({"reasoning": answer.reasoning} if answer.reasoning else {}),
        **answer.provenance,
    }


def describe_why(answer: Answer, picture: str) -> dict[str, Any]:
    """Return the weight of each object in the answer, largest first, and of each grounding query."""
    why = answer.attribution()
    weights = why.region_weights()[-1].tolist()
    order = sorted(range(len(answer.objects)), key=lambda index: -weights[index])
    labels = answer.objects.labels
    return {
        "picture": picture,
        "objects": [{"object": index, "label": labels[index], "weight": weights[index]} for index in order],
        "queries": why.query_weights[-1].tolist(),
    }


# ---------------------------------------------------------------- several images


def _ask_about_each(arguments: argparse.Namespace, names: list[str], question: str, options: dict[str, Any]) -> int:
    """Ask the question about every image; those that cannot be read are named, and do not stop the others."""
    from tqdm import tqdm

    quiet_loading()
    names = [one for name in names for one in _pictures_of(name)]
    processor = load_processor(arguments)
    results, told, failed = [], set[str](), 0
    with (
        load_assistant(arguments, processor, max_batch_size=arguments.batch_size) as assistant,
        tqdm(total=len(names), desc="Answering", disable=None) as progress,
    ):
        rows = ((_as_picture(name), question) for name in names)
        answers = assistant.ask_many(rows, batch_size=arguments.batch_size, on_error="yield", **options)
        for name, answer in zip(names, answers, strict=True):
            progress.update()
            if isinstance(answer, Exception):
                failed += 1
                tqdm.write(on_one_line(f"lyrics ask: error: {answer}"), file=sys.stderr)
                continue
            for notice in [one for one in answer.notices if one not in told]:
                told.add(notice)
                tqdm.write(f"Note: {printable(notice)}", file=sys.stderr)
            if arguments.json:
                results.append(describe_answer(answer, name, question))
            else:
                tqdm.write(f"{on_one_line(name)}: {printable(answer.text)}", file=sys.stdout)
    if arguments.json:
        print(json.dumps(results, ensure_ascii=False, indent=2))
    return 2 if failed else 0


def _pictures_of(name: str) -> list[str]:
    """Return the images of a folder, or the name of an image."""
    if not os.path.isdir(name):
        return [name]
    from lyrics.datasets_lyrics.sources import FolderImages

    return [os.path.join(name, member) for member in FolderImages(name, 1).members]


def _as_picture(name: str) -> Any:
    """Return what is asked about: the bytes on standard input, or the path or URL."""
    return sys.stdin.buffer.read() if name == STDIN else name

"""Release of a trained checkpoint: weights in float16, what they were measured to do, and the model card.

The first stage is released beside it, without a refiner: it has that of the whole model.

python -m lyrics.recipes.micro.report.release --out runs/micro --to assets/lyrics_micro
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ....modeling_lyrics import LyricsForConditionalGeneration, LyricsForPreTraining
from ....processing_lyrics import LyricsProcessor
from ....processing_lyrics.model_inputs import BOS
from ..common.run_folders import RunFolders, add_model_options
from .measurements import format_answers, format_refiner, measure_answers, measure_refiner_in_worlds

_MODEL_CARD = Path(__file__).with_name("model_card.md")
_FIRST_STAGE_CARD = Path(__file__).with_name("first_stage_card.md")


def write_compact(checkpoint: Path, out: Path) -> int:
    """Write a checkpoint whose weights are stored in float16. It is loaded in float32, as before.

    Weights are rounded before the fingerprint is saved, so that it fits the loaded weights. They are all small, and
    float16 keeps three more bits of them than bfloat16, with which fewer counts were correct.

    Args:
        checkpoint: folder of model, processor and refiner.
        out: folder to write. Its former content is removed.

    Returns:
        The size of all files in bytes.

    Raises:
        ValueError: a weight is too large for float16. Nothing is written.
    """
    processor: Any = LyricsProcessor.from_pretrained(checkpoint)
    model = LyricsForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    for module in (processor.refiner, model):
        _round_to_float16(module)
    shutil.rmtree(out, ignore_errors=True)
    for part in (processor, model):
        part.save_pretrained(out)
    for file in out.rglob("*.safetensors"):
        _store_as_float16(file)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())


def write_compact_first_stage(checkpoint: Path, whole: Path, out: Path, card: Path = _FIRST_STAGE_CARD) -> int:
    """Write a first stage whose weights are stored in float16, without its refiner, which is that of the whole model.

    Both tokenizers are the MQ-Former's, so that the pipeline for zero-shot classification can read texts.

    Args:
        checkpoint: folder of the model of the step `stage1`.
        whole: folder of the released model of the same run, whose refiner is recorded.
        out: folder to write. Its former content is removed.
        card: model card.

    Returns:
        The size of all files in bytes.

    Raises:
        ValueError: a weight is too large for float16. Nothing is written.
    """
    trained: Any = LyricsProcessor.from_pretrained(checkpoint, refiner=False)
    model: Any = LyricsForPreTraining.from_pretrained(checkpoint, dtype=torch.float32)
    _round_to_float16(model)
    tokenizer = trained.mqformer_tokenizer
    model.config.object_start_token_id = tokenizer.convert_tokens_to_ids(BOS)
    processor = LyricsProcessor(
        trained.image_processor,
        copy.deepcopy(tokenizer),
        tokenizer,
        num_query_tokens=trained.num_query_tokens,
        region_feature_size=trained.region_feature_size,
        spatial_text=trained.spatial_text,
        refiner_fingerprint=LyricsProcessor.from_pretrained(whole, refiner=False).refiner_fingerprint,
    )
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    _store_as_float16(out / "model.safetensors")
    shutil.copyfile(card, out / "README.md")
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())


def write_compact_language_model(checkpoint: Path, out: Path) -> None:
    """Write a language model whose weights are stored in float16, without the tokenizer, which code can build.

    Args:
        checkpoint: folder of the model of the step `language`.
        out: folder to write.

    Raises:
        ValueError: a weight is too large for float16. Nothing is written.
    """
    model = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=False)
    _round_to_float16(model)
    model.save_pretrained(out)
    _store_as_float16(out / "model.safetensors")


def _store_as_float16(file: Path) -> None:
    tensors = load_file(file)
    halves = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in tensors.items()}
    save_file(halves, file, metadata={"format": "pt"})


def _round_to_float16(module: torch.nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.dtype == torch.float32:
            largest = tensor.abs().max().item()
            tensor.copy_(tensor.half())
            if not tensor.isfinite().all():
                raise ValueError(f"{name} reaches {largest:g}, which float16 (up to 65504) cannot hold.")


def measure(checkpoint: Path, questions: int, scenes: int) -> dict[str, Any]:
    """Return what a released checkpoint was measured to do.

    Args:
        checkpoint: folder of the checkpoint.
        questions: number of questions of each kind in each row.
        scenes: number of scenes of each world that the refiner sees.

    Returns:
        A dictionary with `questions`, `scenes`, `answers` (see `measure_answers`) and `refiner` (see
        `measure_refiner_in_worlds`).
    """
    model = LyricsForConditionalGeneration.from_pretrained(checkpoint)
    processor = LyricsProcessor.from_pretrained(checkpoint)
    answers, refiner = measure_answers(model, processor, questions), measure_refiner_in_worlds(processor, scenes)
    return {"questions": questions, "scenes": scenes, "answers": answers, "refiner": refiner}


def format_card(measured: Mapping[str, Any], size: int) -> str:
    """Return the model card: what the model is, how it was trained, its results and its limits.

    Args:
        measured: measurements of `measure`.
        size: size of all files in bytes.
    """
    tables = {
        "answers": format_answers(measured["answers"], measured["questions"]),
        "refiner": format_refiner(measured["refiner"]),
    }
    return _MODEL_CARD.read_text().format(size=f"{size / 1e6:.1f}", **{**measured, **tables})


def main() -> None:
    """Write model, processor, refiner, measurements and model card, and the language model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--to", type=Path, default=Path("assets/lyrics_micro"), help="folder of the checkpoint")
    language_model = Path("assets/lyrics_micro_language")
    parser.add_argument("--language-to", type=Path, default=language_model, help="folder of the language model")
    first_stage = Path("assets/lyrics_micro_pretraining")
    parser.add_argument("--first-stage-to", type=Path, default=first_stage, help="folder of the first stage")
    results = Path("docs/results/micro_released.json")
    parser.add_argument("--results", type=Path, default=results, help=f"file of measurements (default: {results})")
    parser.add_argument("--questions", type=int, default=200, help="how many of each kind and row (default: 200)")
    parser.add_argument("--scenes", type=int, default=300, help="how many scenes the refiner sees (default: 300)")
    arguments = parser.parse_args()
    folders = RunFolders(arguments.out, arguments.variant, arguments.seed)
    size = write_compact(folders.model("stage2"), arguments.to)
    write_compact_language_model(folders.model("language"), arguments.language_to)
    write_compact_first_stage(folders.model("stage1"), arguments.to, arguments.first_stage_to)
    measured = measure(arguments.to, arguments.questions, arguments.scenes)
    arguments.results.write_text(json.dumps(measured, indent=2) + "\n")
    (arguments.to / "README.md").write_text(format_card(measured, size))


if __name__ == "__main__":
    main()

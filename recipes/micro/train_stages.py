"""Steps 5 and 6: the two stages of training with the ordinary trainers, and the merged model that they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser, set_seed

from ...conversion import compose, merge_adapter
from ...modeling_lyrics import LyricsMQFormerModel
from ...refinement import RefinementStore
from ...trainers import LyricsPretrainingArguments, LyricsPretrainingTrainer
from ...trainers.common.data_arguments import DataArguments
from ...trainers.pretraining_setup import PretrainingModelArguments, build_pretraining
from ...trainers.sft_config import LyricsSFTConfig
from ...trainers.sft_setup import SFTModelArguments, build_sft
from ...trainers.sft_trainer import LyricsSFTTrainer
from .ablations import Variant, ViewedStore
from .common.initialization import compose_coordinates
from .common.muon import use_muon
from .common.step_trainer import newest_checkpoint
from .configs import CHAT_TEMPLATE, MQFORMER
from .language_model.train import soften_attention
from .world.datasets import DialogueRows

_SOFTER = 0.5  # times the language model's scores of attention, when it begins to learn from pictures
_SETTLED = 10.0  # by how much a query's score of its own region is above that of others, before they are exponentiated


def train_stage1(
    settings: dict[str, Any], variant: Variant, *, vision: Path, refiner: Path, rows: Path, store: Path, out: Path
) -> None:
    """Train and write the first stage, or write it untrained for a variant that has none.

    Args:
        settings: of the recipe, `output_dir` and Muon's `matrix_learning_rate` included.
        variant: which model of the table it is.
        vision: the vision encoder.
        refiner: a processor with its refiner.
        rows: a folder with `train` and `validation`.
        store: what the refiner saw in their pictures.
        out: a folder.
    """
    settings, queries = dict(settings), dict(MQFORMER)
    matrix_learning_rate = settings.pop("matrix_learning_rate")
    start = {"processor": str(refiner)}
    if not variant.refiner:  # as many queries, all of them visual; its tokenizer is the detector's, which is the same
        queries |= {"num_visual_queries": _queries(queries), "num_grounding_queries": 0}
        start = {"tokenizer": str(refiner / "refiner")}
    del queries["encoder_hidden_size"]  # the vision encoder's
    more = {"vision_model": str(vision), "mqformer_config": queries, **start, **variant.settings}
    model_arguments, data, training = _parse(
        (PretrainingModelArguments, DataArguments, LyricsPretrainingArguments), settings | more, rows
    )
    set_seed(training.seed)
    processor: Any
    model, processor = build_pretraining(model_arguments)
    settle_queries(model.model.mqformer)
    words: Any = model.model.mqformer.get_input_embeddings()
    compose_coordinates(words.weight.data, processor.mqformer_tokenizer)
    processor.mqformer_text = _mqformer_text(variant)
    _use_store(processor, store, variant)
    train_rows, eval_rows = data.open(processor)
    trainer = LyricsPretrainingTrainer(model, training, train_rows, eval_rows, processor)
    if variant.stage1:
        use_muon(trainer, matrix_learning_rate)
        trainer.train(resume_from_checkpoint=newest_checkpoint(training))
        trainer.save_state()
    trainer.save_model(str(out))


@torch.no_grad()
def settle_queries(mqformer: LyricsMQFormerModel) -> None:
    """Let the n-th grounding query begin with the n-th region, and with nothing where there is none.

    So each object is one vector from the start.

    Args:
        mqformer: with `region_nothing`; how its grounding queries score positions and nothing in the first layer
            changes.
    """
    attention: Any = mqformer.layers[0].grounding_cross_attention
    if attention is None:
        return
    key_value = attention.key_value
    queries = mqformer.embeddings(mqformer.query_tokens, None, None)[0, mqformer.config.num_visual_queries :]
    asked = attention.query(queries) * attention.scaling
    scores = torch.eye(len(key_value.positions.weight), len(asked)) * _SETTLED
    keys = torch.cat([scores, torch.full((1, len(asked)), _SETTLED / 2)]) @ torch.linalg.pinv(asked).mT
    key_value.positions.weight.copy_(keys[:-1])
    key_value.nothing.weight.copy_(keys[-1:])


def compose_micro(stage1: Path, language_model: Path, refiner: Path | None, out: Path, seed: int) -> None:
    """Join the first stage with the language model, which is made less sure, and write them with the refiner.

    The projection between them is new: `seed` decides what it begins with.
    """
    set_seed(seed)
    model, processor = compose(stage1, language_model, refiner_of=refiner)
    soften_attention(model.model.language_model, _SOFTER)
    processor.chat_template = CHAT_TEMPLATE
    model.save_pretrained(out)
    processor.save_pretrained(out)


def train_stage2(
    settings: dict[str, Any],
    variant: Variant,
    scenes: dict[str, int],
    *,
    model: Path,
    rows: Path,
    store: Path,
    adapter: Path,
    out: Path,
) -> None:
    """Train the second stage, write its adapter, and write both as one model.

    Args:
        settings: of the recipe, `output_dir` included; `dialogues` for each scene, how many of them only look
            something up (`lookups`), and Muon's `matrix_learning_rate` and `matrix_learning_rates_of` parts.
        variant: which model of the table it is.
        scenes: settings of the rows, whose scenes are asked about.
        model: what `compose_micro` wrote.
        rows, store: as in `train_stage1`.
        adapter, out: folders.
    """
    settings = settings | {"model": str(model)}
    rates = settings.pop("matrix_learning_rate"), settings.pop("matrix_learning_rates_of")
    asked = settings.pop("dialogues"), settings.pop("lookups")
    train_rows = DialogueRows("train", scenes["train"], scenes["first"], *asked)
    model_arguments, data, training = _parse((SFTModelArguments, DataArguments, LyricsSFTConfig), settings, rows)
    set_seed(training.seed)
    composed, processor = build_sft(model_arguments, training)
    _use_store(processor, store, variant)
    _, eval_rows = data.open(processor)
    trainer = LyricsSFTTrainer(composed, training, train_rows, eval_rows, processor)
    use_muon(trainer, *rates)
    trainer.train(resume_from_checkpoint=newest_checkpoint(training))
    trainer.save_state()
    trainer.save_model(str(adapter))
    merged, processor = merge_adapter(adapter)
    merged.save_pretrained(out)
    processor.save_pretrained(out)


def _parse(kinds: Sequence[Any], settings: dict[str, Any], rows: Path) -> Any:
    data = {"train_data": str(rows / "train"), "eval_data": str(rows / "validation")}
    parser: Any = HfArgumentParser(kinds)  # pyright: ignore[reportArgumentType]
    return parser.parse_dict(data | settings)


def _queries(config: dict[str, Any]) -> int:
    return config["num_visual_queries"] + config["num_grounding_queries"]


def _mqformer_text(variant: Variant) -> str:
    return "spatial+instruction" if variant.refiner else "instruction"


def _use_store(processor: Any, store: Path, variant: Variant) -> None:
    if variant.refiner:
        processor.store = ViewedStore(RefinementStore.open(store), variant)

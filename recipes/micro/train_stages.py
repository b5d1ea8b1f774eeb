"""Steps 5 and 6: both stages of training with the ordinary trainers, and the merged model that results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser, TrainerCallback, set_seed

from ...conversion import compose, merge_adapter
from ...modeling_lyrics import LyricsForConditionalGeneration, LyricsForPreTraining
from ...processing_lyrics import LyricsProcessor
from ...refinement import RefinementStore
from ...trainers import LyricsPretrainingArguments, LyricsPretrainingTrainer
from ...trainers.common.data_arguments import DataArguments
from ...trainers.pretraining_setup import PretrainingModelArguments, build_pretraining
from ...trainers.sft_config import LyricsSFTConfig
from ...trainers.sft_setup import SFTModelArguments, build_sft
from ...trainers.sft_trainer import LyricsSFTTrainer
from .ablations import VariantStore
from .common.initialization import init_coordinate_embeddings, init_queries_one_per_region, scale_attention_logits
from .common.muon import use_muon
from .common.run_folders import RunFolders
from .common.step_trainer import run_trainer
from .configs import CHAT_TEMPLATE, MQFORMER
from .world.datasets import DialogueRows

_ATTENTION_LOGIT_SCALE = 0.5  # of the language model, before it sees image features


def train_stage1(folders: RunFolders) -> None:
    """Train and write the first stage, or write it untrained for a variant without it.

    The recipe has the arguments of the model, the data and the training, and Muon's `matrix_learning_rate`.
    """
    variant, settings = folders.variant, folders.training_settings("stage1")
    matrix_learning_rate = settings.pop("matrix_learning_rate")
    rows = folders.folder("rows")
    data = DataArguments(train_data=str(rows / "train"), eval_data=str(rows / "validation"))
    train_rows, eval_rows = data.open()
    vision, refiner = folders.model("vision"), folders.folder("refiner")
    model, processor, training = build_first_stage(settings | variant.settings, vision, refiner, variant.refiner)
    _set_store(processor, folders)
    trainer = LyricsPretrainingTrainer(model, training, train_rows, eval_rows, processor)
    if variant.stage1:
        use_muon(trainer, matrix_learning_rate)
        run_trainer(trainer, evaluate=False)
    trainer.save_model(str(folders.model("stage1")))


def build_first_stage(
    settings: dict[str, Any], vision: Path, refiner: Path, grounding: bool = True, one_per_region: bool = True
) -> tuple[LyricsForPreTraining, LyricsProcessor, LyricsPretrainingArguments]:
    """Build an untrained first stage.

    Args:
        settings: arguments of the model and of its training.
        vision: folder of the vision encoder.
        refiner: folder of a processor with its refiner.
        grounding: bool, whether there are grounding queries. Otherwise all queries are visual, and the processor has no
            refiner.
        one_per_region: bool, whether grounding queries are initialized to one region each.

    Returns:
        The model, its processor, and the arguments of its training.
    """
    queries, start = dict(MQFORMER), {"processor": str(refiner)}
    if not grounding:  # the same number of queries
        total = queries["num_visual_queries"] + queries["num_grounding_queries"]
        queries |= {"num_visual_queries": total, "num_grounding_queries": 0}
        start = {"tokenizer": str(refiner / "mqformer_tokenizer")}
    del queries["encoder_hidden_size"]  # taken from the vision encoder
    settings = {"vision_model": str(vision), "mqformer_config": queries, **start, **settings}
    arguments, training = _parse((PretrainingModelArguments, LyricsPretrainingArguments), settings)
    set_seed(training.seed)
    model, processor = build_pretraining(arguments)
    if one_per_region:
        init_queries_one_per_region(model.model.mqformer)
    embeddings: Any = model.model.mqformer.get_input_embeddings()
    init_coordinate_embeddings(embeddings.weight.data, processor.mqformer_tokenizer)
    processor.mqformer_text = "spatial+instruction" if grounding else "instruction"
    return model, processor, training


def compose_stages(folders: RunFolders) -> None:
    """Compose the first stage, the language model and the refiner, and write the model.

    The attention logits of the language model are scaled down. The projection is initialized from the seed.
    """
    refiner = folders.folder("refiner") if folders.variant.refiner else None
    for part in compose_micro(folders.model("stage1"), folders.model("language"), refiner, folders.seed):
        part.save_pretrained(folders.model("composed"))


def compose_micro(
    stage1: Path, language: Path, refiner: Path | None, seed: int
) -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """Compose a first stage, the language model and, if there is one, the refiner, with a projection from the seed.

    The attention logits of the language model are scaled down.
    """
    set_seed(seed)
    model, processor = compose(stage1, language, refiner_of=refiner)
    scale_attention_logits(model.model.language_model, _ATTENTION_LOGIT_SCALE)
    processor.chat_template = CHAT_TEMPLATE
    return model, processor


def train_stage2(folders: RunFolders) -> None:
    """Train the second stage, write its adapter, and write the merged model.

    The recipe has the arguments of the model, the data and the training, and

    - `dialogues`: number of dialogues about each scene;
    - `lookups`: number of rows at the beginning that ask about color, shape and character only;
    - `matrix_learning_rate`, and `matrix_learning_rates_of` parts of the model: learning rates of Muon.
    """
    settings = folders.training_settings("stage2")
    dialogues, lookups = settings.pop("dialogues"), settings.pop("lookups")
    scenes, rows = folders.settings("rows"), folders.folder("rows")
    train_rows = DialogueRows("train", scenes["train"], scenes["first"], dialogues, lookups)
    _, eval_rows = DataArguments(train_data=str(rows / "train"), eval_data=str(rows / "validation")).open()
    adapter = tune(
        settings, folders.model("composed"), train_rows, eval_rows, lambda processor: _set_store(processor, folders)
    )
    for part in merge_adapter(adapter):
        part.save_pretrained(folders.model("stage2"))


def tune(
    settings: dict[str, Any],
    composed: Path,
    train_rows: Any,
    eval_rows: Any = None,
    prepare: Callable[[LyricsProcessor], None] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Path:
    """Train the second stage of a composed model, and return the folder of its adapter.

    Args:
        settings: arguments of the training, and learning rates of Muon.
        composed: folder of the model.
        train_rows: rows of the training.
        eval_rows: rows of the evaluation, or `None`.
        prepare: function that prepares the processor.
        callbacks: further callbacks of the trainer.

    Raises:
        OutOfTimeError: a callback stopped the training before its last step.
    """
    settings = settings | {"model": str(composed)}
    rates = settings.pop("matrix_learning_rate"), settings.pop("matrix_learning_rates_of")
    arguments, training = _parse((SFTModelArguments, LyricsSFTConfig), settings)
    set_seed(training.seed)
    model, processor = build_sft(arguments, training)
    if prepare is not None:
        prepare(processor)
    trainer = LyricsSFTTrainer(model, training, train_rows, eval_rows, processor, callbacks=list(callbacks))
    use_muon(trainer, *rates)
    run_trainer(trainer, evaluate=False)
    adapter = Path(str(training.output_dir)) / "adapter"
    trainer.save_model(str(adapter))
    return adapter


def _parse(kinds: Sequence[Any], settings: dict[str, Any]) -> Any:
    """Return one object of each kind of arguments."""
    return HfArgumentParser(kinds).parse_dict(settings)  # pyright: ignore[reportArgumentType]


def _set_store(processor: LyricsProcessor, folders: RunFolders) -> None:
    """Give the processor the store, for a variant with a refiner."""
    if folders.variant.refiner:
        store = RefinementStore.open(folders.folder("store") / "all")
        processor.store = VariantStore(store, folders.variant)

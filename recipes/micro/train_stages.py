"""Steps 5 and 6: both stages of training with the ordinary trainers, and the merged model that results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import HfArgumentParser, set_seed

from ...conversion import compose, merge_adapter
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
    variant, refiner = folders.variant, folders.folder("refiner")
    settings, queries = folders.training_settings("stage1"), dict(MQFORMER)
    matrix_learning_rate = settings.pop("matrix_learning_rate")
    start = {"processor": str(refiner)}
    if not variant.refiner:  # the same number of queries, but all visual
        total = queries["num_visual_queries"] + queries["num_grounding_queries"]
        queries |= {"num_visual_queries": total, "num_grounding_queries": 0}
        start = {"tokenizer": str(refiner / "mqformer_tokenizer")}
    del queries["encoder_hidden_size"]  # taken from the vision encoder
    settings |= {"vision_model": str(folders.model("vision")), "mqformer_config": queries, **start, **variant.settings}
    model_arguments, data, training = _parse(
        (PretrainingModelArguments, DataArguments, LyricsPretrainingArguments), settings, folders
    )
    set_seed(training.seed)
    model, processor = build_pretraining(model_arguments)
    init_queries_one_per_region(model.model.mqformer)
    embeddings: Any = model.model.mqformer.get_input_embeddings()
    init_coordinate_embeddings(embeddings.weight.data, processor.mqformer_tokenizer)
    processor.mqformer_text = "spatial+instruction" if variant.refiner else "instruction"
    _set_store(processor, folders)
    train_rows, eval_rows = data.open()
    data.attach_store(processor)
    trainer = LyricsPretrainingTrainer(model, training, train_rows, eval_rows, processor)
    if variant.stage1:
        use_muon(trainer, matrix_learning_rate)
        run_trainer(trainer, evaluate=False)
    trainer.save_model(str(folders.model("stage1")))


def compose_stages(folders: RunFolders) -> None:
    """Compose the first stage, the language model and the refiner, and write the model.

    The attention logits of the language model are scaled down. The projection is initialized from the seed.
    """
    set_seed(folders.seed)
    refiner = folders.folder("refiner") if folders.variant.refiner else None
    model, processor = compose(folders.model("stage1"), folders.model("language"), refiner_of=refiner)
    scale_attention_logits(model.model.language_model, _ATTENTION_LOGIT_SCALE)
    processor.chat_template = CHAT_TEMPLATE
    model.save_pretrained(folders.model("composed"))
    processor.save_pretrained(folders.model("composed"))


def train_stage2(folders: RunFolders) -> None:
    """Train the second stage, write its adapter, and write the merged model.

    The recipe has the arguments of the model, the data and the training, and

    - `dialogues`: number of dialogues about each scene;
    - `lookups`: number of rows at the beginning that ask about color, shape and character only;
    - `matrix_learning_rate`, and `matrix_learning_rates_of` parts of the model: learning rates of Muon.
    """
    settings = folders.training_settings("stage2")
    settings["model"] = str(folders.model("composed"))
    rates = settings.pop("matrix_learning_rate"), settings.pop("matrix_learning_rates_of")
    dialogues, lookups = settings.pop("dialogues"), settings.pop("lookups")
    scenes = folders.settings("rows")
    train_rows = DialogueRows("train", scenes["train"], scenes["first"], dialogues, lookups)
    model_arguments, data, training = _parse((SFTModelArguments, DataArguments, LyricsSFTConfig), settings, folders)
    set_seed(training.seed)
    model, processor = build_sft(model_arguments, training)
    _set_store(processor, folders)
    _, eval_rows = data.open()
    data.attach_store(processor)
    trainer = LyricsSFTTrainer(model, training, train_rows, eval_rows, processor)
    use_muon(trainer, *rates)
    run_trainer(trainer, evaluate=False)
    adapter = folders.folder("stage2") / "adapter"
    trainer.save_model(str(adapter))
    for part in merge_adapter(adapter):
        part.save_pretrained(folders.model("stage2"))


def _parse(kinds: Sequence[Any], settings: dict[str, Any], folders: RunFolders) -> Any:
    """Return one object of each kind of arguments."""
    rows = folders.folder("rows")
    data = {"train_data": str(rows / "train"), "eval_data": str(rows / "validation")}
    return HfArgumentParser(kinds).parse_dict(data | settings)  # pyright: ignore[reportArgumentType]


def _set_store(processor: LyricsProcessor, folders: RunFolders) -> None:
    """Give the processor the store, for a variant with a refiner."""
    if folders.variant.refiner:
        store = RefinementStore.open(folders.folder("store") / "all")
        processor.store = VariantStore(store, folders.variant)

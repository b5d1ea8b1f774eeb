"""Composition of a first-stage checkpoint and a language model to a second-stage model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from lyrics.assets import MICRO_CHECKPOINT, MICRO_PRETRAINING, write_random_checkpoint
from lyrics.assets.random_model import build_text_tokenizer
from lyrics.conversion import compose
from lyrics.modeling_lyrics import LyricsForConditionalGeneration, LyricsForPreTraining
from lyrics.processing_lyrics import LyricsProcessor
from lyrics_cli.main import main

from ..cards import check_card, run_quick_start
from ..pretraining_parts import build_model as build_stage_1
from ..sft_parts import build_chats, build_processor, build_text_config


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folder with both checkpoints; the language model has more embeddings than its tokenizer has tokens."""
    folder = tmp_path_factory.mktemp("parts")
    build_stage_1(std=0.2).save_pretrained(folder / "stage1")
    processor = build_processor()
    processor.mqformer_text = "instruction"
    processor.save_pretrained(folder / "stage1")
    config = build_text_config()
    config.vocab_size += 5
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "llm")
    build_text_tokenizer().save_pretrained(folder / "llm")
    return folder


def test_the_parts_keep_their_weights(parts):
    from lyrics.trainers import LyricsSFTCollator

    first, text = build_stage_1(std=0.2), AutoModelForCausalLM.from_pretrained(parts / "llm")
    model, processor = compose(parts / "stage1", parts / "llm")
    for mine, theirs in (
        (model.model.vision_model, first.model.vision_model),
        (model.model.mqformer, first.model.mqformer),
        (model.model.language_model, text.model),
        (model.lm_head, text.lm_head),
    ):
        tensors = theirs.state_dict()
        assert all(torch.equal(one, tensors[name]) for name, one in mine.state_dict().items())
    assert not model.training
    assert processor.mqformer_text == "instruction"
    assert processor.num_query_tokens == model.config.mqformer_config.num_queries
    assert processor.image_token_id == model.config.image_token_id
    batch = LyricsSFTCollator(processor)(build_chats(3))
    del batch["samples"]
    assert model(**batch).loss.isfinite()


def test_the_refiner_is_the_one_that_the_first_stage_knows(parts, tmp_path):
    """Another one, or none where one was named, is refused."""
    _, processor = compose(MICRO_PRETRAINING, parts / "llm", refiner_of=MICRO_CHECKPOINT)
    known = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)
    assert processor.refiner_fingerprint == known.refiner_fingerprint
    assert processor.has_refiner
    LyricsProcessor.from_pretrained(MICRO_CHECKPOINT, refiner=False).save_pretrained(tmp_path / "none")
    with pytest.raises(ValueError, match="whose refiner is to be shared has none"):
        compose(MICRO_PRETRAINING, parts / "llm", refiner_of=tmp_path / "none")
    write_random_checkpoint(tmp_path / "other")
    with pytest.raises(ValueError, match="Name the model that has its refiner"):
        compose(MICRO_PRETRAINING, parts / "llm", refiner_of=tmp_path / "other")


def test_a_model_of_another_kind_is_not_built_with_random_weights(parts):
    """Transformers would take the default sizes, which are those of 13 billion parameters."""
    for place, message in (
        ("stage1", "needs a lyrics; `lyrics compose` gives it a language model"),
        ("llm", "a llama"),
    ):
        with pytest.raises(ValueError, match=message):
            LyricsForConditionalGeneration.from_pretrained(parts / place)
    with pytest.raises(ValueError, match="is a llama, and this needs a lyrics_pretraining or lyrics"):
        LyricsForPreTraining.from_pretrained(parts / "llm")


def test_the_compose_command(parts, tmp_path, capsys, monkeypatch):
    """With the refiner of another checkpoint; the auto classes load what it writes, and so does its card."""
    write_random_checkpoint(tmp_path / "micro")
    words = [str(parts / "stage1"), "--language-model", str(parts / "llm"), "--out", str(tmp_path / "out")]
    assert main(["compose", *words, "--refiner", str(tmp_path / "micro")]) == 2
    assert "region features of width 36, but this processor's model takes 12" in capsys.readouterr().err
    assert main(["compose", *words, "--dtype", "bfloat16"]) == 0
    card = check_card(tmp_path / "out", base_model=None)
    assert "answers mean nothing yet" in card.text
    assert run_quick_start(card, monkeypatch, tmp_path / "out")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    assert LyricsProcessor.from_pretrained(tmp_path / "out").has_refiner is False
    assert main(["compose", *words]) == 2
    assert "exists and is not an empty directory" in capsys.readouterr().err
    words = ["--language-model", str(parts / "llm"), "--out", str(tmp_path / "wrong")]
    assert main(["compose", "--from", str(parts / "stage1"), *words]) == 2
    assert "is a first stage, and no whole model" in capsys.readouterr().err
    words = [str(parts / "stage1"), "--language-model", str(parts / "stage1"), "--out", str(tmp_path / "wrong")]
    assert main(["compose", *words]) == 2
    assert "is a lyrics_pretraining, and no causal language model" in capsys.readouterr().err

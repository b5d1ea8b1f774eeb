"""Symbolic inputs of the language model: objects as vectors, hints and labels."""

import json

import pytest
import torch
from transformers import LlamaForCausalLM

from lyrics.recipes.micro import SymbolicDialogues
from lyrics.recipes.micro.common.initialization import (
    coordinate_values,
    init_coordinate_embeddings,
    init_name_embeddings,
    word_id,
)
from lyrics.recipes.micro.configs import build_micro_text_tokenizer, language_model_config
from lyrics.recipes.micro.language_model.symbolic_inputs import (
    SymbolicCollator,
    SymbolicLanguageModel,
    answer_symbolic_cases,
)
from lyrics.recipes.micro.world.cases import KINDS, draw_cases
from lyrics.recipes.micro.world.names import all_names


@pytest.fixture
def tokenizer():
    return build_micro_text_tokenizer()


@pytest.fixture
def language_model(tokenizer):
    torch.manual_seed(0)
    model = SymbolicLanguageModel(language_model_config(tokenizer)).eval()
    init_name_embeddings(model.get_input_embeddings().weight.data, tokenizer, all_names())
    return model


def test_an_object_is_embedded_as_its_words_and_its_box(language_model, tokenizer):
    rows = [SymbolicDialogues("train", 2)[index] for index in range(2)]
    batch = SymbolicCollator(build_micro_text_tokenizer())(rows)
    table = language_model.get_input_embeddings().weight.data
    table[tokenizer.pad_token_id] = 1.0  # objects without a character must not contain it
    for index, row in enumerate(rows):
        assert (batch["input_ids"][index] < 0).sum() == batch["words"].shape[1]
        thing = row["objects"][0]
        described_by = [word for word in (thing.size, thing.color, thing.shape, thing.character) if word]
        words = table[[word_id(tokenizer, word) for word in described_by]].sum(dim=0)
        embedded = language_model.embed_objects(batch["words"], batch["boxes"])[index]
        torch.testing.assert_close(embedded[8], words)  # the first eight places are visual queries
        assert (embedded[:8] == 0).all()
        assert (embedded[8 + len(row["objects"]) :] == 0).all()
    language_model.box_scale = 1.0
    moved = language_model.embed_objects(batch["words"], batch["boxes"]) - language_model.embed_objects(
        batch["words"], batch["boxes"] * 0.9
    )
    assert (moved[:, 8].norm(dim=-1) > 0.03 * words.norm()).all()
    assert (moved[:, :8] == 0).all()


def test_hints_give_the_box_of_an_answer_at_its_name_and_before_its_coordinates(language_model, tokenizer):
    """In random rows, and only during training."""
    rows = SymbolicDialogues("train", 64, groups=["everything"])
    batch = SymbolicCollator(build_micro_text_tokenizer())([rows[index] for index in range(24)])
    ids, kinds, boxes = batch["input_ids"], batch["hint_kinds"], batch["hint_boxes"]
    answers = [
        (row, message["content"][0]["text"])
        for row in range(24)
        for message in rows[row]["messages"][1::2]
        if "[" in message["content"][0]["text"]
    ]
    named, due = (kinds == 1).nonzero().tolist(), (kinds == 2).nonzero().tolist()
    assert (len(named), len(due)) == (len(answers), 4 * len(answers))
    for (row, answer), (hinted_row, token) in zip(answers, named, strict=True):
        name, box = answer.split(": ")
        assert (row, name) == (hinted_row, tokenizer.decode([ids[row, token]]).strip())
        torch.testing.assert_close(boxes[row, token], torch.tensor(json.loads(box)))
    answered = [json.loads(box) for _, answer in answers for box in [answer.split(": ")[1]]]
    for number, (row, token) in enumerate(due):
        box, place = answered[number // 4], number % 4
        assert tokenizer.decode(ids[row, token + 1 : token + 3]) == f"{box[place]:.3f}"
        torch.testing.assert_close(boxes[row, token], torch.tensor(box))
    language_model.hints = True
    loss = language_model(**batch).loss
    assert loss == language_model(**batch | {"hint_boxes": 1 - boxes}).loss
    language_model.train()
    torch.manual_seed(0)
    loss = language_model(**batch).loss
    torch.manual_seed(0)
    assert loss != language_model(**batch | {"hint_boxes": 1 - boxes}).loss


def test_a_batch_is_answered_like_single_questions(language_model, tokenizer):
    plain = LlamaForCausalLM(language_model.config).eval()
    weights = language_model.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    collator, cases = SymbolicCollator(build_micro_text_tokenizer()), draw_cases(1)
    alone, batched = (answer_symbolic_cases(plain, language_model, collator, cases, size) for size in (1, 8))
    assert [outcome.answer for outcome in alone] == [outcome.answer for outcome in batched]
    assert {outcome.case.question.kind for outcome in alone} == set(KINDS)


def test_a_coordinate_is_similar_to_the_boxes_that_contain_it(language_model, tokenizer):
    boxes = coordinate_values()[:, None].expand(-1, 4)
    table = language_model.get_input_embeddings().weight.data
    init_coordinate_embeddings(table, tokenizer, language_model.embed_boxes(boxes))
    coordinates = table[tokenizer.convert_tokens_to_ids([f"{value / 100:.2f}" for value in range(101)])]
    for corner in range(4):
        boxes = torch.rand(1000, 4)
        boxes[:, corner] = 0.3
        scores = (language_model.embed_boxes(boxes) @ coordinates.mT).mean(dim=0)
        assert 28 < scores.argmax() < 32


def test_labels_are_the_answers():
    row = SymbolicDialogues("train", 1, groups=["lookups"])[0]
    tokenizer = build_micro_text_tokenizer()
    collate = SymbolicCollator(tokenizer)
    labels = collate([row])["labels"][0]
    answers = [message["content"][0]["text"] for message in row["messages"][1::2]]
    assert tokenizer.decode(labels[labels >= 0]) == "".join(f" {answer}</s>" for answer in answers)

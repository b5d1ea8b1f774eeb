"""The shipped micro model: dtypes, offloading, generation with placeholders outside the vocabulary, threads."""

import json
import sys

import pytest
import torch
import transformers
from accelerate import cpu_offload, disk_offload
from peft import PromptTuningConfig, get_peft_model
from PIL import Image
from torch.utils.data import Dataset
from transformers import AutoModelForMultimodalLM, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

from lyrics import MICRO_CHECKPOINT, SCENE_PICTURE, LyricsForConditionalGeneration, LyricsProcessor
from lyrics.modeling_lyrics import attribute_answer

from ..threads import run_at_once

GREEDY = {"max_new_tokens": 12, "do_sample": False}


@pytest.fixture(scope="module")
def shipped():
    return LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT)


@pytest.fixture(scope="module")
def shipped_processor():
    return LyricsProcessor.from_pretrained(MICRO_CHECKPOINT)


@pytest.fixture(scope="module")
def question(shipped_processor):
    """A question about the scene, as inputs of the model."""
    text = {"type": "text", "text": "What color is the star?"}
    messages = [{"role": "user", "content": [{"type": "image", "image": Image.open(SCENE_PICTURE)}, text]}]
    return shipped_processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )


@pytest.fixture(scope="module")
def answered(shipped, question):
    """The tokens of question and answer."""
    return shipped.generate(**question, **GREEDY)


# ---------------------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_asked_for_reaches_every_level(dtype, tmp_path):
    """The saved configuration has a dtype on each level, which must not win over the one that is asked for."""
    processor = LyricsProcessor.from_pretrained(MICRO_CHECKPOINT, refiner_kwargs={"dtype": dtype})
    model = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT, dtype=dtype)
    assert {weight.dtype for weight in (*processor.refiner.parameters(), *model.parameters())} == {dtype}
    assert processor.refine(Image.open(SCENE_PICTURE))[0].labels
    processor.save_pretrained(tmp_path)
    again = LyricsProcessor.from_pretrained(tmp_path)
    assert {weight.dtype for weight in again.refiner.parameters()} == {dtype}
    assert again.refine(Image.open(SCENE_PICTURE))[0].labels


def test_a_model_that_was_cast_loads_in_its_dtype(shipped_processor, tmp_path):
    """Casting leaves the dtype of nested configurations as it was."""
    LyricsProcessor.from_pretrained(MICRO_CHECKPOINT).to(dtype=torch.bfloat16).save_pretrained(tmp_path)
    loaded = LyricsProcessor.from_pretrained(tmp_path)
    assert {weight.dtype for weight in loaded.refiner.parameters()} == {torch.bfloat16}


# ---------------------------------------------------------------------------------------------------- offloading


def offload(kind, folder):
    """Return the shipped model with its weights offloaded."""
    if kind == "auto":
        return LyricsForConditionalGeneration.from_pretrained(
            MICRO_CHECKPOINT, device_map="auto", max_memory={"cpu": "1MB"}, offload_folder=folder
        )
    model = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT)
    if kind == "cpu":
        return cpu_offload(model, execution_device=torch.device("cpu"))
    return disk_offload(model, folder, execution_device=torch.device("cpu"))


@pytest.mark.parametrize("kind", ["auto", "cpu", "disk"])
def test_an_offloaded_model_gives_the_same_answer(kind, question, answered, tmp_path):
    assert torch.equal(offload(kind, tmp_path).generate(**question, **GREEDY), answered)


# ---------------------------------------------------------------------------------------------------- generation


@pytest.mark.parametrize(
    "options",
    [
        {"prompt_lookup_num_tokens": 4},
        {"prompt_lookup_num_tokens": 40, "max_matching_ngram_size": 1, "repetition_penalty": 1.01},
        {"repetition_penalty": 1.01},
        {"encoder_repetition_penalty": 1.01},
        {"no_repeat_ngram_size": 1},
        {"encoder_no_repeat_ngram_size": 1},
        {"num_beams": 2, "repetition_penalty": 1.01, "no_repeat_ngram_size": 2},
    ],
)
def test_options_that_look_up_the_prompt(shipped, question, answered, options):
    """The placeholder's id, which is the size of the vocabulary, is in the prompt."""
    assert shipped.config.image_token_id == shipped.config.text_config.vocab_size
    assert torch.equal(shipped.generate(**question, **GREEDY, **options), answered)


@pytest.mark.parametrize("inside", [False, True])
def test_a_placeholder_is_never_proposed(shipped, question, monkeypatch, inside):
    """The prompt ends with the token before the image, so that looking it up proposes placeholders."""
    config = shipped.config
    if inside:
        monkeypatch.setattr(config, "image_token_id", config.text_config.vocab_size - 1)
    before = int(question["input_ids"][0][(question["input_ids"][0] == config.text_config.vocab_size).nonzero()[0] - 1])
    ids = question["input_ids"].masked_fill(
        question["input_ids"] == config.text_config.vocab_size, config.image_token_id
    )
    inputs = {**question, "input_ids": torch.cat([ids, torch.tensor([[before]])], dim=1)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    expected = shipped.generate(**inputs, **GREEDY)
    lookup = {"prompt_lookup_num_tokens": 5, "max_matching_ngram_size": 1}
    assert torch.equal(shipped.generate(**inputs, **GREEDY, **lookup), expected)


def test_what_cannot_embed_a_placeholder_is_refused_by_name(shipped, question):
    size = shipped.config.text_config.vocab_size
    config = LlamaConfig(
        vocab_size=size, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    assistant = LlamaForCausalLM(config).eval()
    with pytest.raises(ValueError, match=f"assistant_model, a LlamaForCausalLM, has no embedding .* {size}"):
        shipped.generate(**question, **GREEDY, assistant_model=assistant)
    with pytest.raises(ValueError, match="assistant_early_exit"):
        shipped.generate(**question, **GREEDY, assistant_early_exit=1)
    text = {"input_ids": torch.tensor([[1, 5, 6]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    expected = shipped.generate(**text, **GREEDY)
    assert torch.equal(shipped.generate(**text, **GREEDY, assistant_model=assistant), expected)
    tuned = get_peft_model(
        LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT),
        PromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=2, num_layers=4, token_dim=128, num_attention_heads=4
        ),
    )
    with pytest.raises(ValueError, match="PromptTuningConfig looks up the embedding"):
        tuned.generate(**question, **GREEDY)
    tuned.generate(**text, **GREEDY)


def test_generation_from_embeddings(shipped, question, answered):
    """From embeddings with the image in them, and from embeddings of text whose ids say where the image belongs."""
    ids, token = question["input_ids"], shipped.config.image_token_id
    embeds = shipped.get_input_embeddings()(ids.masked_fill(ids == token, 0))
    assert torch.equal(shipped.generate(**question, inputs_embeds=embeds, **GREEDY), answered)
    image = shipped.get_image_features(
        **{name: value for name, value in question.items() if name not in ("input_ids", "attention_mask")},
        return_dict=True,
    )
    whole = embeds.masked_scatter((ids == token).unsqueeze(-1), image.pooler_output)
    options = {"inputs_embeds": whole, "attention_mask": question["attention_mask"], **GREEDY}
    assert torch.equal(shipped.generate(**options), answered[:, ids.shape[1] :])
    without_ids = {name: value for name, value in question.items() if name != "input_ids"}
    with pytest.raises(ValueError, match="pass input_ids as well"):
        shipped.generate(**without_ids, inputs_embeds=embeds, **GREEDY)


@pytest.mark.parametrize("marked", [False, True])
def test_edits_of_the_settings_of_generation_have_an_effect(shipped, tmp_path, marked):
    assert "_from_model_config" not in json.loads((MICRO_CHECKPOINT / "generation_config.json").read_text())
    shipped.save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    settings = json.loads(path.read_text())
    assert not settings.get("_from_model_config")
    path.write_text(json.dumps(settings | {"max_new_tokens": 3} | ({"_from_model_config": True} if marked else {})))
    assert LyricsForConditionalGeneration.from_pretrained(tmp_path).generation_config.max_new_tokens == 3


# ---------------------------------------------------------------------------------------------------- surroundings


def test_where_transformers_looks_for_multimodal_models():
    """The auto class, and the table and the name by which `transformers serve` finds the class."""
    assert isinstance(AutoModelForMultimodalLM.from_pretrained(MICRO_CHECKPOINT), LyricsForConditionalGeneration)
    name = MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES["lyrics"]
    for module in (transformers, sys.modules["transformers"]):
        assert getattr(module, name) is LyricsForConditionalGeneration


class Questions(Dataset):
    """The same question twice."""

    def __init__(self, question):
        self.row = {name: value[0] for name, value in question.items()}
        self.row["labels"] = self.row["input_ids"]

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.row


def test_prediction_gathers_logits_alone(shipped, question, tmp_path):
    arguments = TrainingArguments(str(tmp_path), per_device_eval_batch_size=2, report_to=[], use_cpu=True)
    predicted = Trainer(shipped, arguments).predict(Questions(question)).predictions
    assert predicted.shape == (2, question["input_ids"].shape[1], shipped.config.text_config.vocab_size)


def test_threads_that_load_models_at_once(question, answered):
    """Transformers changes torch's functions while it loads."""
    models = run_at_once(lambda _: LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT), 6)
    assert all(torch.equal(model.generate(**question, **GREEDY), answered) for model in models)


def test_threads_that_explain_and_answer_at_once(shipped, question, answered):
    """An explanation needs eager attention, which no other thread may see."""
    expected = attribute_answer(shipped, question, answered).token_weights
    before = [part.config._attn_implementation for part in (shipped.model.language_model, shipped.model.mqformer)]

    def work(index):
        for _ in range(4):
            if index % 2:
                assert torch.equal(shipped.generate(**question, **GREEDY), answered)
            else:
                assert torch.allclose(attribute_answer(shipped, question, answered).token_weights, expected)

    run_at_once(work, 6)
    after = [part.config._attn_implementation for part in (shipped.model.language_model, shipped.model.mqformer)]
    assert after == before != ["eager", "eager"]


def test_the_answer_of_an_offloaded_model_is_explained(question, answered, shipped, tmp_path):
    expected = attribute_answer(shipped, question, answered).token_weights
    found = attribute_answer(offload("cpu", tmp_path), question, answered).token_weights
    assert torch.allclose(found, expected)

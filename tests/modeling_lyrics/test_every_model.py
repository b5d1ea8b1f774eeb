"""The same matrix for every model: tiny random weights, every optional setting switched on, and the shipped model.

Dtypes, files, copies, offloading, quantization, adapters, threads, and every mode of generation.
"""

import copy
import json
import pickle
import shutil
import sys

import peft
import pytest
import torch
import transformers
from accelerate import cpu_offload, disk_offload
from PIL import Image
from torch.utils.data import Dataset
from transformers import (
    AutoModelForMultimodalLM,
    LlamaConfig,
    LlamaForCausalLM,
    TextIteratorStreamer,
    Trainer,
    TrainingArguments,
    pipeline,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
from transformers.utils.import_utils import is_torchvision_available

from lyrics import MICRO_CHECKPOINT, SCENE_PICTURE, LyricsForConditionalGeneration, LyricsProcessor
from lyrics.modeling_lyrics import attribute_answer
from lyrics_cli.main import main

from ..threads import run_at_once
from .test_invariances import quantized_parts, quantizers

GREEDY = {"max_new_tokens": 12, "do_sample": False}


@pytest.fixture(scope="module")
def any_model(any_checkpoint):
    return LyricsForConditionalGeneration.from_pretrained(any_checkpoint)


@pytest.fixture(scope="module")
def any_processor(any_checkpoint):
    return LyricsProcessor.from_pretrained(any_checkpoint)


@pytest.fixture(scope="module")
def scene():
    return Image.open(SCENE_PICTURE)


def ask(processor, scene):
    """Return a question about the scene, as inputs of the model."""
    text = {"type": "text", "text": "What color is the ring?"}
    messages = [{"role": "user", "content": [{"type": "image", "image": scene}, text]}]
    return processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )


@pytest.fixture(scope="module")
def question(any_processor, scene):
    return ask(any_processor, scene)


@pytest.fixture(scope="module")
def answered(any_model, question):
    """The tokens of question and answer."""
    return any_model.generate(**question, **GREEDY)


# ---------------------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_asked_for_reaches_every_level(dtype, any_checkpoint, question, scene, tmp_path):
    """A saved configuration may have a dtype on each level, which must not win over the one that is asked for."""
    processor = LyricsProcessor.from_pretrained(any_checkpoint, refiner_kwargs={"dtype": dtype})
    model = LyricsForConditionalGeneration.from_pretrained(any_checkpoint, dtype=dtype)
    assert {weight.dtype for weight in (*processor.refiner.parameters(), *model.parameters())} == {dtype}
    assert len(processor.refine(scene)[0].region_features)
    assert model(**question).logits.isfinite().all()
    processor.save_pretrained(tmp_path)
    again = LyricsProcessor.from_pretrained(tmp_path)
    assert {weight.dtype for weight in again.refiner.parameters()} == {dtype}


def test_a_model_that_was_cast_loads_in_its_dtype(any_checkpoint, tmp_path):
    """Casting leaves the dtype of nested configurations as it was."""
    LyricsProcessor.from_pretrained(any_checkpoint).to(dtype=torch.bfloat16).save_pretrained(tmp_path)
    loaded = LyricsProcessor.from_pretrained(tmp_path)
    assert {weight.dtype for weight in loaded.refiner.parameters()} == {torch.bfloat16}


# ---------------------------------------------------------------------------------------------------- files and copies


def assert_same(checkpoint, scene, question, answered, **options):
    """A checkpoint gives the same objects, inputs and answer."""
    inputs = ask(LyricsProcessor.from_pretrained(checkpoint, **options), scene)
    assert all(torch.equal(inputs[name], question[name]) for name in question)
    model = LyricsForConditionalGeneration.from_pretrained(checkpoint, **options)
    assert torch.equal(model.generate(**inputs, **GREEDY), answered)


def test_saved_is_loaded(any_model, any_processor, scene, question, answered, tmp_path):
    any_model.save_pretrained(tmp_path, max_shard_size="1MB")
    any_processor.save_pretrained(tmp_path)
    assert_same(tmp_path, scene, question, answered)


def test_a_subfolder_is_a_checkpoint(any_checkpoint, scene, question, answered, tmp_path):
    shutil.copytree(any_checkpoint, tmp_path / "models" / "any")
    assert_same(tmp_path, scene, question, answered, subfolder="models/any")


def test_a_converted_checkpoint_is_loaded(any_checkpoint, scene, question, answered, tmp_path):
    assert main(["convert", str(any_checkpoint), "--out", str(tmp_path / "same")]) == 0
    assert_same(tmp_path / "same", scene, question, answered)
    assert main(["convert", str(any_checkpoint), "--out", str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    half = LyricsForConditionalGeneration.from_pretrained(tmp_path / "half")
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    assert half.generate(**question, **GREEDY).shape[1] > question["input_ids"].shape[1]


def test_pickles_are_copies(any_model, any_processor, scene, question, answered):
    """Also after the model recorded outputs, for which Transformers installs hooks that cannot be pickled."""
    any_model(**question, output_hidden_states=True, output_attentions=True)
    inputs = ask(pickle.loads(pickle.dumps(any_processor)), scene)
    assert all(torch.equal(inputs[name], question[name]) for name in question)
    assert torch.equal(pickle.loads(pickle.dumps(any_model)).generate(**inputs, **GREEDY), answered)


# ---------------------------------------------------------------------------------------------------- offloading


def offload(checkpoint, kind, folder):
    """Return a model with its weights offloaded."""
    if kind == "auto":
        return LyricsForConditionalGeneration.from_pretrained(
            checkpoint, device_map="auto", max_memory={"cpu": "1MB"}, offload_folder=folder
        )
    model = LyricsForConditionalGeneration.from_pretrained(checkpoint)
    if kind == "cpu":
        return cpu_offload(model, execution_device=torch.device("cpu"))
    return disk_offload(model, folder, execution_device=torch.device("cpu"))


@pytest.mark.parametrize("kind", ["auto", "cpu", "disk"])
def test_an_offloaded_model_gives_the_same_answer(any_checkpoint, kind, question, answered, tmp_path):
    assert torch.equal(offload(any_checkpoint, kind, tmp_path).generate(**question, **GREEDY), answered)


def test_the_answer_of_an_offloaded_model_is_explained(any_checkpoint, any_model, question, answered, tmp_path):
    expected = attribute_answer(any_model, question, answered).token_weights
    found = attribute_answer(offload(any_checkpoint, "cpu", tmp_path), question, answered).token_weights
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("kind", ["cpu", "auto"])
def test_a_refiner_that_is_offloaded_is_refused(any_checkpoint, kind, scene, tmp_path):
    """Transformers' Grounding DINO and SAM read weights of modules that they do not call."""
    options = {"device_map": "auto", "max_memory": {"cpu": "1MB"}, "offload_folder": str(tmp_path)}
    processor = LyricsProcessor.from_pretrained(any_checkpoint, refiner_kwargs=options if kind == "auto" else {})
    if kind == "cpu":
        cpu_offload(processor.refiner, execution_device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"The refiner's detector cannot be offloaded, but \d+ of its weights are"):
        processor.refine(scene)


@pytest.mark.parametrize("method", ["torchao", "8 bits", "4 bits"])
def test_only_the_language_model_is_quantized(any_checkpoint, any_model, question, method):
    """Vision encoder, MQ-Former and projection keep their weights, bit for bit."""
    model = LyricsForConditionalGeneration.from_pretrained(any_checkpoint, quantization_config=quantizers()[method])
    assert quantized_parts(model) == {"model.language_model"}
    with torch.no_grad():
        assert torch.equal(model(**question).image_hidden_states, any_model(**question).image_hidden_states)
    assert model.generate(**question, **GREEDY).shape[1] > question["input_ids"].shape[1]


# ---------------------------------------------------------------------------------------------------- generation


SAME = (  # as many tokens, and the same ones
    {"prompt_lookup_num_tokens": 4},
    {"prompt_lookup_num_tokens": 40, "max_matching_ngram_size": 1},
    {"use_cache": False},
    {"cache_implementation": "static"},
)
LOOKING_UP_THE_PROMPT = (
    {"prompt_lookup_num_tokens": 40, "max_matching_ngram_size": 1, "repetition_penalty": 1.01},
    {"repetition_penalty": 1.01},
    {"encoder_repetition_penalty": 1.01},
    {"no_repeat_ngram_size": 1},
    {"encoder_no_repeat_ngram_size": 1},
    {"num_beams": 2, "repetition_penalty": 1.01, "no_repeat_ngram_size": 2},
)
OTHER = ({"num_beams": 3}, {"do_sample": True, "top_k": 5}, {"num_beams": 2, "num_return_sequences": 2})


@pytest.mark.parametrize("options", SAME, ids=lambda options: "-".join(options))
def test_modes_of_generation_that_change_no_token(any_model, question, answered, options):
    assert torch.equal(any_model.generate(**question, **GREEDY | options), answered)


@pytest.mark.parametrize("options", [*LOOKING_UP_THE_PROMPT, *OTHER], ids=lambda options: "-".join(options))
def test_every_mode_of_generation(any_checkpoint, any_model, question, answered, options):
    """The placeholder is in the prompt, and its id may be the size of the vocabulary; it is never an answer."""
    torch.manual_seed(0)
    found = any_model.generate(**question, **GREEDY | options)
    length = question["input_ids"].shape[1]
    assert (found[:, :length] == question["input_ids"]).all()
    assert found.shape[1] > length
    assert not (found[:, length:] == any_model.config.image_token_id).any()
    if any_checkpoint == MICRO_CHECKPOINT and options in LOOKING_UP_THE_PROMPT:  # it is sure of its answer
        assert torch.equal(found, answered)


def test_tokens_are_streamed(any_model, any_processor, question, answered):
    streamer = TextIteratorStreamer(any_processor.tokenizer, skip_prompt=True)
    any_model.generate(**question, **GREEDY, streamer=streamer)
    assert "".join(streamer) == any_processor.decode(answered[0, question["input_ids"].shape[1] :])


def test_a_model_assists_another(any_checkpoint, any_model, question, answered):
    assistant = LyricsForConditionalGeneration.from_pretrained(any_checkpoint)
    assert torch.equal(any_model.generate(**question, **GREEDY, assistant_model=assistant), answered)


@pytest.mark.parametrize("inside", [False, True])
def test_a_placeholder_is_never_proposed(any_model, question, monkeypatch, inside):
    """The prompt ends with the token before the image, so that looking it up proposes placeholders."""
    config, is_placeholder = any_model.config, question["input_ids"] == any_model.config.image_token_id
    before = int(question["input_ids"][0][is_placeholder[0].nonzero()[0] - 1])
    monkeypatch.setattr(config, "image_token_id", config.text_config.vocab_size - int(inside))
    ids = question["input_ids"].masked_fill(is_placeholder, config.image_token_id)
    inputs = {**question, "input_ids": torch.cat([ids, torch.tensor([[before]])], dim=1)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    expected = any_model.generate(**inputs, **GREEDY)
    lookup = {"prompt_lookup_num_tokens": 5, "max_matching_ngram_size": 1}
    assert torch.equal(any_model.generate(**inputs, **GREEDY, **lookup), expected)


def test_what_cannot_embed_a_placeholder_is_refused_by_name(scene):
    shipped = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT)
    size = shipped.config.text_config.vocab_size
    question = ask(LyricsProcessor.from_pretrained(MICRO_CHECKPOINT), scene)
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


LEARNED_PROMPTS = {"num_virtual_tokens": 2, "num_layers": 4, "token_dim": 128, "num_attention_heads": 4}


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig", "CPTConfig"])
def test_learned_prompts_are_refused_by_name(any_model, kind):
    """PEFT ends in an IndexError with images, and gives wrong tokens without them."""
    more = {"cpt_token_ids": [1, 2], "cpt_tokens_type_mask": [1, 1]} if kind == "CPTConfig" else {}
    config = getattr(peft, kind)(task_type=peft.TaskType.CAUSAL_LM, **LEARNED_PROMPTS | more)
    with pytest.raises(ValueError, match="Lyrics does not support PEFT's learned prompts"):
        peft.get_peft_model(copy.deepcopy(any_model), config)


def test_generation_from_embeddings(any_model, question, answered):
    """From embeddings with the image in them, and from embeddings of text whose ids say where the image belongs."""
    ids, token = question["input_ids"], any_model.config.image_token_id
    embeds = any_model.get_input_embeddings()(ids.masked_fill(ids == token, 0))
    assert torch.equal(any_model.generate(**question, inputs_embeds=embeds, **GREEDY), answered)
    image = any_model.get_image_features(
        **{name: value for name, value in question.items() if name not in ("input_ids", "attention_mask")},
        return_dict=True,
    )
    whole = embeds.masked_scatter((ids == token).unsqueeze(-1), image.pooler_output)
    options = {"inputs_embeds": whole, "attention_mask": question["attention_mask"], **GREEDY}
    assert torch.equal(any_model.generate(**options), answered[:, ids.shape[1] :])
    if token < any_model.config.text_config.vocab_size:
        return  # the placeholder's own embedding says where the image belongs
    without_ids = {name: value for name, value in question.items() if name != "input_ids"}
    with pytest.raises(ValueError, match="pass input_ids as well"):
        any_model.generate(**without_ids, inputs_embeds=embeds, **GREEDY)


def test_hidden_states_of_a_generation(any_model, question, answered):
    """Transformers keeps from the language model what `get_image_features` takes by name."""
    output = any_model.generate(**question, **GREEDY, return_dict_in_generate=True, output_hidden_states=True)
    assert torch.equal(output.sequences, answered)
    first = any_model(**question, output_hidden_states=True).hidden_states
    assert all(torch.allclose(one, other) for one, other in zip(output.hidden_states[0], first, strict=True))
    image = any_model.get_image_features(
        **{name: value for name, value in question.items() if name not in ("input_ids", "attention_mask")},
        output_hidden_states=True,
    )
    assert len(image.hidden_states) == any_model.config.vision_config.num_hidden_layers + 1


@pytest.mark.parametrize("marked", [False, True])
def test_edits_of_the_settings_of_generation_have_an_effect(any_model, tmp_path, marked):
    assert "_from_model_config" not in json.loads((MICRO_CHECKPOINT / "generation_config.json").read_text())
    any_model.save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    settings = json.loads(path.read_text())
    assert not settings.get("_from_model_config")
    path.write_text(json.dumps(settings | {"max_new_tokens": 3} | ({"_from_model_config": True} if marked else {})))
    assert LyricsForConditionalGeneration.from_pretrained(tmp_path).generation_config.max_new_tokens == 3


# ---------------------------------------------------------------------------------------------------- surroundings


@pytest.mark.parametrize("task", ["image-text-to-text", "any-to-any"])
def test_a_pipeline_answers(task, any_model, any_processor, scene, question, answered):
    text = {"type": "text", "text": "What color is the ring?"}
    messages = [{"role": "user", "content": [{"type": "image", "image": scene}, text]}]
    if task == "any-to-any" and not is_torchvision_available():
        with pytest.raises(ImportError, match="requires the Torchvision library"):
            pipeline(task, model=any_model, processor=any_processor)
        return
    chat = pipeline(task, model=any_model, processor=any_processor)(text=messages, **GREEDY)[0]["generated_text"]
    expected = any_processor.decode(answered[0, question["input_ids"].shape[1] :], skip_special_tokens=True)
    assert chat[-1]["content"].strip() == expected.strip()


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


def test_prediction_gathers_logits_alone(any_model, question, tmp_path):
    arguments = TrainingArguments(str(tmp_path), per_device_eval_batch_size=2, report_to=[], use_cpu=True)
    predicted = Trainer(any_model, arguments).predict(Questions(question)).predictions
    assert predicted.shape == (2, question["input_ids"].shape[1], any_model.config.text_config.vocab_size)


def test_threads_that_load_models_at_once(any_checkpoint, question, answered):
    """Transformers changes torch's functions while it loads."""
    models = run_at_once(lambda _: LyricsForConditionalGeneration.from_pretrained(any_checkpoint), 4)
    assert all(torch.equal(model.generate(**question, **GREEDY), answered) for model in models)


def test_threads_that_explain_and_answer_at_once(any_model, question, answered):
    """An explanation needs eager attention, which no other thread may see."""
    expected = attribute_answer(any_model, question, answered).token_weights
    before = [part.config._attn_implementation for part in (any_model.model.language_model, any_model.model.mqformer)]

    def work(index):
        for _ in range(2):
            if index % 2:
                assert torch.equal(any_model.generate(**question, **GREEDY), answered)
            else:
                assert torch.allclose(attribute_answer(any_model, question, answered).token_weights, expected)

    run_at_once(work, 4)
    after = [part.config._attn_implementation for part in (any_model.model.language_model, any_model.model.mqformer)]
    assert after == before != ["eager", "eager"]

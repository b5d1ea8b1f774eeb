"""Language models of many families: composed, trained in their own words, batched, merged and loaded again."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from lyrics.conversion import compose
from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.processing_lyrics.language_model_templates import is_own_template, original_template
from lyrics.trainers import LyricsSFTCollator

from ..language_models import FAMILIES, UNUSUAL, save_language_model
from ..pretraining_parts import build_model as build_stage_1
from ..sft_parts import build_chat, build_chats, build_processor, say


@pytest.fixture(scope="module")
def stage1(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage1")
    build_stage_1(std=0.2).save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder


def without_system(row):
    return row | {"messages": [message for message in row["messages"] if message["role"] != "system"]}


def learned(processor, batch, index):
    """Text of the labels of a row."""
    return processor.tokenizer.decode([label for label in batch["labels"][index].tolist() if label != -100])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family(name, stage1, tmp_path):
    """Composed, it keeps its template, learns its answers with their end, and answers a batch as one by one.

    All of that after it was saved and loaded again. It stops at every token that the language model declares.
    """
    family = FAMILIES[name]
    for part in compose(stage1, save_language_model(family, tmp_path / "language")):
        part.save_pretrained(tmp_path / "composed")
    model = LyricsForConditionalGeneration.from_pretrained(tmp_path / "composed").eval()
    processor = LyricsProcessor.from_pretrained(tmp_path / "composed")
    language: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "language").eval()
    ids = torch.arange(1, 40)[None]
    with torch.inference_mode():
        torch.testing.assert_close(model(input_ids=ids).logits, language(input_ids=ids).logits, atol=1e-4, rtol=1e-4)
    tokenizer = processor.tokenizer
    rows = [without_system(row) for row in build_chats(3)]
    assert is_own_template(processor.chat_template) == (family.template is not None)
    if family.template is not None:
        assert original_template(processor.chat_template) == family.source
    collator = LyricsSFTCollator(processor)
    assert collator.answers.way == family.way

    batch = collator(rows)
    for index, row in enumerate(rows):
        text, answers = learned(processor, batch, index), [one["content"][0]["text"] for one in row["messages"][1::2]]
        for answer in answers:
            assert answer in text
            text = text.replace(answer, "", 1)
        for beside in family.beside:
            text = text.replace(beside, "")
        rest = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        rest = [token for token in rest if token in text]
        assert rest
        assert set(tokenizer.convert_tokens_to_ids(rest)) <= set(as_list(model.generation_config.eos_token_id))
        for token in (*rest, "<think>", "</think>"):
            text = text.replace(token, "")
        assert not text.strip(), "nothing but answers and their ends"
    declared = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(list(family.stop))]
    assert set(declared) <= set(as_list(model.generation_config.eos_token_id))

    asked = [
        prompt_of(row | {"messages": row["messages"][:2]}) for row in rows
    ]  # about one image, two images, and none
    greeting = [say("user", "Hi."), say("assistant", "Yes?")]
    asked += [([*greeting, *question], objects) for question, objects in asked[:1]]  # an image in the second turn
    check_batch(model, processor, asked, tokens=3, share=1e-4)
    assert model.generation_config.eos_token_id is not None
    for stop in as_list(model.generation_config.eos_token_id):
        assert answer_when_forced(model, processor, stop) == [stop]
    check_batch(model.to(torch.bfloat16), processor, asked, tokens=1, share=0.05)


def test_experts_are_balanced_as_by_their_own_class(stage1, tmp_path):
    """Also where a configuration that TRL changed asks for router logits: padded prompts are still answered."""
    folder = save_language_model(FAMILIES["gpt_oss"], tmp_path / "language")
    model, processor = compose(stage1, folder)
    language: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.arange(1, 41).reshape(2, 20)
    mask = torch.ones_like(ids)
    mask[0, 15:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    with torch.inference_mode():
        theirs = language(**inputs, output_router_logits=True)
        ours = model(**inputs, output_router_logits=True)
        plain = model(**inputs)
    torch.testing.assert_close([ours.loss, ours.aux_loss], [theirs.loss, theirs.aux_loss])
    assert plain.aux_loss is None
    assert ours.loss > plain.loss
    model.config.text_config.output_router_logits = True
    questions = [[say("user", "Hi.")], [say("user", "Good morning.")]]
    assert ask(model, processor, questions, [], tokens=2).shape[:2] == (2, 2)


def test_experts_that_trl_cannot_count_are_trained_without_the_loss_that_balances_them(stage1, tmp_path, caplog):
    from lyrics import LyricsSFTConfig, LyricsSFTTrainer

    model, processor = compose(stage1, save_language_model(UNUSUAL["granite"], tmp_path / "language"))
    settings = {"max_steps": 1, "bf16": False, "use_cpu": True, "report_to": [], "save_strategy": "no"}
    rows = [without_system(row) for row in build_chats(2)]
    args = LyricsSFTConfig(str(tmp_path / "run"), router_aux_loss_coef=0.1, **settings)
    with pytest.raises(ValueError, match="experts of this granitemoe: leave router_aux_loss_coef out"):
        LyricsSFTTrainer(model, args, rows, processing_class=processor)
    args = LyricsSFTConfig(str(tmp_path / "run"), **settings)
    found = LyricsSFTTrainer(model, args, rows, processing_class=processor).train().training_loss
    assert torch.tensor(found).isfinite()
    assert "it is left out" in caplog.text


def test_buffers_that_a_language_model_fills_are_filled_when_it_is_loaded(stage1, tmp_path):
    """Falcon-H1 scales its states by a buffer that no file holds."""
    model, _ = compose(stage1, save_language_model(UNUSUAL["falcon_h1"], tmp_path / "language"))
    model.save_pretrained(tmp_path / "composed")
    loaded = LyricsForConditionalGeneration.from_pretrained(tmp_path / "composed").eval()
    ids = torch.arange(1, 20)[None]
    with torch.inference_mode():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_language_model_with_a_cache_of_its_own_is_refused(stage1, tmp_path):
    with pytest.raises(ValueError, match=r"minimax cannot generate as a part of this model: .*cache"):
        compose(stage1, save_language_model(UNUSUAL["minimax"], tmp_path / "language"))


def test_answers_of_a_model_without_attention_are_not_explained(stage1, tmp_path):
    from lyrics import Lyrics

    row = without_system(build_chat(0, pictures=1))
    question, objects = prompt_of(row)
    with Lyrics(*compose(stage1, save_language_model(FAMILIES["mamba2"], tmp_path / "language"))) as assistant:
        answer = assistant.ask_messages(question, objects=objects, max_new_tokens=2)
        with pytest.raises(ValueError, match="mamba2 has no attention"):
            answer.why()


def test_an_image_is_never_written(stage1, tmp_path):
    """Its placeholder may have a row in a vocabulary that was padded."""
    model, processor = compose(stage1, save_language_model(FAMILIES["deepseek_v3"], tmp_path / "language"))
    token = processor.image_token_id
    assert token < model.config.text_config.vocab_size
    assert answer_when_forced(model, processor, token, tokens=1) != [token]


def test_a_prompt_that_goes_on_otherwise_than_the_answers_is_told(stage1, tmp_path, caplog):
    """DeepSeek's template opens the reasoning in a prompt, and TRL's training template leaves it out."""
    family = dataclasses.replace(FAMILIES["deepseek_v3"], template="deepseekv3")
    _, processor = compose(stage1, save_language_model(family, tmp_path / "language"))
    LyricsSFTCollator(processor)
    assert r"ends a prompt with '<think>\n'" in caplog.text


def check_batch(model, processor, asked, tokens, share):
    """Questions together, with left padding, have the logits of each alone, up to a share of the largest one."""
    every = [one for _, objects in asked for one in objects]
    together = ask(model, processor, [question for question, _ in asked], every, tokens)
    for index, (question, objects) in enumerate(asked):
        alone = ask(model, processor, [question], objects, tokens)[0]
        assert (together[index] - alone).abs().max() <= share * alone.abs().max()


def answer_when_forced(model, processor, token, tokens=3):
    """Tokens of an answer of a model that always prefers one token."""

    def prefer(module, args, output):
        output[..., token] = 1e4
        return output

    hook = model.lm_head.register_forward_hook(prefer)
    inputs = processor.apply_chat_template(
        [say("user", "Hi.")], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    found = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    hook.remove()
    return found[0, inputs["input_ids"].shape[1] :].tolist()


def ask(model, processor, questions, objects, tokens):
    """Logits of the next tokens after each question."""
    options = {"padding": True} | ({"visual_objects": objects} if objects else {})
    inputs = processor.apply_chat_template(
        questions,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )
    ids = inputs["input_ids"]
    assert ids[ids == processor.image_token_id].numel() == processor.num_query_tokens * len(
        inputs.get("pixel_values", [])
    )
    is_bos = (ids == processor.tokenizer.bos_token_id) & inputs["attention_mask"].bool()
    assert not (is_bos[:, 1:] & is_bos[:, :-1]).any(), "the template's BOS alone"
    with torch.inference_mode():
        out = model.generate(
            **inputs,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return torch.stack(out.logits, 1).float()


def as_list(value):
    return value if isinstance(value, list) else [value]


def prompt_of(row):
    """What a row says before its answer, with its images, and its objects."""
    images, messages = iter(row["images"]), copy.deepcopy(row["messages"][:-1])
    for message in messages:
        for block in message["content"]:
            if isinstance(block, dict) and block["type"] == "image":
                block["image"] = next(images)
    return messages, row["visual_objects"]


class KeptRows(LyricsSFTCollator):
    """Collator that prepares a row once, and a batch once: otherwise that takes longer than training on it."""

    def __post_init__(self):
        super().__post_init__()
        self.rows, self.batches = {}, {}

    def prepare(self, row, sample=None, epoch=0):
        if sample not in self.rows:
            self.rows[sample] = super().prepare(row, sample, epoch)
        return self.rows[sample]

    def __call__(self, rows):
        names = tuple(row.sample for row in rows)
        if names not in self.batches:
            self.batches[names] = super().__call__(rows)
        return dict(self.batches[names])


class StopWhenKnown(TrainerCallback):
    """Ends a run when every token was right since the last entry of the log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        control.should_training_stop = float((logs or {}).get("mean_token_accuracy", 0)) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("tuning", ["LoRA", "full"])
def test_a_family_learns_by_heart(name, tuning, stage1, tmp_path):
    """Ten samples, with LoRA and in full; merged, saved and loaded again; then a chat of three turns on the cache."""
    from lyrics import Lyrics, LyricsSFTConfig, LyricsSFTTrainer
    from lyrics.conversion import merge_adapter
    from lyrics.trainers.common.trainable_parts import find_lora_targets

    family = FAMILIES[name]
    model, processor = compose(stage1, save_language_model(family, tmp_path / "lm", logit_scale=4.0))
    for part in (model, processor):
        part.save_pretrained(tmp_path / "composed")
    assert find_lora_targets(model, ["q_proj", "k_proj", "v_proj"]) == list(family.lora)
    rows = [build_chat(seed, pictures=(1, 2, 0)[seed % 3]) for seed in range(10)]
    if not family.has_system:
        rows = [without_system(row) for row in rows]
    args = LyricsSFTConfig(
        str(tmp_path / "run"),
        max_steps=400,
        per_device_train_batch_size=10,
        learning_rate=1e-2 if tuning == "LoRA" else 5e-3,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=5,
        lora_r=32,
        lora_dropout=0.0,
        train_language_model=tuning == "full",
        train_mqformer=False,  # the same in every family, and half of the time
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        logging_steps=5,
        save_strategy="no",
        disable_tqdm=True,
    )
    composed, collator = str(tmp_path / "composed"), KeptRows(processor)
    trainer = LyricsSFTTrainer(composed, args, rows, processing_class=processor, data_collator=collator)
    trainer.add_callback(StopWhenKnown())
    trainer.train()
    assert trainer.state.global_step < 400
    trainer.save_model(str(tmp_path / "tuned"))
    if tuning == "LoRA":
        for part in merge_adapter(tmp_path / "tuned"):
            part.save_pretrained(tmp_path / "merged")
    folder = tmp_path / ("merged" if tuning == "LoRA" else "tuned")
    loaded = LyricsForConditionalGeneration.from_pretrained(folder)
    stops = [set(as_list(one.generation_config.eos_token_id)) for one in (model, loaded)]
    assert stops[0] == stops[1]
    with Lyrics(loaded, LyricsProcessor.from_pretrained(folder)) as assistant:
        asked = [{"messages": question, "objects": objects or None} for question, objects in map(prompt_of, rows)]
        answers = [answer.text for answer in assistant.ask_many(asked, max_new_tokens=40)]
        expected = [row["messages"][-1]["content"][0]["text"] for row in rows]
        assert answers == expected
        chat = assistant.chat(rows[0]["images"][0], objects=rows[0]["visual_objects"][0], max_new_tokens=6)
        for question in ("What is 0.0?", "And 3.0?", "And 5.0?"):
            chat.ask(question)
        messages = chat.to_row()["messages"]
        assistant.clear_caches()
        objects = rows[0]["visual_objects"]
        again = assistant.ask_messages(messages[:-1], objects=objects, max_new_tokens=6)
        assert [{"type": "text", "text": again.text}] == messages[-1]["content"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "gemma3n"])  # its class clamps packed weights
def test_a_family_in_4_bits(name, stage1, tmp_path):
    """QLoRA on bitsandbytes: two steps of training have a finite loss."""
    from lyrics import LyricsSFTConfig, LyricsSFTTrainer

    pytest.importorskip("bitsandbytes")
    model, processor = compose(stage1, save_language_model(FAMILIES[name], tmp_path / "lm"))
    for part in (model, processor):
        part.save_pretrained(tmp_path / "composed")
    args = LyricsSFTConfig(
        str(tmp_path / "run"),
        max_steps=2,
        load_in_4bit=True,
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
    )
    rows = [without_system(row) for row in build_chats(3)]
    trainer = LyricsSFTTrainer(str(tmp_path / "composed"), args, rows, processing_class=processor)
    assert torch.tensor(trainer.train().training_loss).isfinite()

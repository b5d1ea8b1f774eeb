"""Training with rewards on TRL's trainer: inputs of the loss, columns of rewards, learning, resuming, saving."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lyrics.assets import ShapeChats, random_parts
from lyrics.datasets_lyrics.toy_data import REGION_WIDTH
from lyrics.modeling_lyrics import LyricsForConditionalGeneration
from lyrics.processing_lyrics import LyricsProcessor
from lyrics.processing_lyrics.language_model_templates import adapt_template
from lyrics.trainers import BadRowError, LyricsSFTCollator
from lyrics.trainers.data.conversation_rows import ConversationReader
from lyrics.trainers.data.prompt_rows import PromptReader
from lyrics.trainers.grpo_trainer import IMAGE_INPUTS, LyricsGRPOConfig, LyricsGRPOTrainer, join_rows

from .two_ranks import history

SETTINGS = {
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 4,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "gradient_checkpointing": False,
    "bf16": False,
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
    "save_strategy": "no",
    "max_steps": 1,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder of a random model whose rows bring their objects, and whose head lets it prefer one token to another."""
    folder = tmp_path_factory.mktemp("grpo") / "base"
    model, processor = random_parts(1, REGION_WIDTH)
    model.lm_head.weight.data.mul_(10)
    for part in (model, processor):
        part.save_pretrained(folder)
    return folder


def build_trainer(base, out, rows, rewards=None, **settings):
    args = LyricsGRPOConfig(output_dir=str(out), **SETTINGS | settings)
    return LyricsGRPOTrainer(str(base), args, rows, None, LyricsProcessor.from_pretrained(base), rewards)


def rows_of_different_shapes():
    """Prompts with one image, with two, and without one; each says what is expected."""
    first, second = ShapeChats(2)[0], ShapeChats(2)[1]
    ask = {"prompt": "How many?", "expected_count": 2}
    two = {"images": [first["images"][0], second["images"][0]]}
    two["visual_objects"] = [*first["visual_objects"], *second["visual_objects"]]
    return [
        {**ask, "images": first["images"], "visual_objects": first["visual_objects"]},
        {**ask, **two, "prompt": "How many things are in these two pictures?"},
        {**ask, "prompt": "How many fingers has a hand?", "expected_count": 5},
    ]


def test_log_probabilities_are_those_of_the_model(base, tmp_path):
    """For rows of several lengths and numbers of images, in TRL's batch, shuffled, and in parts."""
    rows = rows_of_different_shapes()
    trainer = build_trainer(base, tmp_path, rows, per_device_train_batch_size=6, num_generations=2, temperature=0.7)
    prepared = [row for row in map(trainer.train_dataset.__getitem__, range(3)) for _ in range(2)]
    trainer.model.train()
    batch = trainer._generate_and_score_completions(prepared)
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    shuffled = [batch[IMAGE_INPUTS][index] for index in order]
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)[order]
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)[order]
    length = batch["completion_ids"].shape[1]
    trainer._row_inputs = shuffled
    with torch.no_grad():
        found, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, length)
        in_parts, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, length, batch_size=4)
    torch.testing.assert_close(in_parts, found, atol=1e-5, rtol=1e-4)
    model, processor = LyricsForConditionalGeneration.from_pretrained(base), trainer.processing_class
    for place, index in enumerate(order.tolist()):
        row = prepared[index]
        options = {"visual_objects": row.objects} if row.objects else {}
        inputs = processor.apply_chat_template(
            row.messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=options,
        )
        answer = batch["completion_ids"][index][batch["completion_mask"][index].bool()]
        prompt = inputs.pop("input_ids")
        assert torch.equal(batch["prompt_ids"][index][batch["prompt_mask"][index].bool()], prompt[0])
        whole = torch.cat([prompt, answer[None]], 1)
        inputs["attention_mask"] = torch.ones_like(whole)
        with torch.no_grad():
            logits = model(input_ids=whole, **inputs).logits[0, prompt.shape[1] - 1 : -1] / 0.7
        expected = logits.log_softmax(-1).gather(1, answer[:, None])[:, 0]
        torch.testing.assert_close(found[place, : len(answer)], expected, atol=1e-4, rtol=1e-4)


def test_objects_and_text_of_the_mqformer_reach_the_loss(base, tmp_path):
    """Without them the log-probabilities differ: the test before would notice their loss."""
    trainer = build_trainer(base, tmp_path, rows_of_different_shapes()[:1])
    batch = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 4)
    fields = join_rows(batch[IMAGE_INPUTS])
    assert {"pixel_values", "region_features", "region_attention_mask", "mqformer_input_ids"} < set(fields)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    found = []
    for kept in (set(fields), {"pixel_values", "region_features", "region_attention_mask"}, {"pixel_values"}):
        trainer._row_inputs = [{name: one for name, one in row.items() if name in kept} for row in batch[IMAGE_INPUTS]]
        with torch.no_grad():
            found.append(trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 4)[0])
    assert (found[0] - found[1]).abs().max() > 1e-4
    assert (found[1] - found[2]).abs().max() > 1e-4


def test_rewards_see_the_columns_of_their_rows(base, tmp_path):
    seen = []

    def spy(prompts, completions, expected_count, note, **columns):
        assert "images" not in columns
        texts = [block["text"] for prompt in prompts for block in prompt[-1]["content"] if block["type"] == "text"]
        seen.extend(zip(texts, expected_count, note, strict=True))
        return [float(count) for count in expected_count]

    rows = rows_of_different_shapes()
    rows[0]["note"] = "one"  # a column that other rows lack
    trainer = build_trainer(base, tmp_path, rows, [spy], per_device_train_batch_size=6, num_generations=2)
    trainer.train()
    assert sorted(set(seen)) == sorted(
        {("How many?", 2, "one"), (rows[1]["prompt"], 2, None), (rows[2]["prompt"], 5, None)}, key=str
    )
    assert len(seen) == 6
    assert history(trainer)[0]["rewards/spy/mean"] == 3.0


def test_answers_need_not_be_found_in_the_chat_template(base, tmp_path):
    """A template under which the second stage is refused will do: rewards need the prompt alone."""
    turns = "{% for message in messages %}{{ message['role'] ~ ': ' ~ message['content'] ~ '\\n' }}{% endfor %}"
    ending = "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    processor = LyricsProcessor.from_pretrained(base)
    processor.chat_template = adapt_template(turns + ending, {})
    with pytest.raises(ValueError, match="does not show which text is an answer"):
        LyricsSFTCollator(processor)
    args = LyricsGRPOConfig(output_dir=str(tmp_path), **SETTINGS)
    trainer = LyricsGRPOTrainer(str(base), args, rows_of_different_shapes(), None, processor)
    trainer.train()
    assert history(trainer)[0]["step"] == 1
    row = read(processor, {"prompt": TALK, "completion": "<think>Hm.</think> 3"})
    assert row.columns["expected_answer"] == "<think>Hm.</think> 3"


def test_a_prompt_that_the_chat_template_refuses_names_its_row(base):
    processor = LyricsProcessor.from_pretrained(base)
    refuses = "{{ raise_exception('System role not supported') if messages[0]['role'] == 'system' }}"
    processor.chat_template = adapt_template(refuses + "{% for m in messages %}{{ m['content'] }}{% endfor %}", {})
    told = [{"role": "system", "content": "Be brief."}, *TALK]
    with pytest.raises(ValueError, match="does not take this conversation: System role not supported"):
        read(processor, {"prompt": told, "expected_count": 1})


def has_low_numbers(completions, completion_ids, **columns):
    """Reward answers of tokens from the first half of the vocabulary."""
    return [sum(token < 126 for token in ids) / 4 for ids in completion_ids]


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
    """A run that learned a trivial reward, with checkpoints."""
    out = tmp_path_factory.mktemp("tuned")
    settings = {"max_steps": 12, "save_strategy": "steps", "save_steps": 6, "num_generations": 8, "lora_r": 16}
    settings |= {"learning_rate": 3e-4, "per_device_train_batch_size": 8}
    settings |= {"lora_targets": ["q_proj", "v_proj", "up_proj", "down_proj"]}
    trainer = build_trainer(base, out, ShapeChats(5), [has_low_numbers], **settings)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    trainer.save_model()
    return out, trainer, before, settings


@pytest.mark.slow
def test_a_trivial_reward_is_learned(tuned):
    """And only the LoRA weights of the language model change."""
    _, trainer, before, _ = tuned
    rewards = [entry["reward"] for entry in history(trainer)]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (".lora_" not in name), name


@pytest.mark.slow
def test_it_is_saved_as_an_adapter_of_its_base_with_a_card(tuned):
    out, trainer, _, _ = tuned
    assert (out / "checkpoint-6" / "manifest.json").is_file()
    assert not (out / "refiner").exists()
    assert json.loads((out / "lyrics_adapter.json").read_text())["base_mark"] == trainer.base_mark
    assert "training with rewards (GRPO)" in (out / "README.md").read_text()
    model = LyricsForConditionalGeneration.from_pretrained(out)
    loaded = {f"base_model.model.{name}": one for name, one in model.state_dict().items()}
    tuned_weights = {name: one for name, one in trainer.model.state_dict().items() if ".lora_" in name}
    assert tuned_weights
    assert all(torch.equal(one, loaded[name]) for name, one in tuned_weights.items())


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(base, tuned, tmp_path):
    """In the second epoch: prompts and answers are sampled alike, so that rewards and weights are equal bit for bit."""
    out, trainer, _, settings = tuned
    again = build_trainer(base, tmp_path, ShapeChats(5), [has_low_numbers], **settings)
    again.train(resume_from_checkpoint=str(out / "checkpoint-6"))
    rewards = [{entry["step"]: entry["reward"] for entry in history(one)} for one in (trainer, again)]
    assert rewards[0] == rewards[1]
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


@pytest.mark.slow
def test_the_reference_and_older_policies_read_the_same_inputs(base, tmp_path):
    """A new adapter changes nothing, so the divergence from the reference is zero, and so is the ratio to the old."""
    settings = {"beta": 0.1, "num_iterations": 2, "max_steps": 2, "learning_rate": 0.0, "per_device_eval_batch_size": 4}
    trainer = build_trainer(base, tmp_path, ShapeChats(4), **settings)
    trainer.train()
    for entry in history(trainer):
        assert abs(entry["kl"]) < 1e-6
        assert entry["clip_ratio/region_mean"] == 0.0
    evaluated = trainer.evaluate(ShapeChats(2, seed=1))
    assert evaluated["eval_kl"] == pytest.approx(0.0, abs=1e-6)


PICTURE = Image.new("RGB", (100, 50))
TALK = [{"role": "user", "content": "Where is it?"}]


def read(processor, row, columns=(), **settings):
    return PromptReader(ConversationReader(processor, **settings), columns).prepare(row, "0")


def test_images_of_files_can_be_copied(processor, tmp_path):
    """TRL copies prompts before it generates."""
    PICTURE.save(tmp_path / "picture.png")
    row = read(processor, {"images": [str(tmp_path / "picture.png")], "prompt": TALK, "expected_count": 1})
    image = copy.deepcopy(row.messages)[0]["content"][0]["image"]
    assert processor.load_pictures(image)[0].tobytes() == PICTURE.tobytes()


def test_rows_say_what_is_expected(processor):
    """In columns of their own, or in the right answer that they end with, whose box is written out."""
    box = {"type": "box", "box": [10, 10, 60, 40], "label": "cup"}
    row = {"images": [PICTURE], "messages": [*TALK, {"role": "assistant", "content": [box]}], "box_units": "pixel"}
    read_row = read(processor, row)
    assert [message["role"] for message in read_row.messages] == ["user"]
    assert read_row.messages[0]["content"][0]["image"].size == (100, 50)
    assert read_row.columns["expected_boxes"] == [(0.1, 0.2, 0.6, 0.8)]
    own = {"images": [PICTURE], "prompt": TALK, "expected_boxes": [[10, 10, 60, 40]]}
    assert read(processor, own, box_units="pixel").columns["expected_boxes"] == [(0.1, 0.2, 0.6, 0.8)]
    disordered = {**own, "expected_boxes": [[60, 40, 10, 10]]}
    assert read(processor, disordered, box_units="pixel").columns["expected_boxes"] == [(0.1, 0.2, 0.6, 0.8)]
    assert read(processor, {"prompt": TALK, "expected_count": np.float64(3)}).columns["expected_count"] == 3
    answers = {"7": "expected_count", "None.": "expected_count", "No.": "expected_existence", "red": "expected_answer"}
    answers |= {"Yes, it is.": "expected_existence", "No there isn't": "expected_existence"}
    answers |= {"No parking": "expected_answer", "Yes Bank": "expected_answer"}
    for answer, name in answers.items():
        row = {"prompt": "What?", "completion": answer}
        columns = read(processor, row).columns
        assert [key for key, value in columns.items() if value is not None] == [name]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": TALK}, "No reward scores the row: it needs one of expected_boxes, expected_count"),
        ({"prompt": TALK, "expected_count": "two"}, "expected_count must be a whole number, got 'two'"),
        ({"prompt": TALK, "expected_count": 2.5}, "expected_count must be a whole number, got 2.5"),
        ({"prompt": TALK, "expected_existence": "no"}, "expected_existence must be true or false, got 'no'"),
        ({"prompt": TALK, "expected_count": True}, "expected_count must be a whole number, got True"),
        (
            {"prompt": TALK, "expected_boxes": [0.1, 0.2, 0.3, 0.4]},
            "must hold boxes .x1, y1, x2, y2., and one is 0.1",
        ),
        ({"prompt": TALK, "expected_boxes": "box"}, "expected_boxes must be a list of boxes, got 'box'"),
        ({"prompt": TALK, "expected_boxes": [[1, 2, 30, 40]]}, "lies outside of its image .relative to the image"),
        ({"prompt": TALK, "expected_boxes": [[0, 0, 1, float("nan")]]}, "lies outside"),
        ({"prompt": TALK, "images": ["missing.png"], "expected_count": 1}, r"missing\.png"),
        ({"prompt": [], "expected_count": 1}, "'messages' is empty"),
        ({"prompt": "", "expected_count": 1}, "The question is empty"),
        ({"expected_count": 1}, "The row has no conversation"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(processor, row, message):
    with pytest.raises(ValueError, match=message):
        read(processor, row, ("expected_boxes", "expected_count"))


def test_what_cannot_be_trained_on_is_refused(base, processor, tmp_path):
    rows = rows_of_different_shapes()
    with pytest.raises(ValueError, match="they can be no stream"):
        build_trainer(base, tmp_path, iter(rows))
    trainer = build_trainer(base, tmp_path, [*rows, {"prompt": TALK}], per_device_train_batch_size=16)
    with pytest.raises(BadRowError, match="Row 3 cannot be used: No reward scores the row"):
        trainer.train()
    trainer = build_trainer(base, tmp_path, rows, per_device_train_batch_size=16)
    with pytest.raises(ValueError, match="There are 3 rows, fewer than the 4 prompts"):
        trainer.train()
    with pytest.raises(ValueError, match="vLLM and continuous batching do not know its inputs"):
        LyricsGRPOConfig(output_dir="run", bf16=False, use_vllm=True)
    with pytest.raises(ValueError, match="tools: answers are single turns of the model itself"):
        LyricsGRPOTrainer(str(base), LyricsGRPOConfig(str(tmp_path), bf16=False), rows, None, processor, tools=[print])
    endless = LyricsProcessor.from_pretrained(base)
    endless.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="The tokenizer has no eos_token, so that no answer would end"):
        LyricsGRPOTrainer(str(base), LyricsGRPOConfig(str(tmp_path), bf16=False), rows, None, endless)
    with pytest.raises(ValueError, match=r"There is no reward 'ioo'; known are iou, format"):
        LyricsGRPOTrainer(
            str(base), LyricsGRPOConfig(str(tmp_path), bf16=False, rewards=["ioo"]), rows, None, processor
        )


def test_a_processor_that_lost_its_refiner_is_refused(damaged, tmp_path):
    """Its rows have no objects, and it was saved with a refiner."""
    shutil.rmtree(damaged / "refiner")
    rows = [{"images": ShapeChats(1)[0]["images"], "prompt": "How many?", "expected_count": 1}]
    with pytest.raises(ValueError, match="has no refiner"):
        build_trainer(damaged, tmp_path / "run", rows).train()

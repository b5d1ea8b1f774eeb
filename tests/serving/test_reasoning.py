"""Reasoning before an answer: told from it piece by piece, and in no answer, chat or benchmark."""

import pytest
import torch

from lyrics import Lyrics
from lyrics.conversion import compose
from lyrics.processing_lyrics.reasoning import ReasoningReader
from lyrics.serving.token_text import TokenText

from ..language_models import FAMILIES, save_language_model
from ..pretraining_parts import build_model as build_stage_1
from ..sft_parts import build_processor, say

HARMONY = "<|channel|>analysis<|message|>A ring?<|end|><|start|>assistant<|channel|>final<|message|>Red."
WRITTEN = {  # what a model writes after its prompt: text, reasoning and answer
    "qwen3": [
        ("<think>\nA ring?\n</think>\n\nRed.", "A ring?", "Red."),
        ("<think>\n\n</think>\n\nRed.", "", "Red."),
        ("Red <think>.", "", "Red <think>."),
        ("<thin", "", "<thin"),
        ("<think>\nA ring", "A ring", ""),
    ],
    "gemma4": [("<|channel>thought\nA ring?\n<channel|>Red.", "A ring?", "Red.")],
    "gpt_oss": [
        (HARMONY, "A ring?", "Red."),
        (HARMONY.replace("analysis", "commentary"), "A ring?", "Red."),
        (HARMONY.replace("A ", "A<|end|><|start|>assistant<|channel|>analysis<|message|>"), "A\nring?", "Red."),
        ("<|channel|>final<|message|>Red.", "", "Red."),
        ("Red.", "", "Red."),
    ],
    "smollm2": [("<think>\nA ring?\n</think>\n\nRed.", "", "<think>\nA ring?\n</think>\n\nRed.")],
}


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    """Function from the name of a family to a model with its processor."""
    folder, known = tmp_path_factory.mktemp("reasoning"), {}
    build_stage_1(std=0.2).save_pretrained(folder / "stage1")
    build_processor().save_pretrained(folder / "stage1")

    def build(name):
        if name not in known:
            known[name] = compose(folder / "stage1", save_language_model(FAMILIES[name], folder / name))
        return known[name]

    return build


def read(processor, prompt, text):
    """The pieces of a text that follows a prompt, token by token, and the object."""
    encode = lambda words: processor.tokenizer(words, add_special_tokens=False)["input_ids"]  # noqa: E731
    reader = ReasoningReader(processor)
    found = TokenText(reader.decoder(), (), reader.splitter(encode(prompt)))
    pieces = [found.add(token_id) for token_id in encode(text)]
    return [*pieces, found.finish()], found


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in WRITTEN.items() for case in cases])
def test_reasoning_is_told_from_the_answer(composed, name, case):
    text, reasoning, answer = case
    pieces, found = read(composed(name)[1], "What color?", text)
    assert ("".join(pieces), found.text, found.reasoning) == (answer, answer, reasoning)


def test_a_prompt_may_begin_the_reasoning(composed):
    processor = composed("qwen3")[1]
    _, found = read(processor, "What color?<think>\n", "A ring?\n</think>\n\nRed.")
    assert (found.text, found.reasoning) == ("Red.", "A ring?")
    _, found = read(processor, "What color?<think>\n", "A ring?")
    assert (found.text, found.reasoning) == ("", "A ring?")


@pytest.mark.parametrize("name", ["qwen3", "gpt_oss"])
def test_a_chat_holds_answers_alone(composed, name):
    model, processor = composed(name)
    text, reasoning, answer = WRITTEN[name][0]
    end = processor.tokenizer.eos_token_id
    script = [*processor.tokenizer(text, add_special_tokens=False)["input_ids"], end]

    with Lyrics(model, processor) as assistant, Script(model, script):
        told = assistant.ask_messages([say("user", "What color?")], max_new_tokens=100)
        assert (told.text, told.reasoning, told.to_dict()["reasoning"]) == (answer, reasoning, reasoning)
    with Lyrics(model, processor) as assistant, Script(model, script):
        chat = assistant.chat()
        assert "".join(chat.stream("What color?", max_new_tokens=100)) == answer
        assert reasoning not in str(chat.to_row())


def test_an_answer_that_is_cut_in_its_reasoning(composed):
    """It is empty and says why, a chat holds none of it, and a reader may leave while the model reasons."""
    model, processor = composed("qwen3")
    script = processor.tokenizer(WRITTEN["qwen3"][0][0], add_special_tokens=False)["input_ids"][:5]
    with Lyrics(model, processor) as assistant:
        chat = assistant.chat()
        with Script(model, script):
            answer = chat.ask("What color?", max_new_tokens=5)
        assert (answer.text, bool(answer.reasoning), answer.finish_reason) == ("", True, "length")
        assert answer.notices == ("The answer ended while the model still reasoned: allow it more tokens.",)
        assert answer.reasoning not in str(chat.to_row())
        with Script(model, script):
            pieces = assistant.stream_messages([say("user", "What color?")], max_new_tokens=5)
            assert list(pieces) == [""] * 5


def test_rewards_count_answers_without_reasoning(composed, tmp_path):
    from lyrics.trainers.grpo_trainer import LyricsGRPOConfig, LyricsGRPOTrainer
    from lyrics.trainers.rewards import REWARDS

    model, processor = composed("qwen3")
    seen = []

    def keep(completions, completions_without_reasoning, answers, **columns):
        seen.extend(zip(completions, completions_without_reasoning, answers, strict=True))
        return [0.0] * len(completions)

    args = LyricsGRPOConfig(
        str(tmp_path), per_device_train_batch_size=2, num_generations=2, use_cpu=True, bf16=False, report_to=[]
    )
    rows = [{"prompt": "What color?", "expected_answer": "Red."}] * 2
    trainer = LyricsGRPOTrainer(model, args, rows, None, processor, [REWARDS["exact"], keep])
    text = WRITTEN["qwen3"][0][0]
    ids = processor.tokenizer([text, "Blue."], add_special_tokens=False)["input_ids"]
    trainer._row_prompts = [[], []]
    completions = [[{"role": "assistant", "content": one}] for one in (text, "Blue.")]
    columns = [{"expected_answer": "Red.", "answers": "a column of the rows"}] * 2
    found = trainer._calculate_rewards(columns, [[say("user", "?")]] * 2, completions, ids)
    assert found[:, 0].tolist() == [1.0, 0.0]
    own = "a column of the rows"
    assert seen == [(completions[0], "Red.", own), (completions[1], "Blue.", own)]


def test_probabilities_of_answers_are_those_of_their_words(composed):
    """The empty reasoning that a template writes before an answer belongs to the prompt."""
    from lyrics.evaluation.harnesses.generation import score_answers

    found = {}
    for name in ("qwen3.5", "smollm2"):
        with Lyrics(*composed(name)) as assistant:
            (found[name],) = score_answers(assistant, [("What color?", [], "Red.")])
    assert found["qwen3.5"].num_tokens == found["smollm2"].num_tokens == len("Red.")


@pytest.mark.parametrize("stream", [False, True])
def test_the_server_gives_reasoning_a_field_of_its_own(composed, stream):
    for library in ("starlette", "uvicorn"):
        pytest.importorskip(library)
    from .server.running import CHAT, NAME, running

    model, processor = composed("qwen3")
    text, reasoning, answer = WRITTEN["qwen3"][0]
    script = [*processor.tokenizer(text, add_special_tokens=False)["input_ids"], processor.tokenizer.eos_token_id]
    asked = {"model": NAME, "messages": [say("user", "What color?")], "max_tokens": 100, "stream": stream}
    with Lyrics(model, processor) as assistant, running(assistant) as server, Script(model, script):
        reply = server.post(CHAT, asked)
    messages = (
        [event["choices"][0]["delta"] for event in reply.events] if stream else [reply.json["choices"][0]["message"]]
    )
    assert "".join(one.get("content", "") for one in messages) == answer
    assert [one["reasoning_content"] for one in messages if "reasoning_content" in one] == [reasoning]


class Script:
    """A model that writes given tokens, one at each step."""

    def __init__(self, model, token_ids):
        self.model, self.rest = model, iter(token_ids)

    def __enter__(self):
        self.hook = self.model.lm_head.register_forward_hook(self.write)

    def __exit__(self, *_):
        self.hook.remove()

    def write(self, module, args, output):
        """Return logits of which the next token of the script is the largest."""
        return torch.full_like(output, -1e4).index_fill(-1, torch.tensor([next(self.rest)]), 1e4)

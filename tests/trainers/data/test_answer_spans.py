"""Answers in rendered conversations, under templates with and without generation tags."""

import pytest

from lyrics.trainers import LyricsSFTCollator
from lyrics.trainers.data.answer_spans import AnswerError, AnswerFinder

from ...language_models import FAMILIES
from ...processing_lyrics.test_language_model_templates import processor_of
from ...sft_parts import build_chat

FALCON = "{% for message in messages %}{{ message['role'] ~ ': ' ~ message['content'] ~ '\n' }}{% endfor %}"


def talk(*texts):
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def answers_of(finder, messages):
    found = finder.locate(messages)
    return [found.prompt[start:end] for start, end in found.spans]


@pytest.mark.parametrize(
    ("name", "ends"),
    [("smollm2", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("phi4", "<|im_end|>"), ("olmo2", "<|endoftext|>")],
)
def test_marks_find_each_answer_and_its_end(name, ends):
    """Also answers that are alike, empty, or words of the template and of the question."""
    finder = AnswerFinder(processor_of(name))
    assert finder.way == "marks"
    texts = (
        "Yes?",
        "Yes?",
        "LyricsMark0Of0Of4",
        "LyricsMark0Of1Of4",
        "user",
        "user",
        "assistant",
        "",
        "a{{ b }}",
        "{% raw %}\\1",
    )
    assert answers_of(finder, talk(*texts)) == [text + ends for text in texts[1::2]]
    assert answers_of(finder, talk("x")) == []
    assert answers_of(finder, talk("x", f"a{ends}b")) == [f"a{ends[:-1]} {ends[-1]}b{ends}"]


def test_what_the_model_writes_before_an_answer_is_learned():
    """Mistral's template puts a space between the question and the answer, which no generation prompt holds."""
    assert answers_of(AnswerFinder(processor_of("mistral")), talk("x", "Yes.")) == [" Yes.</s>"]


def test_a_template_that_trims_answers_is_exact():
    assert answers_of(AnswerFinder(processor_of("llama3")), talk("x", "  Yes. \n")) == ["Yes.<|eot_id|>"]


def test_ways_agree_where_both_are_exact():
    """TRL's training template of Qwen2.5 marks what marks find, and the line break before an answer."""
    processor = processor_of("qwen2.5")
    finder = AnswerFinder(processor)
    assert finder.way == "training template"
    batch = LyricsSFTCollator(processor)([{"messages": talk("x", "One.", "y", "Two.")}])
    learned = processor.decode([label for label in batch["labels"][0].tolist() if label != -100])
    assert (
        learned.replace("\n", "")
        == "".join(answers_of(finder, talk("x", "One.", "y", "Two.")))
        == "One.<|im_end|>Two.<|im_end|>"
    )


@pytest.mark.parametrize("name", ["smollm2", "qwen2.5", "smollm3", "gemma2"])
def test_an_answer_that_was_cut_does_not_teach_to_stop(name):
    """Under every way of finding answers, the end of the turn is learned only where the answer is whole."""
    processor = processor_of(name)
    row = build_chat(0, pictures=0)
    row["messages"] = [row["messages"][1], {"role": "assistant", "content": "one two three four five six seven"}]
    whole = LyricsSFTCollator(processor)([row])["labels"]
    length = whole.shape[1]
    cut = LyricsSFTCollator(processor, max_length=length - 12)([row])["labels"]
    texts = [processor.decode([label for label in one[0].tolist() if label != -100]).lstrip() for one in (whole, cut)]
    end = next(token for token in ("<|im_end|>", "<end_of_turn>") if token in FAMILIES[name].source)
    assert texts[0] == f"one two three four five six seven{end}"
    assert end not in texts[1]
    assert texts[0].startswith(texts[1])
    assert texts[1]


def test_a_template_without_exact_answers_is_refused():
    """The error says why: nothing ends an answer, or the text around it depends on it."""
    processor = processor_of("smollm2")
    kept = processor.chat_template
    try:
        for template, reason in (
            (FALCON, "no special token behind an answer"),
            (kept.replace("message['content'] +", "message['content']|upper +"), "exactly once"),
            (kept.replace("message['content'] +", "message['content']|replace('e', '') +"), "depends on the answer"),
        ):
            processor.chat_template = template
            with pytest.raises(ValueError, match=reason):
                AnswerFinder(processor)
    finally:
        processor.chat_template = kept


def test_a_training_template_that_loses_a_part_of_an_answer_refuses_the_row():
    """Qwen 3 reads thoughts out of an answer, and drops what stands before them."""
    collator = LyricsSFTCollator(processor_of("qwen3"))
    collator.prepare({"messages": talk("x", "<think>\nHm.\n</think>\n\nOne.", "y", "Two.")})
    with pytest.raises(ValueError, match="it changes the answer in message 3"):
        collator.prepare({"messages": talk("x", "One.", "y", "It <think>hm</think> is two.")})


def test_a_row_that_does_not_fit_the_template_is_refused():
    """When it is prepared, so that the error names the row."""
    thoughtful = talk("x", "<think>\nHm.\n</think>\n\nOne.", "y", "Two.")
    with pytest.raises(AnswerError, match="depends on the answer"):
        AnswerFinder(processor_of("qwen3")).locate(thoughtful)
    told = [{"role": "system", "content": "Be brief."}, *talk("x", "One.")]
    for name, reason in (("gemma2", "System role not supported"), ("mistral", "no system")):
        with pytest.raises(ValueError, match=f"does not take this conversation: {reason}"):
            LyricsSFTCollator(processor_of(name)).prepare({"messages": told})

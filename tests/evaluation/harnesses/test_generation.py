"""What the adapters share: options, order and batches of answers, losses of given answers."""

import pytest
import torch

from lyrics.assets import draw_table
from lyrics.evaluation.harnesses.generation import generate_answers, read_generation_options, score_answers
from lyrics.serving import GenerationOptions

PICTURES = [draw_table(), draw_table(200, 300)]


def ask(text, *pictures):
    images = [{"type": "image", "image": one} for one in pictures]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, GenerationOptions(max_new_tokens=256)),
        ({"max_new_tokens": 16.0, "temperature": 0, "top_p": None, "num_beams": 1}, GenerationOptions(16)),
        ({"until": ["\n\n"], "do_sample": False, "temperature": 0.7}, GenerationOptions(stop=["\n\n"])),
        ({"until": "A", "top_p": 0.0, "top_k": 0}, GenerationOptions(stop=["A"])),
        ({"until": [""], "num_beams": 3, "temperature": 1.0}, GenerationOptions(num_beams=3)),
        ({"do_sample": True, "top_p": 0.9, "seed": 1}, GenerationOptions(temperature=1.0, top_p=0.9, seed=1)),
        ({"temperature": 0.2, "top_k": 0}, GenerationOptions(temperature=0.2)),
        ({"until": None, "use_cache": True}, GenerationOptions()),
    ],
)
def test_generation_arguments(arguments, expected):
    assert read_generation_options(arguments) == expected


def test_unknown_and_wrong_generation_arguments():
    with pytest.raises(ValueError, match="Unknown generation arguments max_tokens"):
        read_generation_options({"max_tokens": 3})
    with pytest.raises(ValueError, match="max_new_tokens must be"):
        read_generation_options({"max_new_tokens": 0})


def test_answers_come_in_order_and_do_not_depend_on_the_batch(assistant):
    short, long = (read_generation_options({"max_new_tokens": count}) for count in (2, 5))
    first, second = PICTURES
    questions = [
        (ask("What is it?", first), short),
        (ask("Where is the star?", second), long),
        (ask("What differs?", first, second), short),
        (ask("How are you?"), long),
        (ask("What color is the ring?", second), short),
    ]
    together = [answer.text for answer in generate_answers(assistant, questions, batch_size=4)]
    assert together == [generate_answers(assistant, [question])[0].text for question in questions]
    assert [len(answer.pictures) for answer in generate_answers(assistant, questions, batch_size=2)] == [1, 1, 2, 0, 1]


def test_loss_of_an_answer_is_that_of_the_model(assistant):
    model, processor = assistant.model, assistant.processor
    answers = [("What is it?", PICTURES[:1], "a star"), ("And these?", PICTURES, " ring ")]
    answers += [("", [], "dog"), ("Hm?", [], "")]
    together = score_answers(assistant, answers, batch_size=4)
    singly = [score_answers(assistant, [answer])[0] for answer in answers]
    for one, other in zip(together, singly, strict=True):
        assert one.total == pytest.approx(other.total, abs=1e-3)
        assert one[1:] == other[1:]
    assert together[3] == (0, 0, True)
    assert together[3].mean == 0
    # The loss that training would compute: labels on the answer, without the end token.
    message = {"role": "assistant", "content": [{"type": "text", "text": "a star"}]}
    messages = [*ask("What is it?", PICTURES[0]), message]
    inputs = processor.apply_chat_template(
        [messages],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"visual_objects": [assistant.see(PICTURES[0])]},
    )
    count = together[0].num_tokens
    labels = torch.full_like(inputs["input_ids"], -100)
    ends = [place for place, token in enumerate(inputs["input_ids"][0]) if token == processor.tokenizer.eos_token_id]
    labels[0, ends[-1] - count : ends[-1]] = inputs["input_ids"][0, ends[-1] - count : ends[-1]]
    with torch.inference_mode():
        output = model(**inputs, labels=labels)
    assert together[0].mean == pytest.approx(output.loss.item(), abs=1e-4)
    is_right = (output.logits.argmax(-1)[:, :-1] == labels[:, 1:])[labels[:, 1:] != -100]
    assert together[0].is_greedy == bool(is_right.all())

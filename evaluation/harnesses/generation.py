"""What both harnesses need of a model: answers to many questions, each with its own options, and losses of answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from lyrics.datasets_lyrics.conversations import Conversation
from lyrics.processing_lyrics import VisualObjects
from lyrics.serving import Answer, GenerationOptions, Lyrics
from lyrics.serving.question import Question, prepare_inputs

Messages = Sequence[Mapping[str, Any]]

_IGNORED = {"do_sample", "use_cache", "until", "image_aspect_ratio", "output_scores", "return_dict_in_generate"}


class AnswerLoss(NamedTuple):
    """How probable a given answer is.

    Attributes:
        total: float, negative log-likelihood of the answer's tokens, summed.
        num_tokens: int, number of the answer's tokens.
        is_greedy: bool, whether the model would have written this answer, taking the most probable token each time.
    """

    total: float
    num_tokens: int
    is_greedy: bool

    @property
    def mean(self) -> float:
        """Negative log-likelihood per token; 0 for an empty answer."""
        return self.total / self.num_tokens if self.num_tokens else 0.0


def read_generation_options(arguments: Mapping[str, Any], *, max_new_tokens: int = 256) -> GenerationOptions:
    """Return the options that generation arguments of Transformers, as a harness passes them, ask for.

    Without `do_sample`, a temperature above 0 samples.

    Args:
        arguments: mapping with any of `max_new_tokens`, `temperature`, `top_p`, `top_k`, `num_beams`, `do_sample`,
            `seed` and `until`, a string or several at which the answer ends. `None` is the default of each.
        max_new_tokens: int, length where the arguments have none.

    Raises:
        ValueError: a value is out of range, or an argument is unknown.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    known = {"max_new_tokens", "temperature", "top_p", "top_k", "num_beams", "seed"}
    if unknown := sorted(given.keys() - known - _IGNORED):
        raise ValueError(f"Unknown generation arguments {', '.join(unknown)}: known are {', '.join(sorted(known))}.")
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens} | {
        name: value for name, value in given.items() if name in known
    }
    for name in ("max_new_tokens", "num_beams", "top_k", "seed"):  # command lines make floats of numbers
        if isinstance(options.get(name), float) and options[name].is_integer():
            options[name] = int(options[name])
    if given.get("do_sample") is False or options.get("num_beams", 1) > 1:
        options["temperature"] = 0.0
    elif given.get("do_sample") and not options.get("temperature"):
        options["temperature"] = 1.0
    if not options.get("temperature"):  # other models' greedy settings often say top_p=0 or top_k=0
        options.pop("top_p", None)
        options.pop("top_k", None)
    elif options.get("top_k") == 0:
        options.pop("top_k")
    until = given.get("until", ())
    stops = (until,) if isinstance(until, str) else until
    return GenerationOptions(**options, stop=tuple(stop for stop in stops if stop))


def generate_answers(
    assistant: Lyrics, questions: Sequence[tuple[Messages, GenerationOptions]], *, batch_size: int = 1
) -> list[Answer]:
    """Return the answers to questions, in their order.

    Questions with the same options are answered together, in batches.

    Args:
        assistant: model.
        questions: sequence of pairs of messages, as `apply_chat_template` takes them, and options.
        batch_size: int, number of questions that are answered at once.
    """
    groups: dict[GenerationOptions, list[int]] = {}
    for number, (_, options) in enumerate(questions):
        groups.setdefault(options, []).append(number)
    answers: dict[int, Answer] = {}
    for options, numbers in groups.items():
        rows = [{"messages": list(questions[number][0])} for number in numbers]
        found = assistant.ask_many(rows, batch_size=batch_size, **vars(options))
        for number, answer in zip(numbers, found, strict=True):
            assert isinstance(answer, Answer)  # errors are raised
            answers[number] = answer
    return [answers[number] for number in range(len(questions))]


def score_answers(
    assistant: Lyrics, answers: Sequence[tuple[str, Sequence[Any], str]], *, batch_size: int = 1
) -> list[AnswerLoss]:
    """Return how probable given answers are, in their order.

    An answer is written into the chat template as the assistant's message, without white space around it. The token
    that ends a message is not part of it.

    Args:
        assistant: model.
        answers: sequence of triples of the user's text, which may be empty, its images, and the answer.
        batch_size: int, number of answers that are read at once.
    """
    losses: list[AnswerLoss] = []
    for start in range(0, len(answers), batch_size):
        losses += _score_batch(assistant, answers[start : start + batch_size])
    return losses


def _score_batch(assistant: Lyrics, answers: Sequence[tuple[str, Sequence[Any], str]]) -> list[AnswerLoss]:
    """Return how probable answers are that are read together."""
    model, processor = assistant.model, assistant.processor
    questions = [_open_question(assistant, text, images) for text, images, _ in answers]
    objects = [_see(assistant, question) for question in questions]
    inputs: dict[str, Any] = dict(prepare_inputs(processor, questions, objects))
    prompts = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(inputs.pop("input_ids"), inputs.pop("attention_mask"), strict=True)
    ]
    rows = []
    for prompt, question, (_, _, answer) in zip(prompts, questions, answers, strict=True):
        opening, tokens = _answer_tokens(processor, question, answer.strip(), model)
        prompt += opening
        rows.append([*prompt, *tokens])
    length = max(map(len, rows))
    padded = [row + [0] * (length - len(row)) for row in rows]
    inputs["input_ids"] = torch.tensor(padded)  # (B, L)
    inputs["attention_mask"] = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    with torch.inference_mode():
        logits = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits  # (B, L, V)
    return [
        _loss(logits[number, len(prompt) - 1 : len(row) - 1], row[len(prompt) :])
        for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
    ]


def _loss(logits: torch.Tensor, token_ids: list[int]) -> AnswerLoss:
    """Return the loss of T tokens from the logits (T, V) before each."""
    if not token_ids:
        return AnswerLoss(0.0, 0, True)
    targets = torch.tensor(token_ids, device=logits.device)
    chosen = logits.float().log_softmax(-1).gather(1, targets[:, None]).double().sum().item()
    is_greedy = bool((logits.argmax(-1) == targets).all())
    return AnswerLoss(-chosen if math.isfinite(chosen) else math.inf, len(token_ids), is_greedy)


def _open_question(assistant: Lyrics, text: str, images: Sequence[Any]) -> Question:
    """Return a question with images before its text; unlike a question of a user, its text may be empty."""
    blocks = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
    return Question.open(Conversation([{"role": "user", "content": blocks}], list(images)), assistant.processor)


def _see(assistant: Lyrics, question: Question) -> list[VisualObjects | None]:
    """Return what the refiner sees in the images of a question; `None` for each without a refiner."""
    processor = assistant.processor
    can_refine = processor.has_refiner or processor.store is not None
    return [assistant.see(picture) if can_refine else None for picture in question.pictures]


def _answer_tokens(processor: Any, question: Question, answer: str, model: Any) -> tuple[list[int], list[int]]:
    """Return the tokens of an answer as the chat template writes it behind the question, without the end token.

    Marks of reasoning before it come first, and are not scored.
    """
    if not answer:
        return [], []
    messages = question.messages_with(question.pictures)
    before = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    message = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    whole = processor.apply_chat_template([*messages, message], tokenize=False)
    tokenize = processor.tokenizer
    prompt_ids, ids = (tokenize(text, add_special_tokens=False)["input_ids"] for text in (before, whole))
    if ids[: len(prompt_ids)] != prompt_ids:  # the template writes earlier turns otherwise than the last one
        return [], tokenize(f" {answer}", add_special_tokens=False)["input_ids"]
    opening, marks = whole.removeprefix(before).partition(answer)[0], []
    if opening.strip():
        marks = tokenize(before + opening, add_special_tokens=False)["input_ids"]
        marks = marks[len(prompt_ids) :] if ids[: len(marks)] == marks else []
    ids = ids[len(prompt_ids) + len(marks) :]
    ends = set(_as_list(model.generation_config.eos_token_id)) | {processor.tokenizer.eos_token_id}
    last = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return marks, ids[:last]


def _as_list(value: Any) -> Iterable[Any]:
    """Return a token id, several or none as a sequence."""
    return value if isinstance(value, list | tuple) else () if value is None else (value,)

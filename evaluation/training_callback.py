"""Evaluation on tasks while a model is trained: scores of small draws at each evaluation, beside the losses.

The trainers know nothing of it: whoever starts a training builds the callback and hands it over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback

from ..processing_lyrics import LyricsProcessor
from ..serving import CacheLimits, Lyrics
from ..utils.optional_imports import import_optional
from .answering import answer_samples
from .kept_objects import KeptObjects
from .ranks import Ranks
from .results import score_responses, summarize
from .samples import Response
from .tasks import TaskData, parse_units, read_task

PREFIX = "eval_"


@dataclass
class EvaluationArguments:
    """Arguments of a recipe: tasks that are evaluated while a model is trained."""

    eval_tasks: list[str] | None = field(
        default=None,
        metadata={"help": "Tasks of `lyrics evaluate` for each evaluation: TASK, TASK/SPLIT, TASK:FOLDER."},
    )
    eval_tasks_data: str = field(
        default="data", metadata={"help": "Folder with one folder for each data set of eval_tasks."}
    )
    eval_tasks_limit: int = field(default=64, metadata={"help": "Samples of each split, always the same ones."})
    eval_tasks_prompts: list[str] | None = field(
        default=None, metadata={"help": "Other prompts for eval_tasks: TEXT, or TASK=TEXT, with {question} in it."}
    )


def build_callback(arguments: EvaluationArguments, trainer: Any, processor: LyricsProcessor) -> EvaluationCallback:
    """Return the callback of a training; its data are read now.

    Args:
        arguments: arguments with `eval_tasks`.
        trainer: trainer of the second stage.
        processor: processor of the model.

    Raises:
        FileNotFoundError: data are missing.
        ValueError: a task is unknown, the training has no evaluations, or it shards the model.
    """
    if str(getattr(trainer.args.eval_strategy, "value", trainer.args.eval_strategy)) == "no":
        raise ValueError(
            "eval_tasks are evaluated at each evaluation, and there is none: set eval_strategy and eval_data."
        )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError("eval_tasks cannot be used with a model that FSDP or DeepSpeed shards: evaluate checkpoints.")
    if arguments.eval_tasks_limit < 1:
        raise ValueError(f"eval_tasks_limit must be at least 1, got {arguments.eval_tasks_limit}.")
    words = arguments.eval_tasks or []
    units = parse_units(words, arguments.eval_tasks_data, arguments.eval_tasks_prompts or ())
    tasks = [read_task(unit, arguments.eval_tasks_limit) for unit in units]
    for data in tasks:
        data.unit.task.metric.check()
        if not any(sample.has_reference for sample in data.samples):
            raise ValueError(f"{data.unit.name} has no public answers, so that it gives no score while training.")
    ranks = Ranks(trainer.args.process_index, trainer.args.world_size)
    batch_size = trainer.args.per_device_eval_batch_size
    return EvaluationCallback(tasks, processor, batch_size, trainer.log, trainer.accelerator.autocast, ranks)


class EvaluationCallback(TrainerCallback):
    """Scores a model on tasks after each evaluation, and adds the scores to its metrics and to the log.

    A score is called `eval_TASK_SPLIT`; `metric_for_best_model` may name it.

    Args:
        tasks: sequence of the samples of units.
        processor: processor of the model.
        batch_size: number of samples that are asked together.
        log: function that logs a dictionary of scores, such as `Trainer.log`.
        autocast: function that returns the context in which the model computes.
        ranks: place among the processes; each answers a share.
    """

    def __init__(
        self,
        tasks: Sequence[TaskData],
        processor: LyricsProcessor,
        batch_size: int,
        log: Callable[[dict[str, float]], Any],
        autocast: Callable[[], AbstractContextManager[Any]],
        ranks: Ranks,
    ) -> None:
        self.tasks, self.processor, self.batch_size = tasks, processor, batch_size
        self.log, self.autocast, self.ranks = log, autocast, ranks
        self._objects = KeptObjects(processor)
        self._step, self._scores = -1, dict[str, float]()

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, model: Any = None, **_: Any
    ) -> None:
        """Add the scores to the metrics of an evaluation; once for each step, of which there may be several."""
        if state.global_step != self._step:
            self._step, self._scores = state.global_step, self.score(model)
            self.log(dict(self._scores))
        if metrics is not None:
            metrics.update(self._scores)

    def score(self, model: Any) -> dict[str, float]:
        """Return the scores of a model, by their names.

        Args:
            model: `LyricsForConditionalGeneration`, or a PEFT model of it.
        """
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        base.eval()  # the trainer sets training mode before each step
        computing: Any = _UnderAutocast(base, self.autocast)
        refined, pictures = self.processor.refined_cache.max_bytes, self.processor.picture_cache.max_bytes
        limits = CacheLimits(refined, pictures=pictures, encoded=0, prefix=0, vision=0)  # the weights change
        with Lyrics(computing, self.processor, caches=limits, max_batch_size=self.batch_size) as assistant:
            return {self.name_of(data): self._score(assistant, data) for data in self.tasks}

    @staticmethod
    def name_of(data: TaskData) -> str:
        """Return the name of the score of a unit."""
        return f"{PREFIX}{data.unit.task.name}_{data.unit.split}"

    def _score(self, assistant: Lyrics, data: TaskData) -> float:
        count, size = len(data.samples), self.batch_size
        mine = self.ranks.share([range(start, min(start + size, count)) for start in range(0, count, size)])
        decoding = {"max_new_tokens": data.unit.task.max_new_tokens, "num_beams": 1}
        own = list(answer_samples(assistant, data, mine, self._objects, decoding, size))
        responses: dict[int, Response] = dict(self._gather(own))
        score = summarize(data, score_responses(data, responses), decoding)["score"]
        return float("nan") if score is None else round(score, 4)

    def _gather(self, own: list[tuple[int, Response]]) -> list[tuple[int, Response]]:
        return own if self.ranks.count == 1 else import_optional("accelerate.utils").gather_object(own)


class _UnderAutocast:
    """A model whose methods compute in a context of the caller's: that of another thread does not reach here."""

    def __init__(self, model: Any, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        self._model, self._autocast = model, autocast

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate as the model does."""
        with self._autocast():
            return self._model.generate(*args, **kwargs)

    def get_vision_features(self, *args: Any, **kwargs: Any) -> Any:
        """Run the vision encoder as the model does."""
        with self._autocast():
            return self._model.get_vision_features(*args, **kwargs)

    def get_image_features(self, *args: Any, **kwargs: Any) -> Any:
        """Encode images as the model does."""
        with self._autocast():
            return self._model.get_image_features(*args, **kwargs)

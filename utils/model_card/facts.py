"""Facts of a model card: what the files of a model's folder say, and what only its writer knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult

from .metadata import BaseModel

Kind = Literal["model", "adapter", "first stage"]

FIRST_STAGE_TYPE = "lyrics_pretraining"
# Numbers of an evaluation that say how fast it was, not how good the model is.
_SPEED = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "num_tokens", "epoch")
# Those that say something of the state of a training, and are neither high nor low for a good model.
_STATE = ("entropy", "logits/chosen", "logits/rejected", "logps/chosen", "logps/rejected")


@dataclass(frozen=True)
class ModelFiles:
    """Settings of a model's folder.

    Args:
        kind: kind of the model.
        config: dictionary of the model's configuration, empty for an adapter.
        processor: dictionary of the processor's configuration.
        refiner: dictionary of the refiner's configuration, empty where it is unknown.
        adapter: dictionary of `adapter_config.json`, empty unless the folder is an adapter's.
        has_refiner: whether the refiner is in the folder.
    """

    kind: Kind
    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    refiner: Mapping[str, Any]
    adapter: Mapping[str, Any]
    has_refiner: bool

    @classmethod
    def read(cls, folder: Path, facts: CardFacts) -> ModelFiles:
        """Read the settings of a folder; facts fill in what lies elsewhere.

        Raises:
            ValueError: the folder holds neither a model nor an adapter.
        """
        adapter, config = _read(folder / "adapter_config.json"), _read(folder / "config.json")
        if not adapter and not config:
            raise ValueError(f"{folder} holds no model: it has neither config.json nor adapter_config.json.")
        kind: Kind = "first stage" if config.get("model_type") == FIRST_STAGE_TYPE else "model"
        processor, refiner = _read(folder / "processor_config.json"), _read(folder / "refiner" / "config.json")
        return cls(
            "adapter" if adapter and not config else kind,
            config or facts.config,
            processor,
            refiner or facts.refiner,
            adapter,
            bool(refiner),
        )


def _read(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file, an empty one where the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class DataName:
    """Name of data as a card may show it: the word of the user, without the folders of a path.

    Args:
        name: name that is shown.
        hub_id: Hub id, or `None` where the data are not on the Hub.
        is_drawn: bool, whether the package draws the data on the spot.
    """

    name: str
    hub_id: str | None = None
    is_drawn: bool = False

    def describe(self) -> str:
        """Return the name as Markdown, with a link to the Hub, or that the package draws the data."""
        if self.hub_id is not None:
            return f"[{self.hub_id}](https://huggingface.co/datasets/{self.hub_id})"
        return f"`{self.name}`{' (drawings of `ziya-lyrics`)' if self.is_drawn else ''}"


@dataclass(frozen=True)
class TrainingFacts:
    """What a trainer knows of its run.

    Args:
        stage: what the run was, such as `"instruction tuning (second stage)"`.
        data: names of the training data.
        evaluation_data: names of the data for evaluation.
        rows: number of rows, or `None` for a stream.
        settings: mapping of hyper-parameters, in the order of the table.
        trained: table of trained parameters.
        steps: number of optimizer steps.
        epochs: number of passes over the data, or `None`.
        seconds: duration since the run started or resumed, or `None`.
        hardware: machine, such as `"1 x NVIDIA H200"`.
        log: list of the log's entries, mappings with `step`.
        weights_step: step of the weights, if they are not those of the last step.
    """

    stage: str
    data: Sequence[DataName] = ()
    evaluation_data: Sequence[DataName] = ()
    rows: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    trained: str = ""
    steps: int = 0
    epochs: float | None = None
    seconds: float | None = None
    hardware: str = "unknown"
    log: Sequence[Mapping[str, Any]] = ()
    weights_step: int | None = None

    def datasets(self) -> list[str]:
        """Return the Hub ids of the training data."""
        return list(dict.fromkeys(one.hub_id for one in self.data if one.hub_id is not None))

    def evaluated_step(self) -> int | None:
        """Return the step of the last evaluation up to the step of the weights, `None` without evaluations."""
        steps = [entry["step"] for entry in self.log if any(name.startswith("eval_") for name in entry)]
        return max((step for step in steps if self.weights_step is None or step <= self.weights_step), default=None)

    def results(self) -> list[EvalResult]:
        """Return the metrics of the last evaluation of the weights, if the data have a name."""
        step = self.evaluated_step()
        if step is None or not self.evaluation_data:
            return []
        data = self.evaluation_data[0]
        last = {name: value for entry in self.log if entry.get("step") == step for name, value in entry.items()}
        metrics = {name.removeprefix("eval_"): value for name, value in last.items() if name.startswith("eval_")}
        return [
            EvalResult(
                task_type="image-text-to-text",
                task_name="images and text to text",
                dataset_type=data.hub_id or data.name,
                dataset_name=data.name,
                metric_type=name,
                metric_name=name.replace("_", " "),
                metric_value=round(value, 4),
            )
            for name, value in metrics.items()
            if isinstance(value, int | float) and not name.endswith((*_SPEED, *_STATE)) and value == value
        ]


@dataclass(frozen=True)
class CardFacts:
    """What a card says of a model beside its files.

    Args:
        name: name of the model.
        bases: models that it was made from.
        relation: its relation to them, one of `RELATIONS`, or `None`.
        origin: sentences about how it came to be; empty if an earlier card tells.
        place: name that the quick start loads: a Hub id, or `"."` for the folder of the card.
        training: facts of the training run, or `None`.
        results: results of further evaluations.
        has_remote_code: whether the modules of the model lie beside its weights.
        is_untrained: whether a part of the model has never been trained, so that its answers mean nothing.
        license: licence by the Hub's name, instead of that of the bases.
        language: ISO 639 codes of the languages it answers in.
        config: configuration of the model, where the folder is that of an adapter.
        refiner: configuration of the refiner, where it is not in the folder.
    """

    name: str
    bases: Sequence[BaseModel] = ()
    relation: str | None = None
    origin: str = ""
    place: str = "."
    training: TrainingFacts | None = None
    results: Sequence[EvalResult] = ()
    has_remote_code: bool = False
    is_untrained: bool = False
    license: str | None = None
    language: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    refiner: Mapping[str, Any] = field(default_factory=dict)

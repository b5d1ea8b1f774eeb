"""Sections of a model card, each a text in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from huggingface_hub import EvalResult

from .facts import CardFacts, DataName, ModelFiles, TrainingFacts
from .metadata import PUBLISHED_LICENSE

PAPER = "https://arxiv.org/abs/2312.05278"
LOSSES_PICTURE = "losses.png"
FOLLOWS = "GPL-3.0. It follows"  # where the licence is that of the base model

_PACKAGES = ("ziya-lyrics", "transformers", "torch", "trl", "peft", "accelerate", "datasets", "tokenizers")
_KINDS = {
    "model": "This is a Lyrics model",
    "adapter": "This is an adapter for a Lyrics model",
    "first stage": "This is the first stage of a Lyrics model: vision encoder and MQ-Former, without a language model",
}
_LOOKS = "Lyrics looks at an image twice: as a whole, and object by object."
_ANSWERS = "It answers in text and in boxes."
_CITATION = """```bibtex
@article{lu2023lyrics,
  title = {Lyrics: Boosting Fine-grained Language-Vision Alignment and Comprehension via
           Semantic-aware Visual Objects},
  author = {Lu, Junyu and Zhang, Dixiang and Zhang, Songxin and Xie, Zejian and Song, Zhuoyang
            and Lin, Cong and Zhang, Jiaxing and Jing, Bingyi and Zhang, Pingjian},
  journal = {arXiv preprint arXiv:2312.05278},
  year = {2023}
}
```"""


def write_title(facts: CardFacts, files: ModelFiles) -> str:
    """Return name, what kind of model it is, and how it came to be."""
    answers = (
        "A language model that joins it in the second stage will answer." if files.kind == "first stage" else _ANSWERS
    )
    text = f"{_KINDS[files.kind]} ([paper]({PAPER})). {_LOOKS} {answers} {facts.origin}"
    return f"# {facts.name}\n\n{text.rstrip()}"


def write_seeing(files: ModelFiles) -> str:
    """Return how the model sees: vision encoder, MQ-Former, and the refiner with its parts, thresholds and mark."""
    lines = ["## How it sees", ""]
    lines += _describe_encoders(files.config)
    lines += _describe_refiner(files)
    return "\n".join(lines)


def _describe_encoders(config: Mapping[str, Any]) -> list[str]:
    """Return one line for each part of the model that its configuration describes."""
    lines = []
    if vision := config.get("vision_config"):
        side = vision.get("image_size")
        size = f", images of {side} x {side} pixels" if isinstance(side, int) else ""
        lines.append(f"- Vision encoder: `{vision.get('model_type')}`{_describe_size(vision)}{size}.")
    if mqformer := config.get("mqformer_config"):
        queries = f"{mqformer.get('num_visual_queries')} visual and {mqformer.get('num_grounding_queries')} grounding"
        lines.append(f"- MQ-Former{_describe_size(mqformer)}; {queries} queries.")
    if text := config.get("text_config"):
        lines.append(f"- Language model: `{text.get('model_type')}`{_describe_size(text)}.")
    return lines


def _describe_size(config: Mapping[str, Any]) -> str:
    """Return the number of layers and the width of a part, where its configuration names them."""
    layers, width = config.get("num_hidden_layers"), config.get("hidden_size")
    return f", {layers} layers of width {width}" if layers and width else ""


def _describe_refiner(files: ModelFiles) -> list[str]:
    """Return lines about the refiner of the folder, or about the one that the processor was saved with."""
    if files.processor and not files.refiner and not files.processor.get("refiner_fingerprint"):
        return ["- No visual refiner belongs to it: objects came with the rows of the training, or there were none."]
    fingerprint = files.processor.get("refiner_fingerprint") or files.refiner.get("fingerprint")
    mark = f" Its fingerprint is `{fingerprint}`." if fingerprint else ""
    missing = " (not in these files)" if files.processor else " (in the files of the processor)"
    place = "" if files.has_refiner else " of the base model" if files.kind == "adapter" else missing
    if not files.refiner:
        return [f"- Visual refiner{place}.{mark}"]
    refiner = files.refiner
    tagger, detector, segmenter = (refiner.get(f"{part}_config") for part in ("tagger", "detector", "segmenter"))
    tags = len((tagger or {}).get("id2label") or ())
    parts = [
        f"tagger `{tagger.get('model_type')}` with {tags:,} tags" if tagger else "no tagger (callers name tags)",
        f"detector `{(detector or {}).get('model_type')}`",
        f"segmenter `{segmenter.get('model_type')}`" if segmenter else "no segmenter",
    ]
    names = ("box_threshold", "text_threshold", "iou_threshold", "max_regions")
    values = [f"`{name}` {refiner[name]:g}" for name in names if isinstance(refiner.get(name), int | float)]
    kind, threshold = refiner.get("region_feature_type", "mask"), (tagger or {}).get("threshold")
    values += [f"`tag_threshold` {threshold:g}"] if isinstance(threshold, int | float) else []
    values += ["one tag threshold per tag"] if isinstance(threshold, list) else []
    return [
        f"- Visual refiner{place}: {', '.join(parts)}; `{kind}` region features.{mark}",
        f"- Thresholds of the refiner: {', '.join(values)}.",
    ]


def write_training(training: TrainingFacts) -> str:
    """Return what was trained, on which data, with which settings, how long and on what."""
    lines = ["## Training", "", f"Stage: {training.stage}.", ""]
    names = _list_data(training.data) or "rows that were given in memory, without a name"
    rows = "" if training.rows is None else f" ({training.rows:,} rows)"
    lines += [f"- Data: {names}{rows}."]
    if training.evaluation_data:
        lines.append(f"- Data for evaluation: {_list_data(training.evaluation_data)}.")
    lines.append(f"- Duration: {_describe_duration(training)}, on {training.hardware}.")
    if training.weights_step not in (None, training.steps):
        lines.append(f"- The weights are those of step {training.weights_step:,}, which the evaluations liked best.")
    if training.settings:
        lines += ["", "| setting | value |", "|---|---|"]
        lines += [f"| {name} | {_show(value)} |" for name, value in training.settings.items()]
    if training.trained:
        lines += ["", "```text", training.trained, "```"]
    return "\n".join(lines)


def _list_data(data: Sequence[DataName]) -> str:
    """Return names of data, with a link for those on the Hub."""
    return ", ".join(one.describe() for one in data)


def _describe_duration(training: TrainingFacts) -> str:
    epochs = "" if training.epochs is None else f" ({training.epochs:.3g} epochs)"
    if training.seconds is None:
        return f"{training.steps:,} steps{epochs}"
    seconds = training.seconds
    time = f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{max(1, round(seconds / 60))} minutes"
    return f"{training.steps:,} steps{epochs} in {'less than a minute' if seconds < 60 else time}"


def _show(value: Any) -> str:
    """Return a setting as text for a cell of a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_show(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_show(one) for one in value) or "none"
    return str(value).replace("|", "\\|").replace("\n", " ")


def write_losses(has_picture: bool) -> str:
    """Return the image of the losses; nothing where there is none."""
    return f"![Losses and metrics by training step]({LOSSES_PICTURE})" if has_picture else ""


def write_evaluation(results: Sequence[EvalResult], step: int | None = None) -> str:
    """Return a table of results, or that there are none.

    Args:
        results: results of evaluations.
        step: training step whose weights were evaluated, or `None` where it is unknown.
    """
    if not results:
        return "## Evaluation\n\nNo evaluation of this model is recorded here."
    lines = ["## Evaluation", ""]
    lines += [] if step is None else [f"Measured by the trainer with the weights of step {step:,}.", ""]
    lines += ["| data | metric | value |", "|---|---|---:|"]
    lines += [f"| {one.dataset_name} | {one.metric_name or one.metric_type} | {one.metric_value} |" for one in results]
    return "\n".join(lines)


def write_limits(facts: CardFacts, files: ModelFiles) -> str:
    """Return what the model cannot do."""
    lines = ["## Limits", ""]
    if facts.is_untrained:
        lines.append("- **The projection to the language model is new and untrained: answers mean nothing yet.**")
    if files.kind == "first stage":
        return "\n".join([*lines, "- It has no language model, and answers no questions. `lyrics compose` adds one."])
    if files.kind == "adapter":
        lines.append("- It works with its base model only; loading it onto other weights is an error.")
    lines += [
        "- It can name objects that are not in the image, and miss those that are. Boxes and counts can be wrong.",
        "- The refiner finds what its tagger has a word for; small and crowded objects are missed most often.",
        "- Answers repeat what the training data say of people and things. Do not decide about people by them.",
        "- It was tried in no language, and on no kind of image, beyond those named on this page.",
    ]
    return "\n".join(lines)


def write_license(facts: CardFacts, license: str | None) -> str:
    """Return the licence, where it comes from, and the base models with theirs."""
    lines = ["## Licence", ""]
    if license == PUBLISHED_LICENSE and any(base.license == license for base in facts.bases):
        is_published = any(base.is_published() for base in facts.bases)
        weights = "published weights of Ziya-Visual-Lyrics" if is_published else "weights of the base model"
        lines.append(f"{FOLLOWS} the {weights} and everything that is tuned on them.")
    elif license == "other":
        lines.append("The licences of all base models below apply.")
    elif license is not None:
        lines.append(f"`{license}`.")
    elif not facts.bases:
        lines.append("Not stated: the owner of this model has not named one yet, in `license` above.")
    else:
        lines.append(
            "Not stated: the licence of what this model was made from is not known. Name one in `license` above."
        )
    lines += ["", *(f"- {base.role}: {base.describe()} ({base.license or 'licence unknown'})" for base in facts.bases)]
    return "\n".join(lines).rstrip() + "\n\nThe code of the package is under Apache-2.0."


def write_citation() -> str:
    """Return the paper as BibTeX."""
    return f"## Citation\n\n{_CITATION}"


def write_versions() -> str:
    """Return the versions of the packages that wrote the model."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"## Versions\n\n{', '.join(found)}."

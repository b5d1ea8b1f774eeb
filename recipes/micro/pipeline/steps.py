"""The steps from nothing to an evaluated model: what each takes, and where it leaves what it makes.

    out/vision  backbone  tagger  detector  segmenter  refiner  language  rows  store       shared by all variants
    out/VARIANT-SEED/stage1  composed  stage2  model  results.json

A step that has finished is not repeated; one that was interrupted goes on from its newest checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ...curves import draw_curves
from ..ablations import VARIANTS, Variant

logger = logging.get_logger(__name__)

_FOLDER = Path(__file__).parents[1]
FINISHED = "finished.json"


@dataclass
class Workshop:
    """Where the steps of one model work.

    Attributes:
        out: the folder of all models.
        name: of the variant.
        seed: of its two stages.
        smoke: run few steps on few scenes, to see that everything runs.
    """

    out: Path
    name: str = "full"
    seed: int = 0
    smoke: bool = False

    @property
    def variant(self) -> Variant:
        """What is trained."""
        return VARIANTS[self.name]

    @cached_property
    def _smoke_settings(self) -> dict[str, dict[str, Any]]:
        return _read("smoke") if self.smoke else {}

    def shared(self, step: str) -> Path:
        """Folder of a step that all variants share."""
        return self.out / step

    def own(self, step: str) -> Path:
        """Folder of a step of this variant and seed."""
        return self.out / f"{self.name}-{self.seed}" / step

    def folder(self, step: str) -> Path:
        """Folder of any step."""
        return self.shared(step) if step in SHARED else self.own(step)

    def settings(self, step: str) -> dict[str, Any]:
        """What the recipe says, with what the smoke run replaces."""
        return _read(step) | self._smoke_settings.get(step, {})

    def run_settings(self, step: str, folder: Path) -> dict[str, Any]:
        """The settings of a training run that writes into a folder."""
        every = _read("common") | self._smoke_settings.get("common", {})
        return every | {"output_dir": str(folder), "seed": self.seed} | self.settings(step)


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load((_FOLDER / f"{name}.yaml").read_text()) or {}


# ---------------------------------------------------------------- the steps


def _vision(shop: Workshop) -> None:
    from ..vision_encoder import train_vision

    train_vision(_step_arguments(shop, "vision"), shop.shared("vision") / "model")


def _backbone(shop: Workshop) -> None:
    from ..refiner.backbone import train_backbone

    train_backbone(_step_arguments(shop, "backbone"), shop.shared("backbone") / "model")


def _tagger(shop: Workshop) -> None:
    from ..refiner.tagger import train_tagger

    train_tagger(_step_arguments(shop, "tagger"), shop.shared("tagger") / "model")


def _detector(shop: Workshop) -> None:
    from ..refiner.detector import train_detector

    backbone = shop.shared("backbone") / "model"
    train_detector(_step_arguments(shop, "detector"), backbone, shop.shared("detector") / "model")


def _segmenter(shop: Workshop) -> None:
    from ..refiner.segmenter import train_segmenter

    train_segmenter(_step_arguments(shop, "segmenter"), shop.shared("segmenter") / "model")


def _step_arguments(shop: Workshop, step: str) -> Any:
    from ..common.step_trainer import StepArguments

    return StepArguments(**shop.run_settings(step, shop.shared(step)))


def _refiner(shop: Workshop) -> None:
    from ..refiner.assemble import assemble_processor, write_measures

    tagger, detector, segmenter = (shop.shared(step) / "model" for step in ("tagger", "detector", "segmenter"))
    assemble_processor(tagger, detector, segmenter, shop.shared("refiner"))
    write_measures(shop.shared("refiner"))


def _language(shop: Workshop) -> None:
    from ..language_model.train import train_language_model

    settings = shop.run_settings("language", shop.shared("language"))
    rest = {name: settings.pop(name) for name in ("phases", "dialogues", "eval_scenes", "questions")}
    train_language_model(settings, **rest, out=shop.shared("language") / "model")


def _rows(shop: Workshop) -> None:
    from ..world.datasets import write_rows

    counts = shop.settings("rows")
    for split in ("train", "validation"):
        write_rows(shop.shared("rows") / split, split, counts[split], counts["first"])


def _store(shop: Workshop) -> None:
    from ....datasets_lyrics.open_data import open_source
    from ....processing_lyrics import LyricsProcessor
    from ....refinement import RefinementStore, refine_dataset

    settings = shop.settings("store")
    parts = []
    for split in ("train", "validation"):
        parts.append(shop.shared("store") / split)
        source = open_source(str(shop.shared("rows") / split), image="image", key="key")
        refine_dataset(source, parts[-1], LyricsProcessor.from_pretrained(shop.shared("refiner")), **settings)
    RefinementStore.merge(parts, shop.shared("store") / "all")


def _stage1(shop: Workshop) -> None:
    from ..train_stages import train_stage1

    train_stage1(
        shop.run_settings("stage1", shop.own("stage1")),
        shop.variant,
        vision=shop.shared("vision") / "model",
        refiner=shop.shared("refiner"),
        rows=shop.shared("rows"),
        store=shop.shared("store") / "all",
        out=shop.own("stage1") / "model",
    )


def _composed(shop: Workshop) -> None:
    from ..train_stages import compose_micro

    refiner = shop.shared("refiner") if shop.variant.refiner else None
    stage1, language = shop.own("stage1") / "model", shop.shared("language") / "model"
    compose_micro(stage1, language, refiner, shop.own("composed") / "model", shop.seed)


def _stage2(shop: Workshop) -> None:
    from ..train_stages import train_stage2

    train_stage2(
        shop.run_settings("stage2", shop.own("stage2")),
        shop.variant,
        shop.settings("rows"),
        model=shop.own("composed") / "model",
        rows=shop.shared("rows"),
        store=shop.shared("store") / "all",
        adapter=shop.own("stage2") / "adapter",
        out=shop.own("stage2") / "model",
    )


def _evaluation(shop: Workshop) -> None:
    from ..evaluate import evaluate_checkpoint

    evaluate_checkpoint(
        shop.own("stage2") / "model", shop.own("evaluation"), shop.variant, **shop.settings("evaluation")
    )


SHARED: dict[str, Callable[[Workshop], None]] = {  # the longest first, as far as they do not need each other
    "language": _language,
    "backbone": _backbone,
    "tagger": _tagger,
    "detector": _detector,
    "segmenter": _segmenter,
    "vision": _vision,
    "refiner": _refiner,
    "rows": _rows,
    "store": _store,
}
NEEDS: dict[str, tuple[str, ...]] = {  # of the shared steps; the others need all that come before them
    "detector": ("backbone",),
    "refiner": ("tagger", "detector", "segmenter"),
    "store": ("refiner", "rows"),
}
OWN: dict[str, Callable[[Workshop], None]] = {
    "stage1": _stage1,
    "composed": _composed,
    "stage2": _stage2,
    "evaluation": _evaluation,
}
STEPS = SHARED | OWN


def run_steps(shop: Workshop, names: list[str] | None = None) -> None:
    """Run the steps that have not finished, in their order.

    Args:
        shop: where, and what.
        names: of the steps; by default all.

    Raises:
        ValueError: when there is no such step, or when a step has finished with other settings than the recipe's.
    """
    if unknown := sorted(set(names or ()) - set(STEPS)):
        raise ValueError(f"There is no step {', '.join(unknown)}; the steps are {', '.join(STEPS)}.")
    for name, step in STEPS.items():
        if names is not None and name not in names:
            continue
        folder = shop.folder(name)
        if has_finished(shop, name):
            logger.info("%s: finished before", folder)
            continue
        logger.info("%s: begins", folder)
        folder.mkdir(parents=True, exist_ok=True)
        start, settings = time.monotonic(), recorded_settings(shop, name)
        step(shop)
        _plot(folder)
        seconds = round(time.monotonic() - start)
        (folder / FINISHED).write_text(json.dumps({"seconds": seconds, "settings": settings}, indent=2) + "\n")
        logger.info("%s: finished in %d s", folder, seconds)


def has_finished(shop: Workshop, name: str) -> bool:
    """Whether a step has finished.

    Raises:
        ValueError: when it has, with other settings than the recipe's.
    """
    folder = shop.folder(name)
    if not (folder / FINISHED).is_file():
        return False
    finished, settings = json.loads((folder / FINISHED).read_text())["settings"], recorded_settings(shop, name)
    other = sorted(key for key in finished | settings if finished.get(key) != settings.get(key))
    if other:
        raise ValueError(
            f"{folder} has finished with other settings than its recipe has now ({', '.join(other)}): delete it to "
            "repeat it and what follows, or take another folder."
        )
    return True


def _plot(folder: Path) -> None:
    """Draw the curves of a step's training runs, each beside its log."""
    for run in [folder, *sorted(folder.iterdir())]:
        if not (run / "trainer_state.json").is_file() or run.name.startswith(PREFIX_CHECKPOINT_DIR):
            continue
        try:
            draw_curves(run, run / "curves.png")
        except ImportError:
            logger.warning_once("Without matplotlib no curves are drawn.")


def recorded_settings(shop: Workshop, name: str) -> dict[str, Any]:
    """What `finished.json` says of a step: its recipe, where it has one."""
    has_recipe = (_FOLDER / f"{name}.yaml").is_file()
    return shop.settings(name) if has_recipe else {}

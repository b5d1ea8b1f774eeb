"""The steps from scratch to an evaluated model, in their order, with their dependencies.

A finished step is not repeated, and an interrupted one resumes from its newest checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ....processing_lyrics import LyricsProcessor
from ....refinement import RefinementStore, refine_dataset
from ...curves import draw_curves
from ..common.run_folders import RunFolders
from ..evaluate import evaluate_model
from ..language_model.train import train_language_model
from ..refiner.assemble import assemble_refiner
from ..refiner.backbone import train_backbone
from ..refiner.detector import train_detector
from ..refiner.segmenter import train_segmenter
from ..refiner.tagger import train_tagger
from ..train_stages import compose_stages, train_stage1, train_stage2
from ..vision_encoder import train_vision
from ..world.datasets import write_rows

logger = logging.get_logger(__name__)

_SPLITS = ("train", "validation")


def _write_rows(folders: RunFolders) -> None:
    """Write the scenes that both stages are trained on."""
    counts = folders.settings("rows")
    for split in _SPLITS:
        write_rows(folders.folder("rows") / split, split, counts[split], counts["first"])


def _write_store(folders: RunFolders) -> None:
    """Write what the refiner detects in these scenes."""
    parts = [folders.folder("store") / split for split in _SPLITS]
    for part in parts:
        rows, settings = str(folders.folder("rows") / part.name), folders.settings("store")
        processor = LyricsProcessor.from_pretrained(folders.folder("refiner"))
        refine_dataset(rows, part, processor, image="image", key="key", **settings)
    RefinementStore.merge(parts, folders.folder("store") / "all")


# `SHARED_STEPS` and `MODEL_STEPS` of `run_folders.py`, in the same order.
STEPS: dict[str, Callable[[RunFolders], None]] = {
    "language": train_language_model,
    "backbone": train_backbone,
    "tagger": train_tagger,
    "detector": train_detector,
    "segmenter": train_segmenter,
    "vision": train_vision,
    "refiner": assemble_refiner,
    "rows": _write_rows,
    "store": _write_store,
    "stage1": train_stage1,
    "composed": compose_stages,
    "stage2": train_stage2,
    "evaluation": evaluate_model,
}
DEPENDENCIES: dict[str, tuple[str, ...]] = {  # between shared steps; a step of one model needs all steps before it
    "detector": ("backbone",),
    "refiner": ("tagger", "detector", "segmenter"),
    "store": ("refiner", "rows"),
}


def run_steps(folders: RunFolders, names: Sequence[str] | None = None) -> None:
    """Run the steps that have not finished, in their order.

    Args:
        folders: folders and settings of the model.
        names: names of the steps. By default all steps.

    Raises:
        ValueError: a name is unknown, or a step has finished with other settings than those of its recipe.
    """
    if unknown := sorted(set(names or ()) - set(STEPS)):
        raise ValueError(f"Unknown steps: {', '.join(unknown)}. The steps are {', '.join(STEPS)}.")
    for name, step in STEPS.items():
        if names is not None and name not in names:
            continue
        folder = folders.folder(name)
        if folders.has_finished(name):
            logger.info("%s: has finished before", folder)
            continue
        logger.info("%s: starts", folder)
        folder.mkdir(parents=True, exist_ok=True)
        start, settings = time.monotonic(), folders.settings(name)
        step(folders)
        _plot_curves(folder)
        seconds = round(time.monotonic() - start)
        folders.mark_finished(name, seconds, settings)
        logger.info("%s: finished after %d s", folder, seconds)


def _plot_curves(folder: Path) -> None:
    """Plot the curves of all training runs of a step into their folders."""
    for run in [folder, *sorted(folder.iterdir())]:
        if not (run / "trainer_state.json").is_file() or run.name.startswith(PREFIX_CHECKPOINT_DIR):
            continue
        try:
            draw_curves(run, run / "curves.png")
        except ImportError:
            logger.warning_once("Curves are not plotted, since matplotlib is not installed.")

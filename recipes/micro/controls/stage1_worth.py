"""What the first stage is worth to the second one, by losses, queries, MQ-Former and rows, one cell at a time.

python -m lyrics.recipes.micro.controls.stage1_worth --losses all --rows 500 --seed 0
python -m lyrics.recipes.micro.controls.stage1_worth --losses none --queries wired --mqformer tuned --rows 8000
python -m lyrics.recipes.micro.controls.stage1_worth --losses all none --rows 500 2000 8000 --seeds 0 1 2 3 4
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ....conversion import merge_adapter
from ....trainers import LyricsPretrainingTrainer
from ..common.muon import use_muon
from ..common.run_folders import RunFolders
from ..common.step_trainer import run_trainer
from ..pipeline.pretrained import write_pretrained
from ..train_stages import build_first_stage, compose_micro, tune
from ..world.datasets import CaptionRows, DialogueRows
from .arms import Arm
from .cells import SightRows, cost, measure, once, open_store, see_training_scenes
from .command_line import add_cell_options, results_folder, run_cells
from .question_sets import OWN
from .results import Result, write_result
from .time_limit import TimeLimit

RECIPE = "stage1_worth"  # file of the settings
_OFF = {"itc_weight": 0.0, "itm_weight": 0.0, "icg_weight": 0.0, "msp_weight": 0.0}
LOSSES: Mapping[str, tuple[str, ...]] = {  # by name, the losses that are left out
    "all": (),
    "no_itc": ("itc_weight",),
    "no_itm": ("itm_weight",),
    "no_icg": ("icg_weight",),
    "no_msp": ("msp_weight",),
    "none": tuple(_OFF),  # the first stage is not trained
}
QUERIES = ("free", "wired")  # wired: each of the first 16 grounding queries is initialized to one region
MQFORMER = ("frozen", "tuned")  # in the second stage
ROWS = (500, 2000, 8000, 80000)  # dialogues of the second stage
_ARM = Arm("encoder and refiner, as they ship")


@dataclass(frozen=True)
class Cell:
    """First stage, and the second stage that is trained on it.

    Attributes:
        losses: key of `LOSSES`.
        queries: word of `QUERIES`.
        mqformer: word of `MQFORMER`.
        rows: number of rows of the second stage, one of `ROWS`.
    """

    losses: str
    queries: str
    mqformer: str
    rows: int

    @property
    def first_stage(self) -> str:
        """Name of the first stage, which several cells share."""
        return f"{self.losses}_{self.queries}"

    @property
    def name(self) -> str:
        """Name of the cell."""
        return f"{self.first_stage}_{self.mqformer}_{self.rows}"


def all_cells() -> list[Cell]:
    """Return every cell, in the order in which they are worth their time."""
    order = itertools.product(ROWS, MQFORMER, QUERIES, LOSSES)
    return [Cell(losses, queries, mqformer, rows) for rows, mqformer, queries, losses in order]


def run_worth_cell(
    cell: Cell,
    seed: int,
    out: Path,
    results: Path,
    *,
    limit: TimeLimit,
    store: Path | None = None,
    smoke: bool = False,
) -> Path:
    """Run a cell, or resume it, and return the file of its results; arguments as of `run_cell`.

    Raises:
        OutOfTimeError: the time was over before the end. The same call resumes the cell.
    """
    file = results / f"{cell.name}-{seed}.json"
    if file.is_file():
        return file
    first = RunFolders(out, cell.first_stage, seed, smoke, RECIPE)
    second = RunFolders(out, cell.name, seed, smoke, RECIPE)
    write_pretrained(first)
    once(first, "stage1", limit, lambda: _train_first_stage(first, cell, limit, store))
    once(second, "composed", limit, lambda: _compose(first, second))
    once(second, "stage2", limit, lambda: _tune(second, cell, limit, store))
    model, processor = merge_adapter(second.folder("stage2") / "adapter")
    facts = {"stage1": cost(first, "stage1"), "stage2": cost(second, "stage2")}
    write_result(file, Result(cell.name, seed, facts, *measure(second, _ARM, model, processor, names=[OWN])))
    return file


def _train_first_stage(folders: RunFolders, cell: Cell, limit: TimeLimit, store: Path | None) -> None:
    settings = folders.training_settings("stage1") | {name: _OFF[name] for name in LOSSES[cell.losses]}
    trained = cell.losses != "none"
    if not trained:  # a model without any loss is refused
        settings |= dict.fromkeys(_OFF, 1.0)
    matrix_learning_rate, scenes = settings.pop("matrix_learning_rate"), folders.settings("rows")
    model, processor, training = build_first_stage(
        settings, folders.model("vision"), folders.folder("refiner"), one_per_region=cell.queries == "wired"
    )
    if trained:
        processor.store = open_store(folders, processor, store)
    rows = CaptionRows("train", scenes["train"], scenes["first"])
    trainer = LyricsPretrainingTrainer(model, training, rows, None, processor, callbacks=[limit])
    if trained:
        use_muon(trainer, matrix_learning_rate)
        run_trainer(trainer, evaluate=False)
    trainer.save_model(str(folders.model("stage1")))


def _compose(first: RunFolders, second: RunFolders) -> None:
    stage1, language, refiner = first.model("stage1"), first.model("language"), first.folder("refiner")
    for part in compose_micro(stage1, language, refiner, second.seed):
        part.save_pretrained(second.model("composed"))


def _tune(folders: RunFolders, cell: Cell, limit: TimeLimit, store: Path | None) -> None:
    settings, scenes = folders.training_settings("stage2"), folders.settings("rows")
    dialogues, _ = settings.pop("dialogues"), settings.pop("lookups")
    if not folders.smoke:
        steps: Any = folders.settings("steps")  # by number of rows
        settings["max_steps"] = steps[cell.rows]
    if cell.mqformer == "frozen":
        settings["freeze"] = ["mqformer"]
    count = min(cell.rows // dialogues, scenes["train"])
    rows = DialogueRows("train", count, scenes["first"], dialogues, cell.rows // 8)
    seen = see_training_scenes(folders, _ARM, store)
    tune(settings, folders.model("composed"), SightRows(rows, seen), callbacks=[limit])


def main() -> None:
    """Run the cells that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m lyrics.recipes.micro.controls.stage1_worth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=["all", "none"], help="default: all none")
    parser.add_argument("--queries", nargs="+", choices=QUERIES, default=["free"], help="default: free")
    parser.add_argument("--mqformer", nargs="+", choices=MQFORMER, default=["frozen"], help="default: frozen")
    parser.add_argument("--rows", nargs="+", type=int, choices=ROWS, default=[500], help="default: 500")
    parser.add_argument("--seeds", nargs="+", type=int, help="several seeds, instead of --seed")
    add_cell_options(parser, "stage1_worth")
    arguments = parser.parse_args()
    options: dict[str, Any] = {
        "limit": TimeLimit(arguments.minutes),
        "store": arguments.store,
        "smoke": arguments.smoke,
    }
    results = results_folder(arguments, "stage1_worth")
    chosen = itertools.product(
        arguments.rows, arguments.mqformer, arguments.queries, arguments.seeds or [arguments.seed], arguments.losses
    )
    cells = [(Cell(losses, queries, mqformer, rows), seed) for rows, mqformer, queries, seed, losses in chosen]
    run_cells(parser, [partial(run_worth_cell, cell, seed, arguments.out, results, **options) for cell, seed in cells])


if __name__ == "__main__":
    main()

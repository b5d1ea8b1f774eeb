"""Cells: one arm with one seed, from the parts that ship to a small file of results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from torch.utils.data import Dataset

from ....assets import MICRO_CHECKPOINT, MICRO_PRETRAINING
from ....conversion import merge_adapter
from ....modeling_lyrics import LyricsForConditionalGeneration
from ....processing_lyrics import LyricsProcessor, VisualObjects
from ....refinement import RefinementStore
from ....utils.atomic_files import write_file
from ..common.run_folders import RunFolders
from ..common.step_trainer import OutOfTimeError
from ..pipeline.pretrained import write_pretrained
from ..pipeline.steps import run_steps
from ..train_stages import compose_micro, tune
from ..world.datasets import DialogueRows, boxes_as_text
from ..world.objects import Scene
from ..world.scenes import draw_scene
from .arms import ARMS, EVALUATIONS, SHIPPED, Arm
from .encoders import count_flop, train_encoder, train_first_stage
from .plain_text import ObjectWriter
from .question_sets import (
    DRAWS,
    HELD_OUT_SET,
    OWN,
    answer_seen,
    combinations_of,
    count_combinations,
    draw_questions,
    guess_answers,
    refine_scenes,
    show,
)
from .results import Result, write_result
from .sights import OF_THE_NEXT, SIGHTS, WITHOUT_REFINER, Lookout, Seen
from .time_limit import TimeLimit

T = TypeVar("T")

RECIPE = "controls"  # file of the settings
_WRITER_SCENES = 256  # training scenes by which colors are learned, for plain text
_COUNTED_SCENES = 1000  # training scenes in which held-out combinations are counted
_SCENES_IN_MEMORY = 128  # twice as many as dialogues ask about in turn


class SightRows(Dataset):
    """Dialogues about training scenes, with what an arm sees of each scene.

    Args:
        rows: dialogues about images.
        seen: function from the number of a scene to what the model sees of it.
    """

    def __init__(self, rows: DialogueRows, seen: Callable[[int], Seen]) -> None:
        self.rows, self.seen = rows, seen

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, sight = self.rows[index], self.seen(self.rows.locate(index)[0])
        if sight.image is not None:
            objects = {} if sight.objects is None else {"visual_objects": sight.objects}
            return row | {"image": sight.image} | objects
        first, *others = boxes_as_text(row["messages"])  # a box block would need an image that it refers to
        messages = [{**first, "content": [*show(sight), *first["content"]]}, *others]
        return {"key": row["key"], "messages": messages}


def run_cell(
    name: str,
    seed: int,
    out: Path,
    results: Path,
    *,
    limit: TimeLimit,
    store: Path | None = None,
    smoke: bool = False,
) -> Path:
    """Run a cell, or resume it, and return the file of its results. A finished cell is not repeated.

    Args:
        name: key of `ARMS` or of `EVALUATIONS`.
        seed: seed of projection and tuning.
        out: folder of all cells.
        results: folder of the files of results.
        limit: time limit of trainings.
        store: store of the objects of the training scenes. By default they are refined first, once for all cells.
        smoke: bool, whether everything is done with a few steps, scenes and questions.

    Raises:
        OutOfTimeError: the time was over before the end. The same call resumes the cell.
    """
    seed = seed if name in ARMS else 0
    file = results / f"{name}-{seed}.json"
    if file.is_file():
        return file
    folders = RunFolders(out, name, seed, smoke, RECIPE)
    write_pretrained(folders)
    if name in EVALUATIONS:
        model = LyricsForConditionalGeneration.from_pretrained(MICRO_CHECKPOINT)
        measured = measure(folders, EVALUATIONS[name], model, LyricsProcessor.from_pretrained(MICRO_CHECKPOINT))
        result = Result(name, seed, {}, *measured)
        if name == SHIPPED:
            result.notes.update(_describe_questions(folders))
    else:
        arm = ARMS[name]
        facts = _train(folders, arm, limit, store)
        write = make_writer(folders, store) if arm.sight == "text" else _no_text
        model, processor = merge_adapter(folders.folder("stage2") / "adapter")
        result = Result(name, seed, facts, *measure(folders, arm, model, processor, write))
    write_result(file, result)
    return file


def _train(folders: RunFolders, arm: Arm, limit: TimeLimit, store: Path | None) -> dict[str, Any]:
    """Train what an arm needs, and return what it cost."""
    facts: dict[str, Any] = {}
    stage1, refiner = MICRO_PRETRAINING, folders.folder("refiner")
    if arm.encoder is not None:
        own = RunFolders(folders.out, arm.encoder, 0, folders.smoke, RECIPE)
        once(own, "encoder", limit, lambda: train_encoder(own, [limit]))
        once(own, "stage1", limit, lambda: train_first_stage(own, [limit]))
        stage1, refiner = own.model("stage1"), None
        facts |= {"mflop": count_flop(own), "encoder": cost(own, "encoder"), "stage1": cost(own, "stage1")}
    once(folders, "composed", limit, lambda: _compose(folders, stage1, refiner))
    once(folders, "stage2", limit, lambda: _tune(folders, arm, limit, store))
    return facts | {"stage2": cost(folders, "stage2")}


def _compose(folders: RunFolders, stage1: Path, refiner: Path | None) -> None:
    for part in compose_micro(stage1, folders.model("language"), refiner, folders.seed):
        part.save_pretrained(folders.model("composed"))


def _tune(folders: RunFolders, arm: Arm, limit: TimeLimit, store: Path | None) -> None:
    settings, scenes = folders.training_settings("stage2"), folders.settings("rows")
    dialogues, lookups = settings.pop("dialogues"), settings.pop("lookups")
    rows = DialogueRows("train", scenes["train"], scenes["first"], dialogues, lookups)
    if arm.sight == "text":
        settings["freeze"] = ["mqformer", "projection"]  # which text does not pass
    seen = see_training_scenes(folders, arm, store)
    tune(settings, folders.model("composed"), SightRows(rows, seen), callbacks=[limit])


def see_training_scenes(folders: RunFolders, arm: Arm, store: Path | None) -> Callable[[int], Seen]:
    """Return the function from the number of a training scene to what an arm sees of it."""
    draw = _remember(lambda number: draw_scene("train", number))
    sight = SIGHTS[arm.sight]
    if arm.sight in WITHOUT_REFINER:
        return _remember(partial(sight, Lookout(draw, _no_objects, None, _no_text)))
    processor = LyricsProcessor.from_pretrained(folders.folder("refiner"))
    find: Callable[[int], VisualObjects] = _no_objects
    if arm.sight != "oracle":
        stored = open_store(folders, processor, store)
        find = _remember(lambda number: _look_up(stored, draw(number), number))
    write = make_writer(folders, store) if arm.sight == "text" else _no_text
    return _remember(partial(sight, Lookout(draw, find, processor.refiner, write)))


def make_writer(folders: RunFolders, store: Path | None) -> ObjectWriter:
    """Return the writer of plain text, which has learned colors from training scenes."""
    processor, scenes = LyricsProcessor.from_pretrained(folders.folder("refiner")), folders.settings("rows")
    stored, first = open_store(folders, processor, store), scenes["first"]
    numbers = range(first, first + min(_WRITER_SCENES, scenes["train"]))
    drawn = ((number, draw_scene("train", number)) for number in numbers)
    return ObjectWriter((scene, _look_up(stored, scene, number)) for number, scene in drawn)


def open_store(folders: RunFolders, processor: LyricsProcessor, store: Path | None) -> RefinementStore:
    """Return the store of the objects of the training scenes, which is written first if none is given.

    Raises:
        ValueError: the store belongs to another refiner.
    """
    if store is None:
        run_steps(RunFolders(folders.out, smoke=folders.smoke, recipe=folders.recipe), ["rows", "store"])
        store = folders.out / "store" / "all"
    opened = RefinementStore.open(store)
    opened.check(processor)
    return opened


def _look_up(store: RefinementStore, scene: Scene, number: int) -> VisualObjects:
    objects = store.lookup(scene.image)
    if objects is None:
        raise ValueError(f"{store.path} does not hold training scene {number}. Leave --store out, or give another one.")
    return objects


def _no_objects(number: int) -> VisualObjects:
    raise ValueError(f"The objects of scene {number} are not known to this arm.")


def _no_text(objects: VisualObjects) -> str:
    raise ValueError("This arm has no plain text.")


def _remember(function: Callable[[int], T]) -> Callable[[int], T]:
    return lru_cache(maxsize=_SCENES_IN_MEMORY)(function)


def measure(
    folders: RunFolders,
    arm: Arm,
    model: Any,
    processor: LyricsProcessor,
    write: Callable[[VisualObjects], str] = _no_text,
    names: Iterable[str] = tuple(DRAWS),
) -> tuple[dict[str, Mapping[str, str]], float]:
    """Answer the sets of questions, and return which answers are right, by set and kind, and the seconds.

    The answers to a set are kept in the folder `answers`, so that it is not asked again after a kill.

    Args:
        folders: folders and settings of the cell.
        arm: arm, which decides what the model sees.
        model: `LyricsForConditionalGeneration`.
        processor: processor of the model.
        write: function from objects to plain text.
        names: names of the sets.
    """
    model, seeing = model.eval(), LyricsProcessor.from_pretrained(folders.folder("refiner"))
    answered: dict[str, Mapping[str, str]] = {}
    seconds = 0.0
    for name in names:
        kept = folders.folder("answers") / f"{name}.json"
        if not kept.is_file():
            start = time.process_time()
            bits = _answer(folders, arm, model, processor, seeing, write, name)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with write_file(kept, "w") as file:
                json.dump({"answers": bits, "seconds": time.process_time() - start}, file)
        found = json.loads(kept.read_text())
        answered[name], seconds = found["answers"], seconds + found["seconds"]
    return answered, round(seconds, 1)


def _answer(
    folders: RunFolders,
    arm: Arm,
    model: Any,
    processor: LyricsProcessor,
    seeing: LyricsProcessor,
    write: Callable[[VisualObjects], str],
    name: str,
) -> Mapping[str, str]:
    """Answer a set of questions; `seeing` is the processor whose refiner finds the objects of the scenes."""
    cases, draw = draw_questions(name, **folders.settings("questions")), _remember(DRAWS[name])
    find = _no_objects
    if arm.sight not in WITHOUT_REFINER:
        numbers = {case.number for case in cases}
        if arm.sight in OF_THE_NEXT:
            numbers |= {number + 1 for number in numbers}
        world = OWN if name == HELD_OUT_SET else name
        find = refine_scenes(seeing, draw, sorted(numbers), folders.out / "refined" / world).__getitem__
    see = lru_cache(maxsize=None)(partial(SIGHTS[arm.sight], Lookout(draw, find, seeing.refiner, write)))
    return answer_seen(model, processor, cases, see)


def _describe_questions(folders: RunFolders) -> dict[str, Any]:
    """Return what does not depend on a model: guessed answers, and the combinations that training does not show."""
    cases = {name: draw_questions(name, **folders.settings("questions")) for name in DRAWS}
    scenes = 10 if folders.smoke else _COUNTED_SCENES
    return {
        "guessing": {name: guess_answers(of_set) for name, of_set in cases.items()},
        "combinations": combinations_of(cases[HELD_OUT_SET]),
        "seen": count_combinations(scenes),
    }


def once(folders: RunFolders, step: str, limit: TimeLimit, run: Callable[[], None]) -> None:
    """Run a step that has not finished, and write what it cost.

    Raises:
        OutOfTimeError: the time was over before the step.
    """
    if folders.has_finished(step):
        return
    if limit.is_over:
        raise OutOfTimeError(f"{folders.folder(step)} was not started in time. Run it again.")
    start = time.process_time()
    limit.forget()
    folders.folder(step).mkdir(parents=True, exist_ok=True)
    try:
        run()
    except OutOfTimeError as error:
        raise OutOfTimeError(f"{error} A step takes {limit.seconds_per_step} s of one core.") from error
    seconds = round(time.process_time() - start)
    notes = {"steps": limit.last_step, "seconds_per_step": limit.seconds_per_step}
    folders.mark_finished(step, seconds, folders.settings(step), **notes)


def cost(folders: RunFolders, step: str) -> dict[str, Any]:
    """Return the number of steps of a training, and the processor time of each in seconds."""
    finished = folders.read_finished(step)
    return {name: finished[name] for name in ("steps", "seconds_per_step")}

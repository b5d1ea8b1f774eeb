"""Checkpoints that are complete or not there: written aside, checksummed, and renamed when everything is on the disk.

`CompleteCheckpoints` is mixed into a trainer of Transformers or TRL. A checkpoint's `manifest.json` lists every file
with its size and SHA-256; a folder without one, or one that does not match it, is never resumed from.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints
from transformers.utils import logging

from ...utils.atomic_files import remove_folder, remove_leftovers, sha256_of, sync_folder, sync_tree

logger = logging.get_logger(__name__)

MANIFEST = "manifest.json"
STAGING = ".saving"  # in the run's folder; a checkpoint lies in it until it is complete
PACKAGES = ("ziya-lyrics", "torch", "transformers", "accelerate")


class CheckpointError(ValueError):
    """A checkpoint cannot be resumed from."""


def write_manifest(folder: Path, step: int, num_ranks: int) -> None:
    """Write `manifest.json`, which vouches for everything else in the folder."""
    files = {
        str(file.relative_to(folder)): {"size": file.stat().st_size, "sha256": sha256_of(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    versions = {name: version(name) for name in PACKAGES}
    manifest = {"step": step, "num_ranks": num_ranks, "versions": versions, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def check_checkpoint(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose every file is as it was written.

    Raises:
        CheckpointError: naming the file that is missing, shorter or longer, or changed.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        files, _ = manifest["files"].items(), (manifest["step"], manifest["num_ranks"])
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is incomplete: it has no {MANIFEST}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    for name, expected in files:
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{folder} is incomplete: {name} is missing.")
        if (size := file.stat().st_size) != expected["size"]:
            raise CheckpointError(f"{file} has {size:,} bytes instead of {expected['size']:,}.")
        if sha256_of(file) != expected["sha256"]:
            raise CheckpointError(f"{file} was changed: its checksum is another than when it was saved.")
    return manifest


def find_checkpoint(run_folder: Path) -> Path | None:
    """The newest complete checkpoint of a run; a warning names each newer one that is skipped, and why."""
    if not run_folder.is_dir():
        return None
    for folder in reversed(sort_checkpoints(str(run_folder))):
        try:
            check_checkpoint(Path(folder))
        except CheckpointError as error:
            logger.warning("Skipped a checkpoint. %s", error)
        else:
            return Path(folder)
    return None


class CompleteCheckpoints(Trainer if TYPE_CHECKING else object):
    """Mixed in before a trainer: its checkpoints are complete, and it resumes from nothing else.

    Processors are saved without the weights of their refiner: these are frozen, and as large as a model.
    """

    _staging: Path | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in Transformers.

        Args:
            resume_from_checkpoint: `True` for the newest complete checkpoint of `args.output_dir`, or a folder.
            args, kwargs: Transformers'.

        Raises:
            CheckpointError: when there is no complete checkpoint, when the given one is not complete, or when it was
                saved by another number of processes.
        """
        found = self._find_resumable(resume_from_checkpoint) if resume_from_checkpoint else None
        return super().train(found, *args, **kwargs)

    def _find_resumable(self, resume: str | bool) -> str:
        """Look for it on one process, and tell the others what was found, or what is wrong."""
        answer: list[Any] = [None]
        if self.is_world_process_zero():
            try:
                answer = [self._check_resumable(resume)]
            except CheckpointError as error:
                answer = [error]
        broadcast_object_list(answer)
        if isinstance(answer[0], CheckpointError):
            raise answer[0]
        return answer[0]

    def _check_resumable(self, resume: str | bool) -> str:
        folder = find_checkpoint(Path(str(self.args.output_dir))) if resume is True else Path(str(resume))
        if folder is None:
            raise CheckpointError(f"{self.args.output_dir} has no complete checkpoint to resume from.")
        manifest = check_checkpoint(folder)
        if manifest["num_ranks"] != self.args.world_size:
            raise CheckpointError(
                f"{folder} was saved by {manifest['num_ranks']} processes and this run has {self.args.world_size}: it "
                "would not go on as it was. Use as many processes, or start anew from the weights alone."
            )
        logger.info("Resuming from %s", folder)
        return str(folder)

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._staging is None else str(self._staging)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Let the trainer write into `.saving`, then vouch for it and give it its name."""
        run_folder = Path(super()._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self._staging = run_folder / STAGING
        pushes, self.args.push_to_hub = self.args.push_to_hub, False
        try:
            self._clear_staging(run_folder)
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # other ranks write their random states
            if self.args.should_save:
                self._complete(self._staging / name, run_folder / name)
            self.accelerator.wait_for_everyone()
        finally:
            self._staging, self.args.push_to_hub = None, pushes
            if self.args.should_save:
                shutil.rmtree(run_folder / STAGING, ignore_errors=True)
        if pushes:
            self._push_from_checkpoint(str(run_folder / name))

    def _clear_staging(self, run_folder: Path) -> None:
        if self.args.should_save:
            run_folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(run_folder / STAGING, ignore_errors=True)
            remove_leftovers(run_folder)
        self.accelerator.wait_for_everyone()

    def _complete(self, written: Path, folder: Path) -> None:
        """Vouch for what was written, force it to the disk, and rename it; then remove the oldest checkpoints."""
        best = self.state.best_global_step
        if best:
            best_folder = folder.with_name(f"{PREFIX_CHECKPOINT_DIR}-{best}")
            is_there = best_folder == folder or best_folder.is_dir()
            self.state.best_model_checkpoint = str(best_folder) if is_there else None
            self.state.save_to_json(str(written / "trainer_state.json"))
        write_manifest(written, self.state.global_step, self.args.world_size)
        sync_tree(written)
        if folder.exists():  # of an earlier run in the same folder
            remove_folder(folder)
        os.replace(written, folder)
        sync_folder(folder.parent)
        self._remove_oldest(folder)

    def _remove_oldest(self, newest: Path) -> None:
        limit = self.args.save_total_limit
        if not limit or limit < 1:
            return
        kept = {str(newest), str(self.state.best_model_checkpoint)}
        others = [folder for folder in sort_checkpoints(str(newest.parent)) if folder not in kept]
        existing = len(others) + sum(os.path.isdir(folder) for folder in kept)
        for folder in others[: max(0, existing - limit)]:
            remove_folder(folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As in Transformers, with the processor's refiner left out."""
        processor, self.processing_class = self.processing_class, None
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.processing_class = processor
        if processor is not None and self.args.should_save:
            processor.save_pretrained(str(output_dir or self.args.output_dir), save_refiner=False)

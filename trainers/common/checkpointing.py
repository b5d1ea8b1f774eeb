"""Atomic checkpoints: written to a staging folder, checksummed, and renamed when everything is on disk.

A checkpoint's `manifest.json` lists every file with its size and SHA-256. A run resumes only from a folder that matches
its manifest.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput, sort_checkpoints
from transformers.utils import logging

from ...utils.atomic_files import (
    naming_disk_errors,
    remove_folder,
    remove_leftovers,
    sync_folder,
    sync_tree,
)
from ...utils.folder_lock import FolderLock, FolderLockedError
from ...utils.model_card import CARD
from ...utils.model_folder import STAGING as MODEL_STAGING
from ...utils.model_folder import place_model, stage_model
from .hub_upload import HubUploadMixin
from .manifest import CheckpointError, check_checkpoint, write_manifest
from .run_facts import write_run_card
from .run_settings import compare_settings, describe_settings, require_a_batch

logger = logging.get_logger(__name__)

STAGING = ".saving"  # subfolder of the run's folder; holds a checkpoint until it is complete


def check_settings(folder: Path, manifest: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise a `CheckpointError` that names every setting in which a checkpoint's run differs from this one."""
    if differences := compare_settings(manifest.get("settings") or {}, settings):
        raise CheckpointError(
            f"{folder} belongs to a run with other settings: {differences}. Resume with the same settings, or start "
            "the new run in another output_dir."
        )


def find_checkpoint(run_folder: Path, settings: dict[str, Any] | None = None) -> Path | None:
    """Return the newest complete checkpoint of a run, or `None`; log a warning for each newer one that is skipped.

    Args:
        run_folder: folder of the checkpoints.
        settings: settings of the run; checkpoints of other runs are skipped.

    Raises:
        CheckpointError: if all complete checkpoints belong to other runs.
    """
    if not run_folder.is_dir():
        return None
    other = None
    for folder in reversed(sort_checkpoints(str(run_folder))):
        try:
            manifest = check_checkpoint(Path(folder))
        except CheckpointError as error:
            logger.warning("Skipped a checkpoint. %s", error)
            continue
        try:
            check_settings(Path(folder), manifest, settings or {})
        except CheckpointError as error:
            logger.warning("Skipped a checkpoint. %s", error)
            other = other or error
        else:
            return Path(folder)
    if other is not None:
        raise other
    return None


class AtomicCheckpointMixin(HubUploadMixin):
    """Trainer mixin whose checkpoints are complete or absent, and which resumes from complete ones only.

    It stands before a trainer of Transformers or TRL. Processors are saved without their refiner, which is frozen and
    as large as a model.

    Attributes:
        num_trained_steps: optimizer steps of the last call of `train`, those of an earlier run not included.
        stage_name: what the run is, for the model card; a trainer without one writes no card.
        training_data, evaluation_data: words that name the data in the model card, as `open_rows` takes them, or
            `None`.
    """

    num_trained_steps: int = 0
    stage_name: str | None = None
    training_data: str | Sequence[str] | None = None
    evaluation_data: str | Sequence[str] | None = None
    _staging: Path | None = None
    _started: float | None = None
    _stopped: float | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train as in Transformers, from the start or from a complete checkpoint.

        Args:
            resume_from_checkpoint: folder of a checkpoint, or `True` for the newest complete one in `args.output_dir`.
            args, kwargs: further arguments of `Trainer.train`.

        Raises:
            CheckpointError: if there is no complete checkpoint, if the given one is incomplete, or if a run with
                another number of processes or other settings saved it.
            FolderLockedError: if another run writes to `args.output_dir`.
        """
        folder = self._find_resumable(resume_from_checkpoint) if resume_from_checkpoint else None
        run_folder = Path(str(self.args.output_dir))
        run_folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(run_folder, "training")
        self._on_main_process(lock.acquire)
        self._started, self._stopped = time.monotonic(), None
        try:
            output = super().train(folder, *args, **kwargs)
        finally:
            self._stopped = time.monotonic()
            lock.release()
        self.num_trained_steps = self.state.global_step - self._initial_global_step
        return output

    @property
    def training_seconds(self) -> float | None:
        """Duration of the training since it started or resumed, `None` before that."""
        if self._started is None:
            return None
        return (time.monotonic() if self._stopped is None else self._stopped) - self._started

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the card is written with the model that it describes, and not before."""

    def _on_main_process(self, action: Callable[[], Any]) -> Any:
        """Run an action on the main process; all processes return its result or raise its error."""
        answer: list[Any] = [None, None]  # result, and error
        if self.is_world_process_zero():
            try:
                answer[0] = action()
            except (CheckpointError, FolderLockedError) as error:
                answer[1] = error
            except Exception as error:  # the others, which would wait for ever, get its text: it may not be sendable
                broadcast_object_list([None, RuntimeError(f"{type(error).__name__}: {error}")])
                raise
        broadcast_object_list(answer)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def _find_resumable(self, resume: str | bool) -> str:
        """Return the folder to resume from, checked on the main process."""
        return self._on_main_process(lambda: self._check_resumable(resume))

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Run an epoch as in Transformers, but no step of a finished run, where Transformers takes one more."""
        if self.state.global_step >= self.state.max_steps:
            logger.warning("The run is finished: %s of %s steps.", self.state.global_step, self.state.max_steps)
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of Transformers.

        Raises:
            ValueError: if the rows fill no batch.
        """
        require_a_batch(self)
        return super().get_train_dataloader()

    def _check_resumable(self, resume: str | bool) -> str:
        settings = describe_settings(self)
        folder = find_checkpoint(Path(str(self.args.output_dir)), settings) if resume is True else Path(str(resume))
        if folder is None:
            raise CheckpointError(f"{self.args.output_dir} has no complete checkpoint to resume from.")
        manifest = check_checkpoint(folder)
        if manifest["num_ranks"] != self.args.world_size:
            raise CheckpointError(
                f"{folder} was saved by {manifest['num_ranks']} processes and this run has {self.args.world_size}: the "
                "resumed run would differ. Use as many processes, or start a new run from the weights alone."
            )
        check_settings(folder, manifest, settings)
        logger.info("Resuming from %s", folder)
        return str(folder)

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._staging is None else str(self._staging)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Let the trainer write into `.saving`, then write the manifest and rename the checkpoint."""
        run_folder = Path(super()._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self._staging = run_folder / STAGING
        pushes, self.args.push_to_hub = self.args.push_to_hub, False
        try:
            if self.args.should_save:
                run_folder.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(self._staging, ignore_errors=True)
                remove_leftovers(run_folder)
            self.accelerator.wait_for_everyone()
            with naming_disk_errors(run_folder / name):
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

    def _complete(self, written: Path, folder: Path) -> None:
        """Write the manifest, sync everything to disk, rename the folder, and remove the oldest checkpoints."""
        if best := self.state.best_global_step:
            best_folder = folder.with_name(f"{PREFIX_CHECKPOINT_DIR}-{best}")
            exists = best_folder == folder or best_folder.is_dir()
            self.state.best_model_checkpoint = str(best_folder) if exists else None
            self.state.save_to_json(str(written / "trainer_state.json"))
        write_manifest(written, self.state.global_step, self.args.world_size, describe_settings(self))
        sync_tree(written)
        if folder.exists():  # from an earlier run in the same folder
            remove_folder(folder)
        os.replace(written, folder)
        sync_folder(folder.parent)
        self._remove_oldest(folder)

    def _remove_oldest(self, newest: Path) -> None:
        """Remove checkpoints beyond `save_total_limit`, each by one rename; Transformers' rotation is not atomic."""
        limit = self.args.save_total_limit
        if not limit or limit < 1:
            return
        kept = {str(newest), str(self.state.best_model_checkpoint)}
        others = [folder for folder in sort_checkpoints(str(newest.parent)) if folder not in kept]
        existing = len(others) + sum(os.path.isdir(folder) for folder in kept)
        for folder in others[: max(0, existing - limit)]:
            remove_folder(folder)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as in Transformers, so that the folder holds a complete model, or is not taken for one.

        Args:
            output_dir: folder, by default `args.output_dir`; it may hold checkpoints and an older model.

        Raises:
            OSError: naming the folder, if the disk is full or fails.
        """
        if self._staging is not None:  # a checkpoint, which `_save_checkpoint` completes
            super().save_model(output_dir, _internal_call)
            return
        folder = Path(output_dir or str(self.args.output_dir))
        with naming_disk_errors(folder):
            if self.args.should_save:
                stage_model(folder)
            self.accelerator.wait_for_everyone()
            super().save_model(str(folder / MODEL_STAGING), _internal_call=True)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                place_model(folder)
            self.accelerator.wait_for_everyone()
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def save_state(self) -> None:
        """Save the trainer's state as in Transformers; raise an `OSError` that names the folder if the disk is full."""
        with naming_disk_errors(str(self.args.output_dir)):
            super().save_state()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save as in Transformers, but the processor without its refiner, and with a model card."""
        processor, self.processing_class = self.processing_class, None
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.processing_class = processor
        folder = Path(output_dir or str(self.args.output_dir))
        if processor is not None and self.args.should_save:
            processor.save_pretrained(str(folder), save_refiner=False)
        if self.stage_name is not None and self.args.should_save:
            is_model = folder.name == MODEL_STAGING  # a checkpoint gets a card of its own
            write_run_card(self, folder, folder.with_name(CARD) if is_model else None)

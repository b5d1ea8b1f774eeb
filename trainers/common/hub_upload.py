"""Upload of a run to the Hub: what a reader of the model needs, and checkpoints that a run resumes from."""

from __future__ import annotations

import json
import shutil
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, HfApi
from transformers import Trainer
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import PushInProgress, logging

from ...conversion.export import WITHOUT_REFINER, copy_file, export_model, name_base
from ...conversion.push import require_on_hub, upload
from ...utils.model_card import BaseModel
from ...utils.published_files import check_nothing_private, rewrite_json, without_machine
from .manifest import MANIFEST, read_manifest, record_files, save_manifest

logger = logging.get_logger(__name__)

LAST_CHECKPOINT = "last-checkpoint"
_PICKLED_ARGUMENTS = "training_args.bin"  # with the token, paths and names of a machine


class HubUploadMixin(Trainer if TYPE_CHECKING else object):
    """Trainer mixin that uploads a model as `lyrics push` does: without pickled arguments, logs and paths.

    `hub_strategy` says when: `"end"` after `save_model` alone, `"every_save"` after each checkpoint too,
    `"checkpoint"` and `"all_checkpoints"` with the checkpoint itself in `last-checkpoint/` or under its name, so that a
    run resumes from its download. A checkpoint is uploaded while the training goes on.
    """

    def base_id(self) -> str | None:
        """Return the Hub id of the model that an adapter belongs to, or `None`."""
        bases: list[BaseModel] = getattr(self, "base_models", list)()
        return bases[0].hub_id if bases else None

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create the repository as in Transformers, unless nobody could load the adapter that will be pushed.

        Raises:
            ValueError: the base model of an adapter is not on the Hub.
        """
        base = self.base_id()
        is_adapter = getattr(self.model, "peft_config", None) is not None
        if is_adapter and base is not None and self.is_world_process_zero():
            require_on_hub(HfApi(token=self.args.hub_token if token is None else token), base)
        super().init_hf_repo(token, private)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Save the model, and upload it with its refiner and card in one commit.

        Args:
            commit_message: title of the commit.
            blocking: whether to wait for the end of the upload.
            token: token of the Hub, by default `args.hub_token`.
            revision: branch, by default `args.hub_revision`.
            private: whether a new repository is private.
            kwargs: ignored; Transformers writes them into its own card.

        Returns:
            The commit, or its future; `None` on other processes than the first.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = self.args.hub_token if token is None else token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        processor: Any = self.processing_class
        refiner = processor.refiner if getattr(processor, "has_refiner", False) else WITHOUT_REFINER
        folder = self._stage(Path(str(self.args.output_dir)), refiner)
        job = self._upload(folder, commit_message or "End of training", revision, token)
        return job.result() if blocking else job

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload a complete checkpoint as a model and, if the strategy says so, as a checkpoint."""
        strategy = self.args.hub_strategy
        if not self.is_world_process_zero() or strategy == HubStrategy.END:
            return
        pending: Any = self.push_in_progress
        if not self.args.hub_always_push and pending is not None and not pending.is_done():
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        checkpoint = Path(checkpoint_folder)
        in_steps = self.args.save_strategy == SaveStrategy.STEPS
        moment = f"step {self.state.global_step}" if in_steps else f"epoch {int(self.state.epoch or 0)}"
        message = f"Training in progress, {moment}"
        # staged at once, since the checkpoint may be removed before its upload ends
        jobs = [self._upload(self._stage(checkpoint, WITHOUT_REFINER), message, None, self.args.hub_token)]
        if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            name = LAST_CHECKPOINT if strategy == HubStrategy.CHECKPOINT else checkpoint.name
            staged = stage_checkpoint(checkpoint, self.base_id())
            jobs.append(self._upload(staged, f"{message}, checkpoint", None, self.args.hub_token, name))
        if pending is None or pending.is_done():
            self._report_failures()
            self.push_in_progress = PushInProgress(jobs)  # pyright: ignore[reportArgumentType]
        else:
            pending.jobs.extend(jobs)

    def _finish_current_push(self) -> None:
        """Wait for uploads, and log those that failed: the training goes on without them."""
        super()._finish_current_push()
        self._report_failures()

    def _report_failures(self) -> None:
        for job in getattr(getattr(self, "push_in_progress", None), "jobs", ()):
            if job.done() and (error := job.exception()) is not None:
                logger.warning("An upload to %s failed: %s", self.hub_model_id, error)

    def _stage(self, source: Path, refiner: Any) -> Path:
        """Export a saved model to a temporary folder beside it."""
        folder = Path(tempfile.mkdtemp(prefix=".publishing-", dir=source.parent))
        is_adapter = (source / "adapter_config.json").is_file()
        base = self.base_id() if is_adapter else None
        try:
            export_model(source, folder, repo_id=self.hub_model_id, base_model=base, refiner=refiner, link=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def _upload(
        self, folder: Path, message: str, revision: str | None, token: str | None, path_in_repo: str | None = None
    ) -> Future[CommitInfo]:
        """Upload a staged folder after the uploads before it, and remove it."""
        api = HfApi(token=token)
        revision = self.args.hub_revision if revision is None else revision

        def send() -> CommitInfo:
            try:
                if path_in_repo is None:
                    return upload(api, folder, str(self.hub_model_id), revision, False, message)
                return api.upload_folder(
                    repo_id=str(self.hub_model_id),
                    folder_path=folder,
                    path_in_repo=path_in_repo,
                    revision=revision,
                    commit_message=message,
                    delete_patterns="*",
                )
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        return _QUEUE.run_as_future(send)


_QUEUE = HfApi()  # its one thread keeps the order of uploads


def stage_checkpoint(checkpoint: Path, base_id: str | None) -> Path:
    """Copy a checkpoint to a temporary folder beside it, without what names this machine; a run resumes from the copy.

    Args:
        checkpoint: complete checkpoint.
        base_id: Hub id of an adapter's base model.
    """
    folder = Path(tempfile.mkdtemp(prefix=".publishing-", dir=checkpoint.parent))
    try:
        for path in sorted(checkpoint.rglob("*")):
            if path.is_file() and path.name != _PICKLED_ARGUMENTS:
                target = folder / path.relative_to(checkpoint)
                target.parent.mkdir(parents=True, exist_ok=True)
                copy_file(path, target, link=True)
        changed = ["trainer_state.json"]
        best = json.loads((folder / changed[0]).read_text(encoding="utf-8")).get("best_model_checkpoint")
        rewrite_json(folder / changed[0], best_model_checkpoint=best and Path(best).name)
        if base_id is not None and (folder / "adapter_config.json").is_file():
            changed += name_base(folder, base_id)
        manifest = read_manifest(checkpoint)
        files = {name: entry for name, entry in manifest["files"].items() if name != _PICKLED_ARGUMENTS}
        files |= record_files(folder, changed)
        save_manifest(folder, manifest | {"files": files, "settings": without_machine(manifest["settings"])})
        check_nothing_private(folder, [checkpoint.parent.absolute()])
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


__all__ = ["LAST_CHECKPOINT", "MANIFEST", "HubUploadMixin", "stage_checkpoint"]

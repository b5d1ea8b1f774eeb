"""Time limit of a training, and what a step of it costs."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TimeLimit(TrainerCallback):
    """Stop a training at its next step, with a checkpoint, when the time is over.

    Args:
        minutes: time from now on.

    Attributes:
        last_step: number of the last step of the last training, or `None` if there was none.
        seconds_per_step: mean processor time of its steps in this process, or `None`.
    """

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes
        self._steps, self._start = 0, 0.0
        self.forget()

    def forget(self) -> None:
        """Forget the last training."""
        self.last_step: int | None = None
        self.seconds_per_step: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._end

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start to count."""
        self._steps, self._start = 0, time.process_time()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> Any:
        """Count a step, and stop the training if the time is over."""
        self._steps += 1
        self.last_step = state.global_step
        self.seconds_per_step = round((time.process_time() - self._start) / self._steps, 3)
        if self.is_over and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True
        return control

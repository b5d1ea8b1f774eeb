"""Tasks of evaluation: one table of what is asked, how answers are read and scored, and what a server takes."""

from .scoring import METRICS, Metric
from .table import TASKS, Task
from .task_data import TaskData, read_task
from .units import Unit, parse_units

__all__ = ["METRICS", "TASKS", "Metric", "Task", "TaskData", "Unit", "parse_units", "read_task"]

"""The room of tasks: what is learned, one file per task; the folder is the registry."""

from metarule.collect import collect
from metarule.tasks.base import Task

__all__ = ["TASKS", "Task"]

TASKS = collect(__name__, Task)

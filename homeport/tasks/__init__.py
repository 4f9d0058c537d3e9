"""Tasks: work that apps hand over, done by an agent of this server, by a program elsewhere, or once a person says so."""

from homeport.tasks.rows import Task, TaskRun
from homeport.tasks.tasks import Order, Tasks
from homeport.tasks.webhook import Message, Receipt

__all__ = ["Message", "Order", "Receipt", "Task", "TaskRun", "Tasks"]

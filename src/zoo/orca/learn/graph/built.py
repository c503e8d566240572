"""A recipe carried out: a program, how its loss adds up, and where its schedule is."""

from __future__ import annotations

import copy
from typing import Any

from zoo.orca.learn.graph.program import Program
from zoo.orca.learn.graph.recipe import Recipe
from zoo.orca.learn.optimizers.schedule import Scheduler

__all__ = ["Built"]


class Built:
    """What is trained; see `zoo.orca.learn.framework.Built`.

    Args:
        recipe: Of the graph.
        threads: Of the session; 0 leaves it to TensorFlow.

    Attributes:
        recipe: That.
        program: The graph in a session.
        model: The same, as callbacks see it: `run.model.values()` are the variables by name.
        optimizer: The same; the optimizer is part of the graph.
        schedule: Of an optimizer of `zoo.orca.learn.optimizers`; None where the rate is constant,
            or comes from the graph.
        iteration: Updates done.
        adds_up: How the loss of some rows follows from the losses of its parts: `rows` is one
            number for each row, `mean` their mean, `sum` their sum, `mixed` neither; None where it
            was not tried.
    """

    def __init__(self, recipe: Recipe, threads: int = 0) -> None:
        self.recipe, self.program = recipe, Program(recipe, threads)
        self.model = self.optimizer = self.program
        spec = None if recipe.step is None else recipe.step.optimizer
        schedule = None if spec is None else spec.rate_schedule()
        # A copy: one schedule can serve many trainings.
        self.schedule: Scheduler | None = copy.deepcopy(schedule)
        self.iteration = 0
        self.adds_up: str | None = "rows" if recipe.of_rows else None

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        step = self.recipe.step
        if step is None:
            return float("nan")
        if isinstance(step.rate, str):
            feeds = self.program.fixed(["optimizer"], training=True)
            (found,) = self.program.run([step.rate], feeds)
            return float(found)
        if self.schedule is None:
            return step.rate
        return float(self.schedule.rate(self.iteration, step.rate))

    def give(self, recipe: Recipe) -> None:
        """Have other values for what is fed besides features and targets."""
        self.recipe = self.program.recipe = recipe

    def describe(self) -> dict[str, Any]:
        """What a state has besides variables, as plain values."""
        schedule = {} if self.schedule is None else self.schedule.state()
        return {"adds_up": self.adds_up, "schedule": schedule}

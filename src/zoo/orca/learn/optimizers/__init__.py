"""Optimizers by name, for any framework.

A record says which optimizer and with which settings; the framework that trains makes its own
from it::

    Estimator.from_torch(..., optimizer=SGD(0.1, learningrate_schedule=Step(100, 0.5)))

Schedules of the learning rate are in `zoo.orca.learn.optimizers.schedule`.
"""

from zoo.orca.learn.optimizers.optimizer import (
    LBFGS,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    Ftrl,
    Optimizer,
    ParallelAdam,
    RMSprop,
    is_orca_optimizer,
)

__all__ = [
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "Adamax",
    "Ftrl",
    "Optimizer",
    "ParallelAdam",
    "RMSprop",
    "is_orca_optimizer",
]

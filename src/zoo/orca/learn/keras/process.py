"""Which Keras a process works with: its backend, its version, its global settings.

A backend is chosen once for a process, when Keras is imported. So this module imports no Keras,
and whoever wants the framework goes through here first.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from zoo.cluster.ranks.carried import pickled, unpickled
from zoo.errors import InputError, load_extra
from zoo.orca.learn.framework import Framework

__all__ = [
    "KerasSetup",
    "Sent",
    "framework_name",
    "on_jax",
    "on_tensorflow",
    "on_torch",
    "use_backend",
]


def framework_name() -> str:
    """The name of the framework in the table: that of the backend which this process has."""
    return f"keras-{load_extra('keras', 'keras').backend.backend()}"


def on_tensorflow() -> Framework:
    """Keras on TensorFlow."""
    return _framework("tensorflow")


def on_torch() -> Framework:
    """Keras on PyTorch."""
    return _framework("torch")


def on_jax() -> Framework:
    """Keras on JAX."""
    return _framework("jax")


def _framework(backend: str) -> Framework:
    use_backend(backend)
    from zoo.orca.learn.keras.framework import Keras

    return Keras()


def use_backend(backend: str) -> ModuleType:
    """Import Keras on a backend.

    Args:
        backend: `tensorflow`, `torch` or `jax`.

    Raises:
        InputError: This process has imported Keras on another one.
        MissingExtraError: Keras is not installed.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend
    keras = load_extra("keras", "keras")
    have = keras.backend.backend()
    if have != backend:
        raise InputError(
            f"Keras on {backend!r} in every process of the program, as on its driver",
            f"a process that has imported Keras on {have!r}",
            f"Set the environment variable KERAS_BACKEND to {backend!r} on driver and executors, "
            "before anything imports Keras.",
        )
    return keras


@dataclass(frozen=True)
class KerasSetup:
    """What Keras has been told for a whole process.

    Attributes:
        version: Of Keras.
        floatx: The floating-point type of new variables.
        epsilon: The small number of its divisions.
        image_data_format: Where images have their channels.
        dtype_policy: Of new layers.
    """

    version: str
    floatx: str
    epsilon: float
    image_data_format: str
    dtype_policy: str

    @classmethod
    def here(cls) -> KerasSetup:
        """That of this process."""
        keras = load_extra("keras", "keras")
        config = keras.config
        policy = config.dtype_policy().name
        return cls(
            keras.__version__,
            config.floatx(),
            config.epsilon(),
            config.image_data_format(),
            policy,
        )

    def take(self) -> None:
        """Tell this process the same, which works for a driver.

        Raises:
            InputError: It has another version of Keras.
        """
        keras: Any = load_extra("keras", "keras")
        if keras.__version__ != self.version:
            raise InputError(
                f"Keras {self.version} wherever the program runs, as on its driver",
                f"Keras {keras.__version__} in a process of an executor",
                "Install the same version there.",
            )
        if self != KerasSetup.here():
            keras.config.set_floatx(self.floatx)
            keras.config.set_epsilon(self.epsilon)
            keras.config.set_image_data_format(self.image_data_format)
            keras.config.set_dtype_policy(self.dtype_policy)


class Sent:
    """Something of Keras that is pickled with its backend; unpickled, it is what it was.

    An order names the framework that chooses the backend, but callbacks and metrics lie beside it,
    and their modules import Keras.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        backend = load_extra("keras", "keras").backend.backend()
        blob = pickled((type(self), vars(self)), getattr(self, "name", type(self).__name__))
        return _arrived, (backend, blob)


def _arrived(backend: str, blob: bytes) -> Any:
    use_backend(backend)
    kind, state = unpickled(blob)
    made = kind.__new__(kind)
    vars(made).update(state)
    return made

from types import SimpleNamespace
from typing import Any

import pytest
from py4j.protocol import Py4JError, Py4JNetworkError

from zoo.cluster.session.ended import while_spark_runs, why_ended
from zoo.errors import ClusterError, InputError


def context(answer: bool | Exception) -> Any:
    """A context whose JVM says whether it has stopped, or does not answer."""

    def is_stopped() -> bool:
        if isinstance(answer, Exception):
            raise answer
        return answer

    inside = SimpleNamespace(isStopped=is_stopped)
    return SimpleNamespace(_jsc=SimpleNamespace(sc=lambda: inside))


STOPPED = SimpleNamespace(_jsc=None)


def test_spark_that_runs_has_not_ended() -> None:
    assert why_ended(context(False)) is None


@pytest.mark.parametrize("error", [ConnectionRefusedError(), Py4JNetworkError("empty answer")])
def test_jvm_that_does_not_answer_has_ended(error: Exception) -> None:
    with (
        pytest.raises(ClusterError, match="received the end of its JVM") as caught,
        while_spark_runs(context(error)),
    ):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("stopped", [context(True), STOPPED])
def test_stop_by_another_thread_is_told(stopped: Any) -> None:
    with (
        pytest.raises(ClusterError, match=r"SparkContext that was stopped.*init_orca_context"),
        while_spark_runs(stopped),
    ):
        raise AttributeError("'NoneType' object has no attribute 'sc'")


def test_error_while_spark_runs_stays() -> None:
    with pytest.raises(Py4JError, match="of the job"), while_spark_runs(context(False)):
        raise Py4JError("of the job")


def test_error_of_ours_stays() -> None:
    with pytest.raises(InputError, match="a column"), while_spark_runs(STOPPED):
        raise InputError("a column", "none", "Name it.")

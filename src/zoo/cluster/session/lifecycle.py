"""Start and stop Spark, and ask the running one what it is.

One Spark runs in a process at a time. All the faces that start one (`init_orca_context`,
`init_spark_on_local`, ...) come through the `start_*` functions here.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import logging
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zoo.cluster.guard import close_session, session_dir
from zoo.cluster.session import properties as props
from zoo.cluster.session.driver import (
    DriverJvm,
    configured_master,
    has_own_log_settings,
    variables,
)
from zoo.cluster.session.ended import while_spark_runs, why_ended
from zoo.cluster.session.options import DEFAULT_LOG_LEVEL, StartOptions
from zoo.cluster.session.standalone import OwnCluster, Room
from zoo.cluster.session.surroundings import require_room, require_user_name
from zoo.cluster.session.topology import (
    LOOPBACK,
    address_toward,
    await_executors,
    bind_address,
    is_local,
    is_local_master,
    nodes_and_cores,
    setting,
)
from zoo.cluster.session.worker_daemon import (
    daemon_properties,
    end_template,
    start_template,
    start_workers,
)
from zoo.cluster.settings import settings
from zoo.errors import ClusterError, InputError, NotYetError

if TYPE_CHECKING:
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

__all__ = [
    "StartOptions",
    "active_context",
    "active_session",
    "attach",
    "bind_address",
    "is_local",
    "nodes_and_cores",
    "not_yet",
    "owns_cluster",
    "session_dir",
    "start_local",
    "start_standalone",
    "stop",
]

_log = logging.getLogger(__name__)


_HOST = "spark.driver.host"


class _Session:
    """The Spark of this process: what we started, and so have to stop."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.pid = os.getpid()
        self.driver: DriverJvm | None = None
        # How the driver JVM was launched: properties, variables, log settings, forwarding.
        self.launched: tuple[dict[str, str], dict[str, str], str | None, bool, bool] | None = None
        self.cluster: OwnCluster | None = None


_session = _Session()


def start_local(
    cores: int | str = 2, memory: str | None = None, options: StartOptions | None = None
) -> SparkContext:
    """Start Spark inside one JVM on this machine, or take the one that runs.

    Args:
        cores: Tasks that run at the same time; `"*"` for as many as there are cores.
        memory: What the JVM may use; `SPARK_DRIVER_MEMORY` or Spark's default when None.
        options: What every mode takes.
    """
    asked = props.local_properties(cores, memory)
    return _start(asked, options or StartOptions(), cores=cores, ours=True)


def start_standalone(
    executors: int,
    cores: int,
    memory: str = "2g",
    *,
    master: str | None = None,
    driver_memory: str | None = None,
    options: StartOptions | None = None,
) -> SparkContext:
    """Join a standalone cluster, or start one of this process, and wait for its executors.

    Args:
        executors: How many.
        cores: Task slots of each.
        memory: What the JVM of each may use.
        master: `spark://host:port` to join. None: a master and a worker are started on this
            machine, reachable from nowhere else, and ended by `stop`.
        driver_memory: What the driver JVM may use.
        options: What every mode takes.
    """
    options = options or StartOptions()
    memory = props.memory_text(memory, "memory")
    asked = props.standalone_properties(executors, cores, memory)
    if driver_memory:
        asked["spark.driver.memory"] = props.memory_text(driver_memory, "driver_memory")
    if master is not None:
        asked |= {"spark.master": master, **props.driver_at(address_toward(master))}
        return _start(asked, options, cores=cores, ours=False, executors=executors)
    asked |= props.driver_at(LOOPBACK)
    room = Room(executors, cores, options.properties.get("spark.local.dir"))
    return _start(asked, options, cores=cores, ours=True, executors=executors, room=room)


def attach(options: StartOptions | None = None, *, app_name: str | None = None) -> SparkContext:
    """Take the Spark that runs, or that `spark-submit` prepared, or that `conf` describes.

    Args:
        options: What every mode takes.
        app_name: The name of the application when it is made here.
    """
    options = options or StartOptions()
    asked = {} if app_name is None else {"spark.app.name": app_name}
    with _session.lock:  # a start of another thread sets what tells that we were submitted
        submitted = _submitted()
    if submitted:
        return _start(asked, options, cores=1, ours=False, quiet=True)
    master = options.properties.get("spark.master") or configured_master() or "local[*]"
    asked["spark.master"] = master
    local = is_local_master(master)
    if local:
        asked |= props.driver_at(LOOPBACK)
    elif master.startswith("spark://"):
        asked |= props.driver_at(address_toward(master))
    return _start(asked, options, cores="*", ours=local, quiet=True)


def stop() -> None:
    """Stop Spark, and the cluster that was started for it. Without a running Spark: nothing."""
    if _session.pid != os.getpid():
        return  # a forked child must not stop the Spark of its parent
    with _session.lock:
        context = _known_context()
        try:
            if context is not None:
                _stop_context(context)
        finally:
            _stop_cluster()
            end_template()


def _stop_cluster() -> None:
    cluster, _session.cluster = _session.cluster, None
    if cluster is not None:
        cluster.stop()


def owns_cluster() -> bool:
    """Whether a standalone cluster of this process runs."""
    return _session.cluster is not None


def not_yet(mode: str) -> NotYetError:
    """The error for a cluster mode that is known and cannot be started from here yet."""
    return NotYetError(
        "a cluster mode that this version can start",
        repr(mode),
        "Today these work: local, standalone and spark-submit. Submit the program to that cluster "
        'with spark-submit, and use cluster_mode="spark-submit" in it.',
    )


def active_context() -> SparkContext | None:
    """The Spark that runs in this process, whoever started it; None when there is none."""
    context = _known_context()
    if context is None or (_session.driver is not None and not _session.driver.alive):
        return None
    return context if why_ended(context) is None else None


def active_session() -> SparkSession:
    """The session of the Spark that runs.

    Raises:
        ClusterError: None runs.
    """
    context = active_context()
    if context is None:
        raise ClusterError(
            "Spark to run", "No active SparkContext", "Call init_orca_context() first."
        )
    from pyspark.sql import SparkSession

    with while_spark_runs(context):
        return SparkSession.builder.getOrCreate()


def _start(
    asked: Mapping[str, str],
    options: StartOptions,
    *,
    cores: int | str,
    ours: bool,
    executors: int = 0,
    room: Room | None = None,
    quiet: bool = False,
) -> SparkContext:
    """Take the context that runs, or make one.

    Args:
        asked: What the mode and its arguments ask for.
        options: What the user gave besides.
        cores: Task slots of an executor.
        ours: All processes are children of this one, on this machine.
        executors: How many to wait for.
        room: The cluster to start first; None for no cluster of our own.
        quiet: To take a context that runs is what the caller expects.
    """
    with _session.lock:
        if active_context() is not None:
            return _reuse(options, quiet=quiet)
        _forget_stopped()
        _require_classic()
        if not _submitted():
            require_user_name()
        python = _python_variables(options, here=ours)
        defaults = {**props.common_properties(), **props.worker_environment(cores)}
        master = asked.get("spark.master", "")
        if ours:
            defaults |= props.machine_properties(session_dir())
        elif not _submitted():
            defaults |= props.quick_properties(master)
        here = ours or master.startswith("local-cluster[")
        try:
            with variables(python):
                # A cluster and the driver JVM take seconds each to come up; they do so together.
                with concurrent.futures.ThreadPoolExecutor(1) as pool:
                    cluster = pool.submit(_start_cluster, room) if room else None
                    if not _submitted():
                        known = {**asked, **options.properties}
                        if here:
                            inherited = _inherited(room)
                            start_template(python["PYSPARK_PYTHON"], known, defaults, inherited)
                        _ensure_driver({**defaults, **known}, options)
                    own = cluster.result() if cluster else {}
                asked = {**asked, **own, **options.properties}
                worker = python["PYSPARK_PYTHON"] if here else None
                context = _make_context(defaults, asked, options, worker)
            with while_spark_runs(context):
                await_executors(context, executors)
                start_workers(context)
            return context
        except BaseException:
            stop()
            raise


def _inherited(room: Room | None) -> Mapping[str, str]:
    """The environment that Python workers inherit: that of a JVM which is kept, or of today."""
    driver = _session.driver
    return os.environ if room or driver is None or not driver.alive else driver.environment


def _start_cluster(room: Room) -> dict[str, str]:
    cluster = OwnCluster(room)
    _session.cluster = cluster
    return {"spark.master": cluster.url, **props.own_cluster_properties(cluster.secret)}


def _make_context(
    defaults: Mapping[str, str],
    asked: Mapping[str, str],
    options: StartOptions,
    worker: str | None,
) -> SparkContext:
    """Make the context.

    Args:
        defaults: What holds unless the user says otherwise, anywhere.
        asked: What holds whatever Spark's own settings say.
        options: What the user gave besides.
        worker: The program of Python workers where they run on this machine, else None.
    """
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized(gateway=_session.driver and _session.driver.gateway)
    # This holds already what spark-submit and spark-defaults.conf say.
    conf = SparkConf()
    conf.setAll(list(asked.items()))
    # The daemon first: it is for users who said nothing of where workers import from, and the
    # defaults do.
    daemon = daemon_properties(worker, dict(conf.getAll())) if worker else {}
    for key, value in {**daemon, **defaults}.items():
        conf.setIfMissing(key, value)
    _require_room(conf)
    context = SparkContext(conf=conf)
    asked_for = options.spark_log_level != DEFAULT_LOG_LEVEL
    if (asked_for or not has_own_log_settings()) and not _logs_our_way():
        context.setLogLevel(options.spark_log_level)
    for library in options.libraries:
        context.addPyFile(library)
    _say_what_needs_our_jvm(options)
    # `rdd.toDF` needs a session to exist.
    active_session()
    return context


def _require_room(conf: SparkConf) -> None:
    """Refuse local folders that Spark could not use."""
    # As Spark does, the first that is set.
    if places := os.environ.get("SPARK_LOCAL_DIRS"):
        require_room(places.split(","), "SPARK_LOCAL_DIRS")
    elif places := conf.get("spark.local.dir", None):
        require_room(places.split(","), "spark.local.dir")
    elif _session.driver is not None:
        require_room([str(session_dir())], "TMPDIR")


def _say_what_needs_our_jvm(options: StartOptions) -> None:
    """Name the switches that only a driver JVM of ours knows."""
    idle = []
    if options.logs_to_file and not _logs_our_way():
        idle.append("redirect_spark_log")
    if settings.log_output and _session.driver is None:
        idle.append("log_output")
    if idle:
        _log.warning(
            "Without effect, since the driver JVM was not started here or has log settings of its "
            "own: %s.",
            ", ".join(idle),
        )


def _submitted() -> bool:
    """Whether `spark-submit` started this process, and so has the driver JVM."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _ensure_driver(properties: Mapping[str, str], options: StartOptions) -> None:
    """See that a driver JVM runs that was started the way this start needs it."""
    launch = props.launch_properties(properties)
    logs = None if has_own_log_settings() else options.log_settings()
    # The Spark UI listens where this says, and everything else of the driver where its host is
    # said to be. Without such a word that is here as well.
    told = properties.get("spark.master", "").startswith("local") or _HOST in properties
    extra = {"SPARK_LOCAL_IP": LOOPBACK} if told else {}
    # A JVM keeps the secret that a local Spark made in it, and would offer it to a cluster.
    local = is_local_master(properties.get("spark.master", ""))
    wanted = (launch, extra, logs, settings.log_output, local)
    driver = _session.driver
    if driver is not None and driver.alive and wanted == _session.launched:
        return
    if driver is not None and driver.alive:
        _log.info("The driver JVM is replaced: it was started with other settings.")
    _end_driver()
    if "pyspark" in sys.modules:
        from pyspark import SparkContext

        if SparkContext._gateway is not None:
            _log.warning("A JVM runs already; it keeps the memory and Java options it has.")
            return
    if logs is not None:
        file = session_dir() / "log4j2.properties"
        file.write_text(logs)
        # In front, so that options of the user win.
        place = f"{shlex.quote(f'-Dlog4j2.configurationFile={file.as_uri()}')} "
        options_of_jvm = place + launch.get(props.DRIVER_OPTIONS, "")
        launch = {**launch, props.DRIVER_OPTIONS: options_of_jvm}
    _session.driver = DriverJvm(
        launch,
        extra,
        forward=settings.log_output,
        on_death=_driver_died,
    )
    _session.launched = wanted


def _logs_our_way() -> bool:
    return _session.driver is not None and not has_own_log_settings()


def _driver_died(cause: str) -> None:
    with _session.lock:
        if _session.driver is None or _session.driver.alive:
            return
        _log.error("The Spark driver JVM was ended (%s). Call init_orca_context() again.", cause)
        _stop_cluster()
        close_session()


def _reuse(options: StartOptions, *, quiet: bool) -> SparkContext:
    session = active_session()
    context = session.sparkContext
    with while_spark_runs(context):
        known = {name: setting(context, name) for name in options.properties}
        idle = [name for name, value in options.properties.items() if known[name] != value]
        if options.spark_log_level != DEFAULT_LOG_LEVEL:
            context.setLogLevel(options.spark_log_level)
    idle += [name for name in ("extra_python_lib", "python_location") if getattr(options, name)]
    _log.log(
        logging.INFO if quiet and not idle else logging.WARNING,
        "Reusing the Spark that runs (%s)%s. To start with other settings, stop it first: "
        "stop_orca_context().",
        context.master,
        f"; without effect: {', '.join(idle)}" if idle else "",
    )
    return context


def _known_context() -> SparkContext | None:
    if "pyspark" not in sys.modules:
        return None
    from pyspark import SparkContext

    return SparkContext._active_spark_context


def _stop_context(context: SparkContext) -> None:
    from pyspark.sql import SparkSession

    # The session stops the context as well, unless it fails before.
    for part in (SparkSession._instantiatedSession, context):
        if part is not None and active_context() is not None:
            try:
                part.stop()
            except Exception:  # noqa: BLE001 - it is told, and the other part is stopped as well
                _log.warning("Spark did not stop as it should.", exc_info=True)
    if active_context() is not None:
        _end_driver()
    _forget_stopped()


def _forget_stopped() -> None:
    """Clear what pyspark remembers of a context that does not run any more."""
    context = _known_context()
    if context is not None and active_context() is None:
        from pyspark.sql import SparkSession

        SparkSession._instantiatedSession = None
        context._jsc = None
        with contextlib.suppress(Exception):
            context.stop()
    # Its Spark was stopped by another way than ours.
    _stop_cluster()
    if _session.driver is not None and not _session.driver.alive:
        _end_driver()


def _end_driver() -> None:
    driver, _session.driver = _session.driver, None
    if driver is None:
        return
    driver.stop()
    from pyspark import SparkContext

    SparkContext._gateway = None
    SparkContext._jvm = None


def _require_classic() -> None:
    for name in ("SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED", "SPARK_API_MODE"):
        if os.environ.get(name, "classic").lower() != "classic":
            raise ClusterError(
                "a classic Spark session, which has RDDs",
                f"Spark Connect (the environment variable {name} is set)",
                "Unset it and start a new Python process.",
            )


def _python_variables(options: StartOptions, *, here: bool) -> dict[str, str]:
    """What tells Spark the Python of its workers; it would take `python3` from the PATH.

    Args:
        options: What the user gave.
        here: The workers run on this machine.
    """
    chosen = (
        options.python_location
        or options.properties.get("spark.pyspark.python")
        or os.environ.get("PYSPARK_PYTHON")
        or sys.executable
    )
    if here and shutil.which(chosen) is None:
        raise InputError(
            "python_location (or spark.pyspark.python, PYSPARK_PYTHON) to be a Python program",
            repr(chosen),
            "Leave it out to use the Python that runs this program.",
        )
    driver = os.environ.get("PYSPARK_DRIVER_PYTHON", sys.executable)
    return {"PYSPARK_PYTHON": chosen, "PYSPARK_DRIVER_PYTHON": driver}


@atexit.register
def _at_exit() -> None:
    if _session.pid != os.getpid():
        return
    try:
        stop()
    finally:
        with _session.lock:
            _end_driver()

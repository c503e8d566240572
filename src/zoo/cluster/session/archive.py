"""An archive of the classes that Spark loads: with it a JVM starts in half the time.

`python -m zoo.cluster.session.archive` makes it, in about a minute, and puts it into the Python
environment. From then on the JVMs of every session begin with it, on their own. Java calls this
class data sharing; it passes over an archive that does not fit.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from zoo.cluster.session.java import find_java
from zoo.errors import ClusterError

__all__ = ["archive_file", "archive_options", "make_archive"]

_log = logging.getLogger(__name__)

_LONGEST_S = 600.0
# It is the start that counts here, not the speed in the long run.
_QUICK = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
# What most programs do: frames, files, tasks in Python. Master, worker and driver are one process
# here, and the executor another.
_PROGRAM = """
import sys
from zoo.orca import OrcaContext, init_orca_context, stop_orca_context

folder, quick = sys.argv[1:]
listed = f"{quick} -XX:DumpLoadedClassList={folder}"
conf = {
    "spark.master": "local-cluster[1,2,1024]",
    "spark.ui.enabled": "false",
    "spark.python.daemon.module": "pyspark.daemon",
    "spark.driver.defaultJavaOptions": f"{listed}/driver.lst",
    "spark.executor.defaultJavaOptions": f"{listed}/executor.lst",
}
sc = init_orca_context("spark-submit", conf=conf)
spark = OrcaContext.get_spark_session()
rows = spark.range(0, 1000, 1, 2).selectExpr("id", "id % 7 k", "float(id) x", "array(id) v")
rows.write.parquet(f"{folder}/rows")
read = spark.read.parquet(f"{folder}/rows")
read.groupBy("k").agg({"x": "sum"}).orderBy("k").toPandas()
read.mapInArrow(lambda batches: batches, read.schema).count()
spark.createDataFrame(rows.limit(5).toPandas()).collect()
sc.parallelize(range(4), 2).map(str).collect()
print(sc._jvm.java.lang.System.getProperty("java.class.path"))
stop_orca_context()
"""


def archive_file() -> Path:
    """Where the archive for this Java and this PySpark is, or would be."""
    import pyspark

    java = find_java().resolve()
    release = java / "release"
    facts = [str(java), release.read_text() if release.exists() else ""]
    home = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent).resolve()
    for entry in sorted(os.scandir(home / "jars"), key=lambda entry: entry.name):
        told = entry.stat()
        facts += [entry.path, str(told.st_size), str(told.st_mtime_ns)]
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    return Path(sys.prefix) / "share" / "zoo" / f"spark-{key}.jsa"


def archive_options() -> str:
    """What a JVM of Spark is started with to use the archive; nothing where there is none."""
    try:
        file = archive_file()
        told, around = file.stat(), file.parent.stat()
    except OSError:
        return ""
    # It is as good as a program: only what nobody but this user and the system could have written.
    if not {told.st_uid, around.st_uid} <= {os.geteuid(), 0} or (
        (told.st_mode | around.st_mode) & 0o022
    ):
        _log.warning("%s is not used: others than its owner could have written it.", file)
        return ""
    return shlex.join([f"-XX:SharedArchiveFile={file}", "-Xlog:cds*=off"])


def make_archive() -> Path:
    """Make the archive of this Java and this PySpark, anew if there is one.

    Raises:
        ClusterError: Java made none.
    """
    file = archive_file()
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as name:
        folder = Path(name)
        classpath = _run([sys.executable, "-c", _PROGRAM, name, shlex.join(_QUICK)])
        lists = [(folder / f"{kind}.lst").read_text() for kind in ("driver", "executor")]
        lines = dict.fromkeys(line for text in lists for line in text.splitlines())
        (folder / "classes.lst").write_text("\n".join(lines) + "\n")
        made = folder / file.name
        _run(
            [
                str(find_java() / "bin" / "java"),
                *_QUICK,
                *("-Xshare:dump", f"-XX:SharedClassListFile={folder / 'classes.lst'}"),
                *(f"-XX:SharedArchiveFile={made}", "-cp", classpath.splitlines()[-1]),
            ],
            made,
        )
        # In one step: a session that starts meanwhile finds all of it or none.
        made.replace(file)
    for old in {*file.parent.glob("spark-*.jsa")} - {file}:
        old.unlink(missing_ok=True)
    return file


def _run(command: list[str], wanted: Path | None = None) -> str:
    """Run a program to its end; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    if done.returncode or (wanted and not wanted.exists()):
        raise ClusterError(
            "an archive of Spark's classes",
            f"the end of {Path(command[0]).name} with code {done.returncode}",
            "Sessions start without one, a few seconds later. Its last words:\n"
            + "\n".join((done.stdout + done.stderr).splitlines()[-15:]),
        )
    return done.stdout


if __name__ == "__main__":
    sys.stdout.write(f"Archive of Spark's classes: {make_archive()}\n")

"""Start and stop Spark, and the flags of the whole process."""

from zoo.orca.context import OrcaContext, init_orca_context, stop_orca_context

__all__ = ["OrcaContext", "init_orca_context", "stop_orca_context"]

"""Files to shards of pandas DataFrames, with the keywords of pandas.

Who reads is `OrcaContext.pandas_read_backend`. "spark", the default, reads files of any size in
parts, gives a column one type in all of them, and takes the usual keywords of pandas. "pandas"
takes all its keywords, reads each file whole, and reaches every file system that fsspec knows.
"""

from zoo.orca.data.pandas.readers import read_csv, read_json, read_parquet

__all__ = ["read_csv", "read_json", "read_parquet"]

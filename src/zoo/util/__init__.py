"""The import path of `zoo.util.triggers`."""

"""The import path of `zoo.common.nncontext`."""

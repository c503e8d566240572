"""The side of the driver: from data and a model to the end of a fit."""

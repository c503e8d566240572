"""Training that users change: the machine behind `TrainingOperator`."""

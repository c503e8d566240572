"""A linear model in numpy: the smallest framework, with which the machine around is tested."""

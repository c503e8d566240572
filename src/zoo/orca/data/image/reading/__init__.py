"""How datasets are read: in order, shuffled, by number, by one of many readers."""

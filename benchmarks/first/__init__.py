"""Programs that time their way to a first result, one for each contender."""

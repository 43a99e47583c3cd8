"""Read the arguments, bases and annotations of a `_target_` from its source, without importing it."""

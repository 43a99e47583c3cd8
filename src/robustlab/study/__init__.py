"""Studies: a named list of `train` commands, run one at a time, each result one line of a committed file."""

"""Errors that a user can fix, each with the exit code of the `train` command.

0 done; 1 a bug (traceback); 2 the command cannot work as given; 3 the data is damaged; 4 the environment failed
(disk, lock, memory); 5 the numbers went wrong (NaN); 85 stopped by a signal, resumable with the same command.
"""

EXIT_PREEMPTED = 85


class UserError(Exception):
    """An error that the user can fix. The message says what is wrong, where, and what to do; no traceback is shown."""

    exit_code = 2


class ConfigError(UserError):
    """A key, type, value or combination of settings is wrong, or a file or folder that they name is not there."""


class DataError(UserError):
    """Data was found but is damaged: an image that does not decode, a label out of range, an empty class."""

    exit_code = 3


class RunFolderError(UserError):
    """The run folder cannot be used: not writable, held by another process, disk full, no checkpoint that loads."""

    exit_code = 4


class ResourceError(UserError):
    """The memory of the machine or of its GPU does not suffice, or processes that read data have died or hang."""

    exit_code = 4


class PeerError(UserError):
    """Another process of the same run is gone, hangs, cannot be reached, or sees other files."""

    exit_code = 4


class UnavailableError(UserError):
    """A folder or server beside the run fails: the cache or the staging folder cannot be written, W&B not reached."""

    exit_code = 4


class NumericalError(UserError):
    """A loss became NaN or infinite."""

    exit_code = 5


class ClusterError(UserError):
    """SLURM is not there, or refused what it was asked for."""

    exit_code = 4

"""Lock run folders: with the kernel's lock if the file system supports it, else with a file that names its holder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from robustlab.core.errors import ConfigError, RunFolderError

LOCK_FILE, OWNER_FILE = ".lock", ".owner"
ENDING_FILE = "exit.json"
"""File that says how the last holder's run ended (`robustlab.engine.ending`)."""
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
"""Error codes of flock on network file systems mounted without locks."""
_GONE = frozenset({"", "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"})
_ATTEMPTS = 20


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    - boot: distinguishes boots of the same host.
    - started: distinguishes processes that reuse a process id.
    """

    pid: int
    host: str
    boot: str
    started: str
    job: str | None
    restarts: str | None

    @classmethod
    def this_process(cls) -> Holder:
        """Return the holder that describes this process."""
        job = os.environ.get("SLURM_JOB_ID")
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0") if job else None
        return cls(os.getpid(), socket.gethostname(), _boot(), _started(os.getpid()), job, restarts)

    def __str__(self) -> str:
        """Describe the holder."""
        return f"process {self.pid} on {self.host}" + (f", SLURM job {self.job}" if self.job else "")

    def is_gone(self) -> bool:
        """Return whether the holder is known to have ended; False if that cannot be determined."""
        here = Holder.this_process()
        if self.host == here.host:
            return self.boot != here.boot or self.started != _started(self.pid)
        if self.job is None:
            return False
        if self.job == here.job:
            return self.restarts != here.restarts  # SLURM only restarts a job once it has ended everywhere
        return _slurm_state(self.job) in _GONE


def last_holder(folder: Path) -> str | None:
    """Return the text in a folder's lock, which remains after its release; None if there is no lock."""
    try:
        return (folder / LOCK_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create a run folder and hold its lock.

    The kernel's lock (flock) vanishes with its process, however it dies. Where it is not available, a lock file may be
    left behind; it is taken over if its holder is known to be gone (a dead process on this host, an ended SLURM job).

    Raises RunFolderError that names the holder if another process has the lock.
    """
    path, me = folder / LOCK_FILE, Holder.this_process()
    with contextlib.ExitStack() as held:
        for _ in range(_ATTEMPTS):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                file = held.enter_context(path.open("a+", encoding="utf-8"))
            except FileNotFoundError:  # a command that was refused has just removed its folder again
                continue
            has_kernel_lock = _flock(file, folder)
            if _is_still(file, path):
                break
        else:
            raise RunFolderError(f"{folder} keeps being created and removed by other processes; try again")
        if not has_kernel_lock:
            held.enter_context(_owner_file(folder, me))
        file.seek(0)
        before, ending = file.read(), _take_ending(folder)
        _rewrite(file, str(me))
        try:
            yield
        except ConfigError:
            if before:  # a refused command has not touched the run, so its last start is still the one before
                _rewrite(file, before)
            if ending is not None:
                (folder / ENDING_FILE).write_bytes(ending)
            _leave_no_trace(folder)
            raise


def _take_ending(folder: Path) -> bytes | None:
    """Remove and return the previous holder's ending: if this process is killed, none must be left."""
    path = folder / ENDING_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    path.unlink()
    return content


def _rewrite(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def _flock(file: IO[str], folder: Path) -> bool:
    """Lock `file`; return False if the file system has no locks. Raises RunFolderError if another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise _in_use(folder, file.read().strip() or "another process that has just started") from error
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _is_still(file: IO[str], path: Path) -> bool:
    """Return whether the open file is still the one at `path`: its folder may have been moved or removed."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _owner_file(folder: Path, me: Holder) -> Iterator[None]:
    """Hold a lock in the form of a file, created exclusively."""
    path = folder / OWNER_FILE
    text = json.dumps(asdict(me))
    while True:
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            break
        except FileExistsError:
            _take_over(path, folder)
    try:
        yield
    finally:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            path.unlink()


def _take_over(path: Path, folder: Path) -> None:
    """Move a lock out of the way if its holder is gone. Raises RunFolderError if the holder may be alive."""
    try:
        text = path.read_text(encoding="utf-8")
        holder = Holder(**json.loads(text))
    except FileNotFoundError:
        return  # released just now
    except (ValueError, TypeError) as error:
        raise _in_use(folder, f"an unknown process; if none is running, delete {path}") from error
    if not holder.is_gone():
        raise _in_use(folder, f"{holder}; if that has ended, delete {path}")
    aside = path.with_name(f"{OWNER_FILE}.{uuid.uuid4().hex}.tmp")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if aside.read_text(encoding="utf-8") != text:  # another process was faster: this is its lock
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def _in_use(folder: Path, holder: str) -> RunFolderError:
    return RunFolderError(f"{folder} is in use by {holder}; wait for it to end, or stop it first")


def _leave_no_trace(folder: Path) -> None:
    """Remove a folder in which a refused command has written nothing but the lock."""
    if {entry.name for entry in folder.iterdir()} <= {LOCK_FILE, OWNER_FILE}:
        for name in (LOCK_FILE, OWNER_FILE):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another process may have arrived; the parent may hold other seeds
            folder.rmdir()
            folder.parent.rmdir()


def _boot() -> str:
    return _read_or_empty(Path("/proc/sys/kernel/random/boot_id")).strip()


def _started(pid: int) -> str:
    """Return when a process on this host started, in ticks since boot; "" if there is no such process."""
    return " ".join(_read_or_empty(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[19:20])


def _read_or_empty(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no such process, or a system without /proc
        return ""


def _slurm_state(job: str) -> str | None:
    """Return the state of a SLURM job, "" if SLURM has forgotten it, None if SLURM cannot be queried."""
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%T", "--states", "all"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if asked.returncode:
        return "" if "Invalid job id" in asked.stderr else None
    return " ".join(asked.stdout.split()[:1])

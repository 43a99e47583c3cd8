"""The lock of a run folder: the kernel's where the file system has one, else a file that names its holder."""

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
"""How the last holder's run ended (`robustlab.engine.ending`)."""
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
"""What flock answers on network file systems that are mounted without locks."""
_GONE = frozenset({"", "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"})
_ATTEMPTS = 20


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. boot: tells boots of one host apart. started: tells processes with one number apart."""

    pid: int
    host: str
    boot: str
    started: str
    job: str | None
    restarts: str | None

    @classmethod
    def this_process(cls) -> Holder:
        """Return what names this process."""
        job = os.environ.get("SLURM_JOB_ID")
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0") if job else None
        return cls(os.getpid(), socket.gethostname(), _boot(), _started(os.getpid()), job, restarts)

    def __str__(self) -> str:
        """Return it in words."""
        return f"process {self.pid} on {self.host}" + (f", SLURM job {self.job}" if self.job else "")

    def is_gone(self) -> bool:
        """Tell whether the holder is known to be no more; where that cannot be found out, it is not."""
        here = Holder.this_process()
        if self.host == here.host:
            return self.boot != here.boot or self.started != _started(self.pid)
        if self.job is None:
            return False
        if self.job == here.job:
            return self.restarts != here.restarts  # SLURM starts a job again only when it has ended everywhere
        return _slurm_state(self.job) in _GONE


def last_holder(folder: Path) -> str | None:
    """Return the words in a folder's lock, which stay behind when it is released; None where there is no lock."""
    try:
        return (folder / LOCK_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is created. Raises RunFolderError naming the holder if there is another.

    The kernel's lock (flock) vanishes with its process, however it dies. Without one, a file stays behind: it is taken
    over where its holder is known to be gone (a dead process of this host, an ended SLURM job).
    """
    path, me = folder / LOCK_FILE, Holder.this_process()
    with contextlib.ExitStack() as held:
        for _ in range(_ATTEMPTS):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                file = held.enter_context(path.open("a+", encoding="utf-8"))
            except FileNotFoundError:  # a command that could not work has just taken its folder away again
                continue
            has_kernel_lock = _flock(file, folder)
            if _is_still(file, path):
                break
        else:
            raise RunFolderError(f"{folder} is created and removed all the time by other processes; try again")
        if not has_kernel_lock:
            held.enter_context(_owner_file(folder, me))
        file.seek(0)
        before, ending = file.read(), _take_ending(folder)
        _rewrite(file, str(me))
        try:
            yield
        except ConfigError:
            if before:  # a command that cannot work has not touched the run, whose last start was the one before
                _rewrite(file, before)
            if ending is not None:
                (folder / ENDING_FILE).write_bytes(ending)
            _leave_no_trace(folder)
            raise


def _take_ending(folder: Path) -> bytes | None:
    """Remove and return the word of the holder before: should this one be killed, there must be none."""
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
    """Lock `file`; False where the file system has no locks. Raises RunFolderError where another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise _in_use(folder, file.read().strip() or "another process, which has just started") from error
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _is_still(file: IO[str], path: Path) -> bool:
    """Tell whether the open file is the one of this name: its folder may have been moved aside or removed."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _owner_file(folder: Path, me: Holder) -> Iterator[None]:
    """Hold a lock that is a file of its own, created exclusively."""
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
    """Move the lock of a holder that is gone out of the way. Raises RunFolderError where it may be alive."""
    try:
        text = path.read_text(encoding="utf-8")
        holder = Holder(**json.loads(text))
    except FileNotFoundError:
        return  # released this moment
    except (ValueError, TypeError) as error:
        raise _in_use(folder, f"an unknown process; if none is left, delete {path}") from error
    if not holder.is_gone():
        raise _in_use(folder, f"{holder}; if it is no more, delete {path}")
    aside = path.with_name(f"{OWNER_FILE}.{uuid.uuid4().hex}.tmp")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if aside.read_text(encoding="utf-8") != text:  # another process was faster, and this is its lock
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def _in_use(folder: Path, holder: str) -> RunFolderError:
    return RunFolderError(f"{folder} is in use by {holder}; wait for it, or stop it first")


def _leave_no_trace(folder: Path) -> None:
    """Remove a folder in which a command that cannot work has written nothing but the lock."""
    if {entry.name for entry in folder.iterdir()} <= {LOCK_FILE, OWNER_FILE}:
        for name in (LOCK_FILE, OWNER_FILE):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another process may have come; other seeds may lie beside it
            folder.rmdir()
            folder.parent.rmdir()


def _boot() -> str:
    return _read_or_empty(Path("/proc/sys/kernel/random/boot_id")).strip()


def _started(pid: int) -> str:
    """Return when a process of this host started, in ticks since boot; "" if there is none."""
    return " ".join(_read_or_empty(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[19:20])


def _read_or_empty(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no such process, or a system without /proc
        return ""


def _slurm_state(job: str) -> str | None:
    """Return the state of a SLURM job, "" if SLURM has forgotten it, None if it cannot be asked."""
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%T", "--states", "all"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if asked.returncode:
        return "" if "Invalid job id" in asked.stderr else None
    return " ".join(asked.stdout.split()[:1])

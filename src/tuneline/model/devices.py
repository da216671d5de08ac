"""One GPU, one job: an accelerator belongs to one process at a time, however many of them run.

A job locks its devices before PyTorch sees them, and shows PyTorch no others: CUDA reads CUDA_VISIBLE_DEVICES once,
when it is first asked, and bitsandbytes asks when it is imported, and opens all it sees. Locks are files of this user,
one per device; the operating system lets go of them when the process ends, however it ends. A CPU is shared.
No torch here.
"""

import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path

from tuneline.config.schema import Device
from tuneline.errors import EnvironmentProblem

# The same for every process of the user: TMPDIR and XDG_RUNTIME_DIR differ between a login, a service and a job.
LOCKS = Path("/tmp") / f"tuneline-devices-{os.getuid()}"  # noqa: S108  (its owner is checked)
POLL_SECONDS = 1.0
VISIBLE = "CUDA_VISIBLE_DEVICES"
UNLISTED = "cuda"  # the lock of all GPUs together, where nothing lists them
# There is a driver: NVIDIA's, AMD's, or Windows' in its Linux subsystem.
DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))


@cache  # a process takes its devices once, and keeps them until it ends
def take_devices(device: Device, num_devices: int) -> tuple[str, ...]:
    """Lock `num_devices` accelerators for this process, waiting for them where others hold them; none on a CPU.

    CUDA_VISIBLE_DEVICES, if set, says which may be taken, by the numbers of `nvidia-smi` or by UUID. When it allows
    fewer than are needed, nothing is locked: PyTorch's own count then refuses.
    """
    match device:
        case "cpu":
            return ()
        case "mps":
            return lock_devices(LOCKS, ["mps"], 1)
        case "cuda":
            return _take_gpus(num_devices)


def _take_gpus(num_devices: int) -> tuple[str, ...]:
    listed = listed_gpus()
    if listed is None:
        return lock_devices(LOCKS, [UNLISTED], 1) if any(path.exists() for path in DRIVERS) else ()
    allowed = allowed_gpus(listed, os.environ.get(VISIBLE))
    if len(allowed) < num_devices:
        return ()
    taken = lock_devices(LOCKS, allowed, num_devices)
    os.environ[VISIBLE] = ",".join(taken)
    return taken


def listed_gpus() -> tuple[str, ...] | None:
    """UUIDs of the machine's GPUs, in the driver's order; of its MIG instances where it is split. None: not known."""
    try:
        ran = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parsed_gpus(ran.stdout) if ran.returncode == 0 else None


def parsed_gpus(text: str) -> tuple[str, ...]:
    """From lines like `GPU 0: NVIDIA H100 (UUID: GPU-...)`, which the instances of a split GPU follow, indented."""
    uuids: list[str] = re.findall(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)", text)
    split = {uuid for uuid, following in pairwise(uuids) if _is_instance(following, uuid)}
    return tuple(uuid for uuid in uuids if uuid not in split)


def _is_instance(uuid: str, before: str) -> bool:
    return uuid.startswith("MIG-") and before.startswith("GPU-")


def allowed_gpus(listed: tuple[str, ...], visible: str | None) -> list[str]:
    """Those of `listed` that CUDA_VISIBLE_DEVICES names, in its order and, as for CUDA, up to the first unknown one."""
    if visible is None:
        return list(listed)
    allowed: list[str] = []
    for word in (part.strip() for part in visible.split(",")):
        if (found := _named(listed, word)) is None:
            break
        allowed.append(found)
    return list(dict.fromkeys(allowed))


def _named(listed: tuple[str, ...], word: str) -> str | None:
    if word.isdigit():
        return listed[int(word)] if int(word) < len(listed) else None
    matching = [uuid for uuid in listed if word and uuid.startswith(word)]
    return matching[0] if len(matching) == 1 else None


def lock_devices(folder: Path, names: Iterable[str], count: int) -> tuple[str, ...]:
    """The first `count` of `names` that nobody holds, all at once: two jobs that need two never wait for each other.

    Until there are so many a line on stderr says who holds which.
    """
    _require_own(folder)
    waiting, told = tuple(names), ""
    while True:
        taken, held = _try(folder, waiting, count)
        if taken:
            return taken
        line = f"waits for {count} of {len(waiting)} devices: {'; '.join(held)}"
        if line != told:
            print(line, file=sys.stderr, flush=True)
        told = line
        time.sleep(POLL_SECONDS)


def _require_own(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise EnvironmentProblem(f"{folder}: belongs to somebody else; it must be a folder of yours, or absent")


def _try(folder: Path, names: tuple[str, ...], count: int) -> tuple[tuple[str, ...], list[str]]:
    """What was taken, and who holds the rest. The locks of taken devices stay open until the process ends."""
    files: dict[str, int] = {}
    held: list[str] = []
    for name in names:
        file = os.open(folder / name.replace("/", "_"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            files[name] = file
        except OSError:
            held.append(f"{name} is held by {os.pread(file, 4096, 0).decode(errors='replace') or 'another process'}")
            os.close(file)
        if len(files) == count:
            _sign(files.values())
            return tuple(files), held
    for file in files.values():
        os.close(file)
    return (), held


def _sign(files: Iterable[int]) -> None:
    for file in files:
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} in {Path.cwd()}".encode(), 0)

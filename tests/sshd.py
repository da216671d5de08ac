"""An SSH server on loopback, with host key and settings of its own, that can die, fall silent and come back."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
SETTINGS = (
    "ListenAddress 127.0.0.1",
    "StrictModes no",
    "UsePAM no",
    "PasswordAuthentication no",
    "PermitRootLogin prohibit-password",
    "Subsystem sftp internal-sftp",
)


class Sshd:
    """`key` is what a client shows; the port stays the same from one start to the next."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, folder / "client"
        for name in ("host", "client"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name]
            subprocess.run(command, cwd=folder, check=True)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        own = (f"Port {self.port}", f"HostKey {folder}/host", f"AuthorizedKeysFile {folder}/client.pub")
        (folder / "sshd_config").write_text("\n".join((*own, f"PidFile {folder}/pid", *SETTINGS)) + "\n")
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "sshd.log").open("a") as log:
            command = [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self._server = subprocess.Popen(command, stderr=log)
        for _ in range(100):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError(f"nothing listens on {self.port}")

    def signal(self, number: signal.Signals) -> None:
        """To the server and to those of its processes that serve a client."""
        assert self._server is not None
        server = psutil.Process(self._server.pid)
        for process in (server, *server.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """Nothing of it is left."""
        if self._server is not None:
            self.signal(signal.SIGKILL)
            self._server.wait()
            self._server = None


@contextmanager
def running_sshd(folder: Path) -> Iterator[Sshd]:
    """Skips the test where there is no sshd, or DVC cannot talk to one."""
    if SSHD is None or find_spec("dvc_ssh") is None:
        pytest.skip("no sshd (apt-get install openssh-server) or no dvc-ssh (pip install 'tuneline[ssh]')")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it, an init system would have made it
    folder.mkdir(exist_ok=True)
    server = Sshd(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()

import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, str(Path(__file__).with_name("sharded_program.py"))]


def finished(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "sharded kernels agree" in output


def started(*arguments):
    return subprocess.Popen([*PROGRAM, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_eight_devices():
    finished(started())


@pytest.mark.slow
def test_two_processes_of_four_devices():
    """As on two hosts, each process makes the same call and holds its own rows."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [started(address, "2", str(i)) for i in range(2)]
    for process in processes:
        finished(process)

import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, str(Path(__file__).with_name("sharded_program.py"))]


def finished(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "sharded training agrees" in output


def started(*arguments):
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_eight_devices(tmp_path):
    finished(started(tmp_path))


@pytest.mark.slow
def test_two_processes_of_four_devices(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for process in [started(tmp_path, address, 2, i) for i in range(2)]:
        finished(process)

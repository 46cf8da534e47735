"""Eight simulated devices for the programs that check sharding, in one process or, as on several hosts, in more.

JAX fixes the number of devices when it first uses them, so each program runs in processes of its own.
"""

import os
import socket
import subprocess
import sys

import jax
import numpy as np

DEVICES = 8


def simulated_devices(address=None, processes=1, index=0):
    """Start JAX in float64 on this process's share of the devices, and return all of them as an array."""
    flags = f"--xla_force_host_platform_device_count={DEVICES // int(processes)}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    if address:
        if hasattr(os, "sched_setaffinity"):  # on one core of a test worker, the processes would poll in turns
            os.sched_setaffinity(0, range(os.cpu_count()))
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, int(processes), int(index))
    devices = np.array(jax.devices())
    assert len(devices) == DEVICES
    return devices


def check_program(program, said, *arguments, processes=1):
    """Run a program; each of its processes has to end well and to have said so, in the words ``said``."""
    command = [sys.executable, str(program), *map(str, arguments)]
    commands = [command]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        commands = [[*command, address, str(processes), str(i)] for i in range(processes)]
    running = [
        subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for command in commands
    ]
    for process in running:
        output, _ = process.communicate(timeout=900)  # a minute or two when idle; CI's machine is often busy
        assert process.returncode == 0, output
        assert said in output

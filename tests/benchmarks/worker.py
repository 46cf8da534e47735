"""One method in a process of its own, with its own environment: it repeats a call whenever the driver asks.

    PYTHON tests/benchmarks/worker.py MODULE METHOD CASE DTYPE

CASE is JSON. Requests are lines of JSON on the standard input, ``[name, *arguments]``, and the answers are lines on the
standard output. NumPy is all that this file needs of the environment.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from cases import Case


class Worker:
    def __init__(self, module, method, case, dtype):
        self.library = importlib.import_module(module)
        self.call = self.library.METHODS[method](Case(**json.loads(case)), dtype)
        self.result = None

    def first(self):
        """Return the wall and CPU seconds of the first call, which compiles."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.result = self.library.finished(self.call())
        return time.perf_counter() - wall, time.process_time() - cpu

    def again(self, seconds):
        """Repeat the call for at least so many seconds; return the wall and CPU seconds of one call."""
        calls, wall, cpu = 0, time.perf_counter(), time.process_time()  # CPU time is that of all threads
        while calls == 0 or time.perf_counter() - wall < seconds:
            self.library.finished(self.call())
            calls += 1
        return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls

    def memory(self):
        """Return by how many bytes the peak of the resident set during a call exceeds its size before the call."""
        before = resident("VmRSS")
        self.library.finished(self.call())
        return resident("VmHWM") - before

    def save(self, file):
        """Save the result's numbers; return the versions of the packages."""
        np.save(file, np.concatenate([np.ravel(leaf) for leaf in _leaves(self.result)]))
        return self.library.VERSIONS


def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def _leaves(result):
    """Return the arrays of a kernel, of a diagonal, or of a network's parameters, layer by layer."""
    if hasattr(result, "shape"):
        return [result]
    if isinstance(result, (list, tuple)):
        return [leaf for part in result for leaf in _leaves(part)]
    import jax

    return jax.tree.leaves(result)


def main(arguments):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints goes to the standard error
    worker = Worker(*arguments)
    for line in sys.stdin:
        name, *rest = json.loads(line)
        print(json.dumps(getattr(worker, name)(*rest)), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

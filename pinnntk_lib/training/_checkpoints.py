"""Training checkpoints, written by orbax. Each is either complete or absent; by default the newest two are kept."""

import signal
import threading
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np


class CheckpointError(RuntimeError):
    """Error raised when a checkpoint cannot be written or read.

    Attributes:
        result: the training result so far, if :func:`~pinnntk_lib.train` could not save a checkpoint; None otherwise.

    Example:
        >>> import jax, optax, pinnntk_lib as pn
        >>> problem, model = pn.problems.Poisson1D(), pn.MLP(width=10)
        >>> setting = model.apply, model.init(jax.random.key(0)), problem, problem.points(10), optax.sgd(1e-5)
        >>> try:
        ...     pn.train(*setting, 100, resume="runs/none")
        ... except pn.CheckpointError as error:
        ...     print(error)  # doctest: +ELLIPSIS
        ...
        checkpoints: ...runs/none cannot be used (FileNotFoundError: ...)
    """

    def __init__(self, message: str, result: Any = None) -> None:
        self.result = result
        super().__init__(message)


class Checkpoints:
    """The checkpoints in one directory.

    Args:
        directory: the directory that holds the checkpoints.
        create: whether to create the directory if it does not exist.
        keep: number of checkpoints to keep. Older ones are deleted once a newer one is complete.

    Raises:
        CheckpointError: if the directory cannot be created or opened.
    """

    def __init__(self, directory: str | Path, create: bool = True, keep: int = 2) -> None:
        # Imported here so that runs without checkpoints neither wait for orbax nor need it installed.
        import orbax.checkpoint as ocp

        self.directory, self._ocp = Path(directory).absolute(), ocp
        try:
            if create:
                self.directory.mkdir(parents=True, exist_ok=True)
            next(self.directory.iterdir(), None)
        except OSError as error:
            raise CheckpointError(f"checkpoints: {self.directory} cannot be used ({_brief(error)})") from error
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    @property
    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, in ascending order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, contents: dict[str, Any]) -> None:
        """Save nested dicts of NumPy arrays as the checkpoint of a step, unless that step already has one.

        Raises:
            CheckpointError: if the checkpoint cannot be written, for instance on a full disk. Earlier checkpoints
                stay intact.
        """
        if step in self.steps:
            return
        contents = {**contents, "checksum": np.asarray(_checksum(contents), np.uint32)}
        try:
            with _interrupts_held():
                self._manager.save(step, args=self._ocp.args.StandardSave(contents))
        except Exception as error:  # orbax and tensorstore raise many types
            before = f"the checkpoint of step {self.steps[-1]} is intact" if self.steps else "there is no earlier one"
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {self.directory} ({_brief(error)}); {before}"
            ) from error

    def restore(self) -> dict[str, Any]:
        """Return the contents of the newest checkpoint.

        Raises:
            CheckpointError: if there is no checkpoint, or the newest one is damaged.
        """
        if not self.steps:
            raise CheckpointError(f"resume: expected a directory with checkpoints, found none in {self.directory}")
        *others, step = self.steps
        try:
            contents = dict(self._manager.restore(step, args=self._ocp.args.StandardRestore()))
            if int(contents.pop("checksum")) != _checksum(contents):  # orbax may miss a flipped bit in an array
                raise ValueError("the checksum does not match the contents")
        except Exception as error:
            path = self.directory / str(step)
            advice = f"; delete {path} to resume from step {others[-1]}" if others else ""
            raise CheckpointError(f"the checkpoint {path} is damaged ({_brief(error)}){advice}") from error
        return contents


@contextmanager
def _interrupts_held():
    """Defer Ctrl-C, and SIGTERM if it has a handler, until the block ends: interrupting a save can break orbax."""
    held, handlers = [], {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)):
                handlers[number] = signal.signal(number, lambda *arguments: held.append(arguments))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number, frame in held[:1]:
        handlers[number](number, frame)


def _brief(error):
    """Return an error's first line, cut in the middle: tensorstore puts the place first and the cause last."""
    line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {line if len(line) < 200 else f'{line[:60]} ... {line[-120:]}'}"


def _checksum(contents):
    total = 0
    for leaf in jax.tree.leaves(contents):
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return total

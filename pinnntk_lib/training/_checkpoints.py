"""Checkpoints of a training run, written by orbax: each is whole or is not there, and the newest two are kept."""

import signal
import threading
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or not be read.

    Attributes:
        result: training so far, where a checkpoint could not be written; None otherwise.

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
        directory: where they are.
        create: whether to make the directory where there is none.
        keep: how many stay; older ones are deleted once a newer one is complete.

    Raises:
        CheckpointError: if the directory cannot be made or opened.
    """

    def __init__(self, directory: str | Path, create: bool = True, keep: int = 2):
        # Imported here: whoever writes no checkpoints need not wait for it, nor have it.
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
        """The steps of the complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, contents: dict[str, Any]) -> None:
        """Writes nested dicts of NumPy arrays as the checkpoint of a step; one that is there already stays.

        Raises:
            CheckpointError: if it cannot be written, as on a full disk. The earlier ones stay as they are.
        """
        if step in self.steps:
            return
        contents = {**contents, "checksum": np.asarray(_checksum(contents), np.uint32)}
        try:
            with _interrupts_held():
                self._manager.save(step, args=self._ocp.args.StandardSave(contents))
        except Exception as error:  # orbax and tensorstore raise many kinds
            before = f"the one of step {self.steps[-1]} is whole" if self.steps else "there is none before it"
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {self.directory} ({_brief(error)}); {before}"
            ) from error

    def restore(self) -> dict[str, Any]:
        """What the newest checkpoint holds.

        Raises:
            CheckpointError: if there is none, or it is damaged.
        """
        if not self.steps:
            raise CheckpointError(f"resume: expected a directory with checkpoints, found none in {self.directory}")
        *others, step = self.steps
        try:
            contents = dict(self._manager.restore(step, args=self._ocp.args.StandardRestore()))
            if int(contents.pop("checksum")) != _checksum(contents):  # a flipped bit in an array is no error to orbax
                raise ValueError("its checksum is not that of its contents")
        except Exception as error:
            path = self.directory / str(step)
            advice = f"; delete {path} to go on from step {others[-1]}" if others else ""
            raise CheckpointError(f"the checkpoint {path} is damaged ({_brief(error)}){advice}") from error
        return contents


@contextmanager
def _interrupts_held():
    """Keeps Ctrl-C, and a SIGTERM that has a handler, until the block is done: orbax does not survive one in a save."""
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
    """The first line, shortened in the middle: tensorstore begins with where it was and ends with what was wrong."""
    line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {line if len(line) < 200 else f'{line[:60]} ... {line[-120:]}'}"


def _checksum(contents):
    total = 0
    for leaf in jax.tree.leaves(contents):
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return total

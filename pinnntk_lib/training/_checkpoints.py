"""Training checkpoints, written by orbax. Each is either complete or absent; by default the newest two are kept."""

import signal
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pinnntk_lib._check import check_path


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
        resume: ...runs/none cannot be used (FileNotFoundError: ...)
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
        TypeError: if the directory is not a path.
        CheckpointError: if the directory cannot be created or opened.
    """

    def __init__(self, directory: str | Path, create: bool = True, keep: int = 2) -> None:
        # Imported here so that runs without checkpoints neither wait for orbax nor need it installed.
        import orbax.checkpoint as ocp

        name = "checkpoints" if create else "resume"  # the argument of train
        self.directory, self._ocp = check_path(name, directory, "a directory").absolute(), ocp
        me = jax.process_index()  # of several hosts, each reads for itself and the first one writes: nobody waits
        alone = ocp.options.MultiprocessingOptions(me, {me}, f"process{me}")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False, create=False, multiprocessing_options=alone
        )
        try:
            if create:
                self.directory.mkdir(parents=True, exist_ok=True)
            next(self.directory.iterdir(), None)
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise CheckpointError(f"{name}: {self.directory} cannot be used ({_brief(error)})") from error

    @property
    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, in ascending order."""
        return sorted(self._manager.all_steps())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Reserve the directory for one writer until the block ends; the operating system ends it with the process.

        Of several hosts, only the first one is a writer.

        Raises:
            CheckpointError: if another writer, in this process or another, has the directory, or it is read-only.
        """
        if jax.process_index():
            yield
            return
        try:
            file = (self.directory / ".lock").open("a")
        except OSError as error:
            raise CheckpointError(f"checkpoints: {self.directory} cannot be written to ({_brief(error)})") from error
        with file:
            if not _locked(file):
                raise CheckpointError(
                    f"checkpoints: {self.directory} is in use by another run; wait until it ends, or choose another "
                    "directory"
                )
            yield

    def save(self, step: int, contents: dict[str, Any]) -> None:
        """Save nested dicts of NumPy arrays as the checkpoint of a step, unless that step already has one.

        Of several hosts, only the first one saves.

        Raises:
            CheckpointError: if the checkpoint cannot be written, for instance on a full disk. Earlier checkpoints
                stay intact.
        """
        if jax.process_index() or step in self.steps:
            return
        contents = jax.tree.map(_storable, contents)
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
            raise CheckpointError(f"resume: the checkpoint {path} is damaged ({_brief(error)}){advice}") from error
        return jax.tree.map(_restored, contents, is_leaf=_is_stored_shape)


def _locked(file):
    """Lock an open file until it is closed; return whether nobody else holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # some network file systems have no locks
        pass
    return True


# orbax refuses arrays without elements. Their shapes are stored in their place.


def _storable(array):
    array = np.asarray(array)
    return array if array.size else {"shape": np.array(array.shape), "empty": np.zeros(1, array.dtype)}


def _is_stored_shape(tree):
    return isinstance(tree, dict) and set(tree) == {"shape", "empty"}


def _restored(tree):
    return np.zeros(tree["shape"], tree["empty"].dtype) if _is_stored_shape(tree) else tree


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

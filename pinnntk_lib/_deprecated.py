"""Former names, accepted with a warning for one more release."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def renamed_keywords(**new_names: str) -> Callable[[F], F]:
    """Return a decorator that lets a function or class accept keywords by their former names, with a warning.

    Args:
        new_names: the renamed keywords, as ``former="new"``.

    Raises:
        TypeError: when the decorated object is called with both names.

    Example:
        >>> @renamed_keywords(tries="max_tries")
        ... def descend(max_tries=10):
        ...     return max_tries
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     descend(tries=3)
        3
        >>> print(caught[0].message)
        descend: 'tries' is now 'max_tries'; the former name will be removed in the next release
    """

    def decorate(f: F) -> F:
        if isinstance(f, type):
            f.__init__ = decorate(f.__init__)  # type: ignore[misc]
            return f
        name = f.__qualname__.removesuffix(".__init__")

        @wraps(f)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            for former, new in new_names.items():
                if former in kwargs:
                    if new in kwargs:
                        raise TypeError(f"{name}: expected {new!r} alone, got its former name {former!r} as well")
                    warn_of(f"{name}: {former!r}", new, stacklevel=3)
                    kwargs[new] = kwargs.pop(former)
            return f(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return decorate


def warn_of(former: str, new: str, stacklevel: int) -> None:
    """Warn that a name has changed; ``stacklevel`` is 2 for the caller of this function, 3 for its caller."""
    message = f"{former} is now {new!r}; the former name will be removed in the next release"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)

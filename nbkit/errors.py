"""The one exception a user of the suite should ever meet, and how a batch prints any other."""

from collections.abc import Iterable


class NbkitError(ValueError):
    """Something the user gave cannot work.  The message names the file or the field, and the way
    out.
    """

    def _render_traceback_(self) -> list[str]:
        """A notebook shows the message, which says all, in place of the calls that led there."""
        return [f"{type(self).__name__}: {self}"]


def require_one_of(name: str, value: object, known: Iterable[object]) -> None:
    """NbkitError, which names the field and the way out, where `value` is none of `known`."""
    if value not in known:
        raise NbkitError(f"{name}={value!r} is not one of {', '.join(map(str, known))}")


def reason(error: Exception) -> str:
    """What a batch prints of a failure: an NbkitError speaks for itself, any other exception is
    named first.
    """
    return str(error) if isinstance(error, NbkitError) else f"{type(error).__name__}: {error}"

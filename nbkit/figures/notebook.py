"""Helpers of the notebooks: print the real source of a function, step through pictures."""

from __future__ import annotations

import ast
import inspect
import os
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import Markdown, display

from nbkit.errors import NbkitError


def source_without_docstring(function: Callable) -> str:
    """The function's source as in its file, less the docstring (it repeats the equation above)."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    node = ast.parse(source).body[0]
    lines = source.splitlines()
    first = node.body[0]
    if len(node.body) > 1 and ast.get_docstring(node) is not None:
        del lines[first.lineno - 1 : first.end_lineno]
    return "\n".join(lines)


def show_source(*functions: Callable) -> None:
    """Display the source of package functions, each under the file it comes from."""
    for function in functions:
        path = Path(inspect.getfile(inspect.unwrap(function))).as_posix()
        where = path[path.rfind("/nbkit/") + 1 :]
        display(Markdown(f"`{where}`\n```python\n{source_without_docstring(function)}\n```"))


def someone_is_watching() -> bool:
    """Whether a person can click: false under papermill, nbclient and nbval.

    NBKIT_WIDGETS=1 or =0 decides otherwise.
    """
    wish = os.environ.get("NBKIT_WIDGETS")
    if wish in ("0", "1"):
        return wish == "1"
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))


def stepper(
    draw: Callable[[Any], plt.Figure],
    values: Sequence,
    label: str,
    start: int = 0,
    live: bool = False,
) -> None:
    """Show a slider over `values` that redraws the figure `draw(value)`.

    Where nobody can click, show `draw(values[start])` alone. live: redraw while the slider is
    dragged, not only where it is let go. Raises NbkitError for an empty list of values.
    """
    if not values:
        raise NbkitError("stepper needs at least one value")
    if not someone_is_watching():
        draw(values[start])
        plt.show()
        return
    # heavy, and not needed where nobody can click
    import ipywidgets

    out = ipywidgets.Output()
    slider = ipywidgets.SelectionSlider(
        options=[(str(v), v) for v in values],
        value=values[start],
        description=label,
        continuous_update=live,
        style={"description_width": "initial"},
    )

    def redraw(change: dict) -> None:
        figure = draw(change["new"])
        with out:
            out.clear_output(wait=True)
            display(figure)
        plt.close(figure)

    slider.observe(redraw, "value")
    redraw({"new": values[start]})
    display(ipywidgets.VBox([slider, out]))

"""Committed notebooks stay small: figures of few colours get a palette, pictures stay."""

import base64
import io

import nbformat
import numpy as np
from PIL import Image

from tools.notebooks import with_small_figures


def stored(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def test_a_figure_gets_a_palette_and_a_picture_stays():
    greys = np.linspace(0, 255, 200).astype(np.uint8)
    figure = stored(np.repeat(np.tile(greys, (50, 1))[..., None], 3, axis=2))
    picture = stored(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8))
    outputs = [
        nbformat.v4.new_output("display_data", {"image/png": png}) for png in (figure, picture)
    ]
    cell = nbformat.v4.new_code_cell("draw()", outputs=outputs)
    with_small_figures(nbformat.v4.new_notebook(cells=[cell]))
    small, same = (output.data["image/png"] for output in cell.outputs)
    assert same == picture
    image = Image.open(io.BytesIO(base64.b64decode(small)))
    before = np.asarray(Image.open(io.BytesIO(base64.b64decode(figure))), dtype=int)
    assert image.mode == "P" and image.size == (200, 50)
    assert np.abs(np.asarray(image.convert("RGB"), dtype=int) - before).max() <= 2

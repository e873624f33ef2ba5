"""Notebook 06 on a test part of a few videos: its own cells, on features of that size."""

import nbformat
import numpy as np
import pandas as pd
import pytest
from sklearn.manifold import trustworthiness

from nbkit.config import ROOT
from nbkit.figures.embedding import Embedding, embed, tsne

NOTEBOOK = nbformat.read(ROOT / "notebooks" / "06_tsne.ipynb", as_version=4)


class Features:
    def __init__(self, videos):
        self.V = np.random.default_rng(0).normal(size=(videos, 16)).astype(np.float32)
        self.V = type("Tensor", (), {"numpy": lambda _, values=self.V: values})()


def functions_of(name, names):
    """The functions of the cell that defines `name`, in a namespace that has `names`."""
    cell = next(c.source for c in NOTEBOOK.cells if f"def {name}(" in c.source)
    exec(cell.split("\nnames =")[0], names)
    return names[name]


@pytest.mark.parametrize("videos", [4, 6, 12, 40])
def test_the_nine_pictures_are_drawn_and_judged(videos):
    y = np.arange(videos) % 2
    names = {
        "np": np, "pd": pd, "tsne": tsne, "trustworthiness": trustworthiness,
        "Embedding": Embedding, "full": "f", "target": {"f": Features(videos)},
        "y_target": type("Tensor", (), {"numpy": lambda _: y})(),
    }  # fmt: skip
    judged = functions_of("judged", names)
    cell = next(c.source for c in NOTEBOOK.cells if c.source.startswith("small_to_large"))
    exec(cell.splitlines()[0], {"x": names["x"]}, names)
    for perplexity in names["small_to_large"]:
        text, embedding = judged(perplexity, 0)
        assert embedding.xy.shape == (videos, 2) and "near" in text


@pytest.mark.parametrize("videos", [3, 8])
def test_the_two_pictures_take_a_perplexity_that_fits(videos):
    points = np.random.default_rng(0).normal(size=(videos, 16))
    side = {"f": type("F", (), {"V": points})}
    y = np.zeros(videos, int)
    names = {"source": side, "target": side, "y_source": y, "y_target": y, "embed": embed,
             "TSNE_SEED": 0, "stages": ["f"],
             "lines": {"f": {"target accuracy (fused, %)": 50.0}}}  # fmt: skip
    assert functions_of("embeddings", names)(30)["f: 50 % right"].xy.shape == (2 * videos, 2)

"""Models, losses, data and evaluation behind the notebooks of the video domain adaptation suite."""

__version__ = "0.1.0"

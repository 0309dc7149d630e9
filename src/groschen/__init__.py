"""groschen: one language model for training and serving, bit for bit the same in both."""

__version__ = "0.1.0"

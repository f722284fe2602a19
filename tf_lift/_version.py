"""The version, in one place that needs no other module."""

__version__ = "0.1.0"

"""Runs the principles of *Learning Deep Representations of Data Distributions*."""

from companion_lib import data, plotting, scale
from companion_lib.verify import verify

__all__ = ["data", "plotting", "scale", "verify"]
__version__ = "0.1.0"

"""Figures to move: live in Jupyter and Colab, and alive on a page without a kernel."""

from companion_lib.widgets.ista_unrolled import ISTAUnrolled
from companion_lib.widgets.rank_and_noise import RankAndNoise
from companion_lib.widgets.rotate_and_watch import RotateAndWatch

__all__ = ["ISTAUnrolled", "RankAndNoise", "RotateAndWatch"]

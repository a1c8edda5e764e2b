"""Figures to move: live in Jupyter and Colab, and alive on a page without a kernel."""

from companion_lib.widgets.blur_and_unblur import BlurAndUnblur
from companion_lib.widgets.cluster_by_cost import ClusterByCost
from companion_lib.widgets.coding_rate_playground import CodingRatePlayground
from companion_lib.widgets.edge_of_memorization import EdgeOfMemorization
from companion_lib.widgets.ista_unrolled import ISTAUnrolled
from companion_lib.widgets.rank_against_epsilon import RankAgainstEpsilon
from companion_lib.widgets.rank_and_noise import RankAndNoise
from companion_lib.widgets.rate_meter import RateMeter
from companion_lib.widgets.rotate_and_watch import RotateAndWatch
from companion_lib.widgets.sampler_race import SamplerRace
from companion_lib.widgets.training_recorder import TrainingRecorder, Trajectory
from companion_lib.widgets.watch_mcr2 import WatchMCR2

__all__ = [
    "BlurAndUnblur",
    "ClusterByCost",
    "CodingRatePlayground",
    "EdgeOfMemorization",
    "ISTAUnrolled",
    "RankAgainstEpsilon",
    "RankAndNoise",
    "RateMeter",
    "RotateAndWatch",
    "SamplerRace",
    "TrainingRecorder",
    "Trajectory",
    "WatchMCR2",
]

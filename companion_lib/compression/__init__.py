"""Chapter 4: representations that compress."""

from companion_lib.compression.classifier import NearestSubspaceClassifier
from companion_lib.compression.clustering import (
    CodingLengthClustering,
    cluster_by_coding_length,
    coding_length,
)
from companion_lib.compression.coding_rate import (
    class_coding_rates,
    coding_rate,
    mcr2_loss,
    rate_reduction,
)
from companion_lib.compression.covering import GreedyCover, covering_radius, greedy_cover
from companion_lib.compression.encoder import SphereEncoder, train
from companion_lib.compression.landscape import (
    RegularizedOptimum,
    best_rank,
    largest_weight,
    max_rate_reduction,
    optimal_representation,
    regularized_optimum,
    regularized_rate_reduction,
)
from companion_lib.compression.rate_distortion import (
    DiscreteRateDistortion,
    GaussianRateDistortion,
    blahut_arimoto,
    rate_distortion,
    rate_distortion_gaussian,
    shannon_lower_bound,
)

__all__ = [
    "CodingLengthClustering",
    "DiscreteRateDistortion",
    "GaussianRateDistortion",
    "GreedyCover",
    "NearestSubspaceClassifier",
    "RegularizedOptimum",
    "SphereEncoder",
    "best_rank",
    "blahut_arimoto",
    "class_coding_rates",
    "cluster_by_coding_length",
    "coding_length",
    "coding_rate",
    "covering_radius",
    "greedy_cover",
    "largest_weight",
    "max_rate_reduction",
    "mcr2_loss",
    "optimal_representation",
    "rate_distortion",
    "rate_distortion_gaussian",
    "rate_reduction",
    "regularized_optimum",
    "regularized_rate_reduction",
    "shannon_lower_bound",
    "train",
]

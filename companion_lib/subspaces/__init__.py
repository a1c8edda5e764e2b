"""Chapter 2: linear, independent and sparse structures."""

from .alignment import SignedPermutation, match_signed_permutation
from .completion import Completion, complete_matrix
from .dictionary_learning import DictionaryLearning, dictionary_learning
from .fast_ica import FastICA, fast_ica
from .kurtosis import kurtosis
from .lasso import SparseCode, fista, ista, lasso_gap, lasso_objective, lasso_residual
from .lista import LISTA
from .msp import MSP, msp, msp_step
from .online_pca import OnlinePCA
from .pca import PCA, pca
from .polar import polar
from .power import (
    OrthogonalIteration,
    PowerIteration,
    deflate,
    orthogonal_iteration,
    power_iteration,
)
from .probabilistic_pca import ProbabilisticPCA, probabilistic_pca, shrink
from .soft_threshold import soft_threshold
from .sparse_autoencoder import SparseAutoencoder
from .whitening import Whitening, whiten

__all__ = [
    "LISTA",
    "MSP",
    "PCA",
    "Completion",
    "DictionaryLearning",
    "FastICA",
    "OnlinePCA",
    "OrthogonalIteration",
    "PowerIteration",
    "ProbabilisticPCA",
    "SignedPermutation",
    "SparseAutoencoder",
    "SparseCode",
    "Whitening",
    "complete_matrix",
    "deflate",
    "dictionary_learning",
    "fast_ica",
    "fista",
    "ista",
    "kurtosis",
    "lasso_gap",
    "lasso_objective",
    "lasso_residual",
    "match_signed_permutation",
    "msp",
    "msp_step",
    "orthogonal_iteration",
    "pca",
    "polar",
    "power_iteration",
    "probabilistic_pca",
    "shrink",
    "soft_threshold",
    "whiten",
]

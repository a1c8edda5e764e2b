"""Chapter 2: linear, independent and sparse structures."""

from .alignment import SignedPermutation, match_signed_permutation
from .dictionary_learning import DictionaryLearning, dictionary_learning
from .fast_ica import FastICA, fast_ica
from .kurtosis import kurtosis
from .lasso import SparseCode, fista, ista, lasso_objective, lasso_residual
from .lista import LISTA
from .msp import MSP, msp, msp_step
from .polar import polar
from .soft_threshold import soft_threshold
from .sparse_autoencoder import SparseAutoencoder
from .whitening import Whitening, whiten

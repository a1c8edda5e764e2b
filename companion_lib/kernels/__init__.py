"""Operations worth making fast: each a formula, the best algebra for it, and where it pays Triton.

Every kernel has one contract and up to three forms. *reference* is the formula as the book writes
it, *fast* the same with fewer operations and less memory, *triton* one fused GPU program. Without
being told, a kernel takes Triton on CUDA where it has that form and the input fits, and *fast*
elsewhere. ``with kernels.use("reference"):`` forces a form. All forms carry gradients.
"""

from companion_lib.kernels.class_gram import class_gram
from companion_lib.kernels.dispatch import use
from companion_lib.kernels.log_det_gram import log_det_gram, log_det_psd
from companion_lib.kernels.softmax_mean import softmax_mean

__all__ = ["class_gram", "log_det_gram", "log_det_psd", "softmax_mean", "use"]

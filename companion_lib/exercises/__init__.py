"""The book's exercises, checked: write a function, hand it to ``check``, read one line.

Each check draws several inputs, edge cases among them, from a fixed seed and tests the properties
that the exercise proves. A wrong answer is told which property failed and on which input.

Example
-------
>>> from companion_lib import exercises
>>> def largest_eigenvectors(A, k):
...     ...  # your answer
>>> result = exercises.check("2.1a", largest_eigenvectors)
Exercise 2.1 (a): not answered yet
>>> result.passed
False
"""

from companion_lib.exercises import (  # noqa: F401  (importing a file registers its checks)
    ch02_kurtosis,
    ch02_linear,
    ch02_ours,
    ch02_sphere_and_group,
    ch03_denoising,
    ch03_gaussian,
    ch03_in_text,
    ch03_ours,
    ch04_log_det,
    ch04_ours,
    ch04_rate_distortion,
)
from companion_lib.exercises.grading import Result, check, names

__all__ = ["Result", "check", "names"]

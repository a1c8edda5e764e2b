"""State a claim, check it, print one line that never changes, and keep a record.

A claim that fails raises. One that holds prints a line without measured digits, so the same
notebook prints the same text everywhere, and ``parse_claims`` reads those lines back for the
site's list of claims.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from companion_lib.sections import section

LINE = re.compile(r"✓ (?P<text>.+?)(?:  \[(?P<note>[^\[\]]+)\])?")
NUMBER = re.compile(r"(\d+|[A-Z])(\.\d+)*")
SEPARATOR = " · "


class VerificationError(AssertionError):
    """A claim that does not hold."""


@dataclass(frozen=True)
class Claim:
    """A claim that held.

    ``section`` is the book's number, such as ``"2.1.1"``, and ``tolerance`` the printed
    criterion, such as ``"rtol 1e-10"`` or ``"below 0.05"``; either may be empty.
    """

    text: str
    section: str = ""
    tolerance: str = ""

    def __str__(self) -> str:
        note = SEPARATOR.join(part for part in (self.section, self.tolerance) if part)
        return f"✓ {self.text}" + (f"  [{note}]" if note else "")


def parse_claims(text: str) -> list[Claim]:
    """Read the claims back from printed output; other lines are skipped.

    Examples
    --------
    >>> parse_claims("✓ eigenvectors are orthonormal  [2.1.1 · atol 1e-12]")
    [Claim(text='eigenvectors are orthonormal', section='2.1.1', tolerance='atol 1e-12')]
    """
    return [_parse(match) for match in map(LINE.fullmatch, text.splitlines()) if match]


def _parse(match: re.Match) -> Claim:
    first, _, rest = (match["note"] or "").partition(SEPARATOR)
    if NUMBER.fullmatch(first):
        return Claim(match["text"], first, rest)
    return Claim(match["text"], "", match["note"] or "")


def verify(claim: str, lhs, rhs, *, rtol=None, atol=0.0, source: str | None = None) -> None:
    """Check that ``lhs`` equals ``rhs``, entry by entry.

    Holds if ``|lhs - rhs| <= atol + rtol * |rhs|`` everywhere, as in numpy. An entry of
    ``rhs`` that is exactly zero is therefore checked by ``atol`` alone. Computed in float64;
    integers with ``rtol=0`` and no ``atol`` are compared as integers.

    Parameters
    ----------
    claim : str
        What holds, on one line.
    lhs, rhs : Tensor, numpy.ndarray or number
        The two sides, of one shape; a single number is compared with every entry.
    rtol, atol : number or scalar Tensor
        Relative and absolute tolerance; with neither, ``rtol=1e-5``. With ``atol`` alone there is
        no relative slack. A plain number is printed with the claim. Pass one computed from data
        (say, five standard errors) as a tensor: its digits are not printed.
    source : str, optional
        Anchor of the book's section; see ``companion_lib.sections``.

    Raises
    ------
    VerificationError
        If any entry deviates too far or is NaN, the shapes differ, or there is nothing to
        compare. The message has the entry that deviates most among those that fail.
    ValueError
        If the claim is not one line, a tolerance is negative, or ``rtol`` is 1 or more.

    Examples
    --------
    >>> verify("the trace is the sum of the eigenvalues", 3.0, 3.0, rtol=1e-12, source="pca")
    ✓ the trace is the sum of the eigenvalues  [2.1.1 · rtol 1e-12]
    """
    if rtol is None:
        rtol = 0.0 if float(atol) else 1e-5
    record = _claim(claim, source, _tolerance(rtol, atol))
    rtol, atol = float(rtol), float(atol)
    if not (0 <= rtol < 1 and 0 <= atol < float("inf")):
        raise ValueError(f"rtol must be in [0, 1) and atol in [0, inf), got {rtol} and {atol}")
    lhs, rhs = _pair(claim, lhs, rhs, "lhs", "rhs")
    # isclose has the infinities right: equal ones agree, and inf is close to nothing else. With a
    # tolerance it compares integers in float32, so they become float64 first.
    sides = (lhs, rhs) if rtol == atol == 0 else (_as_float(lhs), _as_float(rhs))
    holds = torch.isclose(*sides, rtol=rtol, atol=atol)
    allowed = f"allowed is atol {atol} + rtol {rtol} times |rhs|"
    _settle(record, holds, (lhs - rhs).abs(), {"lhs": lhs, "rhs": rhs}, allowed)


def below(claim: str, value, bound, *, source: str | None = None) -> None:
    """Check that every entry of ``value`` is strictly below ``bound``.

    The bound is printed with the claim if it is a plain number; a tensor is taken for a
    measured one and its digits are not printed. See ``verify`` for the rest.
    """
    _compare(claim, value, bound, source, "below", torch.lt)


def above(claim: str, value, bound, *, source: str | None = None) -> None:
    """Check that every entry of ``value`` is strictly above ``bound``; see ``verify.below``."""
    _compare(claim, value, bound, source, "above", torch.gt)


def true(claim: str, condition, *, source: str | None = None) -> None:
    """Check that ``condition``, a bool or a tensor or array of them, is true throughout.

    Raises
    ------
    VerificationError
        If an entry is false, or there is none. The message has the index of the first.
    TypeError
        If the condition is not boolean: a number that happens to be nonzero proves nothing.
    """
    record = _claim(claim, source, "")
    condition = _tensor(condition, "condition")
    if condition.dtype != torch.bool:
        raise TypeError(f"condition must be boolean, got {condition.dtype}")
    _settle(record, condition, (~condition).double(), {"condition": condition}, "must be True")


verify.below, verify.above, verify.true = below, above, true
verify.claims = []  # every claim that held in this session, in order


def _compare(claim: str, value, bound, source: str | None, word: str, relation) -> None:
    record = _claim(claim, source, _named(word, bound))
    value, bound = _pair(claim, value, bound, "value", "bound")
    if value.is_complex() or bound.is_complex():
        raise TypeError("complex numbers have no order; compare their absolute values")
    values = {"value": value, "bound": bound}
    _settle(record, relation(value, bound), (value - bound).abs(), values, f"must be {word}")


def _claim(text: str, source: str | None, tolerance: str) -> Claim:
    """Make the claim's record; its printed line must read back as the same claim."""
    record = Claim(text, section(source).v2 if source is not None else "", tolerance)
    if text != " ".join(text.split()) or parse_claims(str(record)) != [record]:
        raise ValueError(f"a claim must be one line of text with single spaces, got {text!r}")
    return record


def _tolerance(rtol, atol) -> str:
    used = [(name, value) for name, value in (("rtol", rtol), ("atol", atol)) if float(value) != 0]
    return " + ".join(_named(name, value) for name, value in used) or "exact"


def _named(word: str, value) -> str:
    """Append a number to the word if its author wrote it: only those are the same everywhere."""
    if type(value) not in (int, float):
        return word
    return f"{word} {value!r}".replace("e-0", "e-")


def _tensor(value, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, list | tuple):  # entry by entry: the entries may be tensors
        return torch.stack([_tensor(entry, name) for entry in value]) if value else torch.empty(0)
    if isinstance(value, bool | int | float | complex | np.ndarray | np.generic):
        array = np.asarray(value)  # torch takes no strides below zero and no foreign byte order
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
    raise TypeError(f"{name} must be a tensor, an array or a number, got {type(value).__name__}")


def _pair(claim: str, left, right, left_name: str, right_name: str) -> tuple[Tensor, Tensor]:
    left, right = _tensor(left, left_name), _tensor(right, right_name)
    if left.shape != right.shape and left.ndim and right.ndim:
        shapes = f"{left_name} {tuple(left.shape)} and {right_name} {tuple(right.shape)}"
        raise VerificationError(f"not verified: {claim}\n  shapes differ: {shapes}")
    if all(_is_whole(side) for side in (left, right)):
        left, right = _as_integer(left, left_name), _as_integer(right, right_name)
    else:
        left, right = _as_float(left), _as_float(right)
    dtype = torch.promote_types(left.dtype, right.dtype)
    return torch.broadcast_tensors(left.to(dtype), right.to(dtype))


def _is_whole(value: Tensor) -> bool:
    """Tell whether the entries are integers or booleans, which float64 would round from 2^53 on."""
    return not (value.is_floating_point() or value.is_complex())


def _as_integer(value: Tensor, name: str) -> Tensor:
    whole = value.to(torch.int64)
    if value.dtype == torch.uint64 and (whole < 0).any():
        raise ValueError(f"{name} must fit in 64 bits with a sign, got uint64 beyond 2^63 - 1")
    return whole


def _as_float(value: Tensor) -> Tensor:
    """Return float64, or complex128 for complex numbers."""
    return value.to(torch.complex128 if value.is_complex() else torch.float64)


def _settle(record: Claim, holds: Tensor, deviation: Tensor, values: dict, criterion: str) -> None:
    """Print and record the claim if it holds everywhere, else raise with the worst entry."""
    if holds.numel() == 0:
        raise VerificationError(f"not verified: {record.text}\n  there is nothing to compare")
    if not holds.all():
        raise VerificationError(_failure(record, holds, deviation, values, criterion))
    print(record)
    verify.claims.append(record)


def _failure(record: Claim, holds: Tensor, deviation: Tensor, values: dict, criterion: str) -> str:
    """Describe the failing entry that deviates most; NaN is the worst of all."""
    deviation = deviation.nan_to_num(nan=float("inf")).masked_fill(holds, -1)
    index = tuple(int(i) for i in np.unravel_index(int(deviation.argmax()), holds.shape))
    found = ", ".join(f"{name} = {value[index].item()}" for name, value in values.items())
    gap = f"deviation {deviation[index].item():.3g}"
    if holds.ndim:
        failing = f"{int((~holds).sum())} of {holds.numel()} entries fail"
        gap = f"largest {gap} at index {index}; {failing}"
    return f"not verified: {record.text}\n  {found}; {criterion}\n  {gap}"

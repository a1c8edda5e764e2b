"""How an answer becomes one printed line: a registry of checks and the words they share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SEED = 2026
_CHECKS: dict[str, Callable[..., None]] = {}


class Unanswered(Exception):
    """The reader's function returned nothing: it is still the stub."""


class Wrong(Exception):
    """A property fails; the message names it and the input, never the solution."""


@dataclass(frozen=True)
class Result:
    """The outcome of one check.

    Attributes
    ----------
    exercise : str
        Name of the exercise, such as ``"2.1a"``.
    status : str
        ``"passed"``, ``"wrong"`` or ``"unanswered"``.
    reason : str
        For a wrong answer: the property that failed, and the input on which it did.
    """

    exercise: str
    status: str
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def __str__(self) -> str:
        title = _title(self.exercise)
        if self.status == "passed":
            return f"✓ {title}"
        if self.status == "unanswered":
            return f"{title}: not answered yet"
        return f"✗ {title}: {self.reason}"

    def __repr__(self) -> str:
        return f"<Exercise {self.exercise}: {self.status}>"

    def _ipython_display_(self) -> None:
        """Show nothing: ``check`` has printed the line when a cell ends with it."""


def _split(name: str) -> tuple[str, str, int, str]:
    """Return chapter, "E" for an exercise of our own, number and part: "2.E2a" is 2, E, 2, a."""
    chapter, ours, number, part = re.fullmatch(r"(\w+)\.(E?)(\d+)([a-z]?)", name).groups()
    return chapter, ours, int(number), part


def _title(name: str) -> str:
    chapter, ours, number, part = _split(name)
    return f"Exercise {chapter}.{ours}{number}" + (f" ({part})" if part else "")


def exercise(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register the function below as the check of exercise ``name``."""

    def register(test: Callable[..., None]) -> Callable[..., None]:
        _CHECKS[name] = test
        return test

    return register


def names() -> list[str]:
    """Return the names of all exercises that have a check; our own follow a chapter's."""
    return sorted(_CHECKS, key=_split)


def check(exercise: str, answer: Callable[..., Any]) -> Result:
    """Check an answer and print one line that says how it went.

    Parameters
    ----------
    exercise : str
        Name of the exercise and its part, such as ``"2.1a"``; ``names()`` lists them.
    answer : callable
        The function the exercise asks for. It gets copies of the inputs, so it may change them.

    Returns
    -------
    Result
        ``.passed`` is True for a right answer. A wrong answer does not raise: the line it prints
        says what fails and where. A function that returns None or ``...`` counts as unanswered.

    Raises
    ------
    ValueError
        If no exercise has this name.
    TypeError
        If ``answer`` is not a function.
    """
    if exercise not in _CHECKS:
        raise ValueError(f"exercise must be one of {', '.join(names())}, got {exercise!r}")
    if not callable(answer):
        raise TypeError(
            f"answer must be the function itself, without (), got {type(answer).__name__}"
        )
    result = _grade(exercise, answer)
    print(result)
    return result


def _grade(name: str, answer: Callable[..., Any]) -> Result:
    try:
        _CHECKS[name](answer)
    except Unanswered:
        return Result(name, "unanswered")
    except Wrong as wrong:
        return Result(name, "wrong", str(wrong))
    return Result(name, "passed")


def generator() -> torch.Generator:
    """Return a freshly seeded generator, so that every check draws the same inputs."""
    return torch.Generator().manual_seed(SEED)


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    """Return standard normal numbers in float64, the precision of all checks."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def ask(answer: Callable[..., Any], where: str, *inputs: Any) -> Any:
    """Return the reader's answer to copies of ``inputs``; ``where`` describes them in words."""
    copies = [value.clone() if isinstance(value, Tensor) else value for value in inputs]
    try:
        reply = answer(*copies)
    except Exception as error:
        raise Wrong(f"for {where}, your function raised {type(error).__name__}: {error}") from error
    parts = reply if isinstance(reply, tuple) else (reply,)
    if any(part is None or part is ... for part in parts):
        raise Unanswered
    return reply


def ask_tensor(
    answer: Callable[..., Any], where: str, *inputs: Any, shape: tuple[int, ...]
) -> Tensor:
    """Like ``ask``, for an answer that must be a float64 tensor of the given shape."""
    return as_tensor(ask(answer, where, *inputs), "your answer", where, shape)


def ask_tuple(answer: Callable[..., Any], where: str, *inputs: Any, length: int) -> tuple:
    """Like ``ask``, for an answer that must be a tuple of ``length`` parts."""
    reply = ask(answer, where, *inputs)
    if not isinstance(reply, tuple) or len(reply) != length:
        kind = f"{len(reply)} parts" if isinstance(reply, tuple) else type(reply).__name__
        raise Wrong(f"for {where}, your function must return {length} values, got {kind}")
    return reply


def ask_number(answer: Callable[..., Any], where: str, *inputs: Any) -> float:
    """Like ``ask``, for an answer that must be one finite real number."""
    return as_number(ask(answer, where, *inputs), "your answer", where)


def as_number(value: Any, what: str, where: str) -> float:
    """Return ``value`` as a float if it is one finite real number."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"for {where}, {what} must be a number, got {type(value).__name__}") from None
    need(math.isfinite(number), where, f"{what} must be finite, got {number}")
    return number


def as_tensor(value: Any, what: str, where: str, shape: tuple[int, ...]) -> Tensor:
    """Return ``value`` if it is a finite float64 tensor of ``shape``."""
    if not isinstance(value, Tensor):
        raise Wrong(f"for {where}, {what} must be a tensor, got {type(value).__name__}")
    if tuple(value.shape) != tuple(shape):
        raise Wrong(f"for {where}, {what} must have shape {tuple(shape)}, got {tuple(value.shape)}")
    if value.dtype != torch.float64:
        raise Wrong(f"for {where}, {what} must follow its input's float64, got {value.dtype}")
    need(bool(torch.isfinite(value).all()), where, f"{what} holds NaN or infinite numbers")
    return value.detach()


def need(holds: bool, where: str, failure: str) -> None:
    """Refuse the answer with ``failure`` unless the property holds."""
    if not holds:
        raise Wrong(f"for {where}, {failure}")


def need_equal(
    got: Tensor | float, want: Tensor | float, where: str, failure: str, tol: float = 1e-8
) -> None:
    """Refuse the answer unless ``got`` equals ``want`` up to ``tol`` times the size of ``want``."""
    want = torch.as_tensor(want, dtype=torch.float64)
    off = float((torch.as_tensor(got, dtype=torch.float64) - want).abs().max())
    allowed = tol * max(1.0, float(want.abs().max()))
    need(off <= allowed, where, f"{failure} (off by {off:.2g})")


def need_orthonormal_columns(U: Tensor, where: str, what: str) -> None:
    """Refuse the answer unless the columns of ``U`` are orthonormal."""
    eye = torch.eye(U.shape[1], dtype=U.dtype)
    need_equal(U.T @ U, eye, where, f"the columns of {what} are not orthonormal")


def second_derivative(curve: Callable[[Tensor], Tensor]) -> float:
    """Return the exact second derivative at t = 0 of a real function of one real variable."""
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(curve(t), t, create_graph=True)
    (bend,) = torch.autograd.grad(slope, t)
    return float(bend)

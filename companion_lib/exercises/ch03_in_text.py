"""Chapter 3, exercises that the text leaves to the reader: two points, total variation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from companion_lib.exercises.ch03_mistakes import need_value
from companion_lib.exercises.grading import (
    Wrong,
    as_number,
    as_tensor,
    ask_tensor,
    ask_tuple,
    exercise,
    generator,
    need,
    normal,
)


@exercise("3.E1")
def two_point_denoiser(answer: Callable) -> None:
    x_t = torch.tensor([2.0, -2.0, 0.0, 0.3, -0.01, 1.0, -1.0, 7.0], dtype=torch.float64)
    for p in (0.5, 0.9, 0.1):
        for t in (1.0, 0.5, 3.0, 0.01):
            where = f"P(x = 1) = {p:g} and t = {t:g}"
            got = ask_tensor(answer, where, x_t, t, p, shape=(len(x_t),))
            odds = math.log(p / (1 - p))
            want = (x_t / t**2 + odds / 2).tanh()
            mistakes = {
                "wrong sign: for x_t = 2 the mean is near the point 1, yours is near −1": (
                    (-x_t / t**2 + odds / 2).tanh()
                ),
                "t is a standard deviation; the noise has variance t²": (x_t / t + odds / 2).tanh(),
                "the two points are not equally likely": (x_t / t**2).tanh(),
                "this prefers the less likely point": (x_t / t**2 - odds / 2).tanh(),
                "the log-odds of the two points count twice": (x_t / t**2 + odds).tanh(),
                "this is P(x = 1 | x_t), not the mean": (1 + want) / 2,
            }
            need_value(got, want, where, "this is not E[x | x_t]", mistakes)


def _pairs_of_laws() -> Iterator[tuple[str, Tensor, Tensor]]:
    rng = generator()
    for m in (2, 3, 5, 10):
        p, q = normal(2, m, generator=rng).softmax(1)
        yield f"two laws on {m} outcomes", p, q
    yield "a law and itself", p, p.clone()
    eye = torch.eye(4, dtype=torch.float64)
    yield "two different certain outcomes", eye[0], eye[2]
    yield "laws on disjoint sets", (eye[0] + eye[1]) / 2, (eye[2] + eye[3]) / 2
    yield "a law with zeros", (eye[0] + eye[1]) / 2, p[:4] / p[:4].sum()
    yield "one outcome", eye[0, :1], eye[0, :1]


@exercise("3.E2a")
def total_variation(answer: Callable) -> None:
    for where, p, q in _pairs_of_laws():
        number, event = ask_tuple(answer, where, p, q, length=2)
        number = as_number(number, "the distance", where)
        valid = isinstance(event, Tensor) and event.dtype == torch.bool and event.shape == p.shape
        if not valid:
            raise Wrong(f"for {where}, the event must be a boolean tensor of shape {(len(p),)}")
        events = torch.tensor(list(product([0.0, 1.0], repeat=len(p))), dtype=torch.float64)
        want = float((events @ (p - q)).abs().max())
        mistakes = {
            "twice the distance: |P − Q| counts what is lost here and again where it went": 2
            * want,
            "a single outcome is not the worst event": float((p - q).abs().max()),
        }
        failure = f"some event has probabilities that differ by {want:.4f}, and none by more"
        need_value(number, want, where, failure, mistakes)
        reached = abs(float((p - q)[event].sum()))
        failure = f"the probabilities of your event differ by {reached:.4f}, not by {want:.4f}"
        need_value(reached, want, where, failure)


def _divergence(p: Tensor, q: Tensor) -> float:
    return float(torch.special.xlogy(p, p / q).sum())


@exercise("3.E2b")
def laws_that_need_a_detour(answer: Callable) -> None:
    where = "your three laws"
    reply = ask_tuple(answer, where, length=3)
    shape = tuple(reply[0].shape) if isinstance(reply[0], Tensor) else ()
    need(len(shape) == 1 and shape[0] > 0, where, "each must be a tensor of shape (m,)")
    laws = [as_tensor(law, "each", where, shape) for law in reply]
    for name, law in zip("PQR", laws, strict=True):
        need(bool((law > 0).all()), where, f"{name} has a probability that is not positive")
        total = float(law.sum())
        need(abs(total - 1) < 1e-9, where, f"the probabilities of {name} sum to {total:.4f}")
    P, Q, R = laws
    direct, detour = _divergence(P, R), _divergence(P, Q) + _divergence(Q, R)
    failure = f"KL(P‖R) = {direct:.4f} is not more than KL(P‖Q) + KL(Q‖R) = {detour:.4f}"
    need(direct > detour + 1e-6, where, failure)

"""Chapter 3, exercises 4 and 5: Tweedie, DDIM and mixtures for every process; a sampler."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.exercises.ch03_mistakes import need_value
from companion_lib.exercises.grading import (
    as_tensor,
    ask_tensor,
    ask_tuple,
    exercise,
    generator,
    need,
    normal,
)


@dataclass(frozen=True)
class _Mixture:
    """A Gaussian mixture with weights (K,), means (K, d) and covariances (K, d, d)."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def _parts(self, x_t: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        """Return the log joint densities (n, K) and the means (n, K, d) of each component."""
        values, vectors = torch.linalg.eigh(self.covariances)
        values = values.clamp(min=0)
        spectrum = alpha**2 * values + sigma**2
        apart = torch.einsum("nkd,kde->nke", x_t[:, None] - alpha * self.means, vectors)
        logs = self.weights.log() - ((apart.square() / spectrum) + spectrum.log()).sum(2) / 2
        moved = torch.einsum("nke,kde->nkd", alpha * values / spectrum * apart, vectors)
        return logs, self.means + moved

    def log_prob(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """Return the log density (n,) of the noised law, up to a constant."""
        return self._parts(x_t, alpha, sigma)[0].logsumexp(1)

    def denoise(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        logs, means = self._parts(x_t, alpha, sigma)
        return (logs.softmax(1)[:, :, None] * means).sum(1)


def _tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _variances(weights: list, means: list, variances: list) -> _Mixture:
    """Return a mixture in one dimension."""
    return _Mixture(_tensor(weights), _tensor(means)[:, None], _tensor(variances)[:, None, None])


def _random_mixture(K: int, d: int, r: int, rng: torch.Generator) -> _Mixture:
    """Return a mixture of K components of rank r with unequal weights and sizes."""
    factors = normal(K, d, r, generator=rng) * torch.linspace(0.3, 2, K)[:, None, None].double()
    covariances = factors @ factors.mT
    weights = normal(K, generator=rng).softmax(0)
    return _Mixture(weights, 2 * normal(K, d, generator=rng), covariances)


def _mixtures() -> Iterator[tuple[str, _Mixture]]:
    rng = generator()
    yield "two Gaussians on a line", _variances([0.3, 0.7], [-1.5, 1.0], [0.05, 0.2])
    yield "one Gaussian in the plane", _random_mixture(1, 2, 2, rng)
    yield "four Gaussians of full rank in R^3", _random_mixture(4, 3, 3, rng)
    yield "three Gaussians of rank 2 in R^5", _random_mixture(3, 5, 2, rng)
    yield "the points −1 and 1", _variances([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0])
    yield "a wide and a narrow Gaussian at 0", _variances([0.5, 0.5], [0.0, 0.0], [4.0, 0.01])


# α and σ of variance exploding, variance preserving and flow matching, at low and high noise.
_LEVELS = [(1.0, 0.3), (1.0, 2.0), (0.8, 0.6), (0.6, 0.8), (0.7, 0.3), (0.05, 0.95), (0.995, 0.1)]


def _noised(mixture: _Mixture, alpha: float, sigma: float, rng: torch.Generator) -> Tensor:
    """Return eight points that the noised law may produce."""
    K, d = mixture.means.shape
    means = mixture.means[torch.randint(K, (8,), generator=rng)]
    return alpha * means + (alpha + sigma) * normal(8, d, generator=rng)


def _score(mixture: _Mixture, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
    """Return the gradient of the log density."""
    x_t = x_t.clone().requires_grad_()
    return torch.autograd.grad(mixture.log_prob(x_t, alpha, sigma).sum(), x_t)[0]


@exercise("3.4a")
def tweedie(answer: Callable) -> None:
    rng = generator()
    for name, mixture in _mixtures():
        for alpha, sigma in _LEVELS:
            where = f"{name}, α = {alpha:g} and σ = {sigma:g}"
            x_t = _noised(mixture, alpha, sigma, rng)
            score = _score(mixture, x_t, alpha, sigma)
            reply = ask_tuple(answer, where, x_t, score, alpha, sigma, length=2)
            clean = as_tensor(reply[0], "E[x | x_t]", where, tuple(x_t.shape))
            noise = as_tensor(reply[1], "E[g | x_t]", where, tuple(x_t.shape))
            mistakes = {
                "this is E[α x | x_t]; what is asked for is E[x | x_t]": x_t + sigma**2 * score,
                "σ is a standard deviation; the noise has variance σ²": (
                    (x_t + sigma * score) / alpha
                ),
                "the step goes down the log density, not up": (x_t - sigma**2 * score) / alpha,
                "only one of the two terms is divided by α": x_t + sigma**2 * score / alpha,
            }
            want = mixture.denoise(x_t, alpha, sigma)
            failure = "your first tensor is not the mean of x given x_t"
            need_value(clean, want, where, failure, mistakes)
            want = (x_t - alpha * want) / sigma
            mistakes = {
                "your second tensor has the wrong sign; noise points away from the data": -want,
                "this is E[σ g | x_t]; what is asked for is E[g | x_t]": sigma * want,
            }
            failure = "x_t is not α E[x | x_t] + σ E[g | x_t]"
            need_value(noise, want, where, failure, mistakes)


# (α_t, σ_t) and (α_s, σ_s), s < t: three processes, the first and the last step, no step at all.
_STEPS = [
    ((1.0, 2.0), (1.0, 1.5)),
    ((1.0, 2.0), (1.0, 0.0)),
    ((0.6, 0.8), (0.8, 0.6)),
    ((0.0, 1.0), (0.28, 0.96)),
    ((0.0, 1.0), (1.0, 0.0)),
    ((0.3, 0.7), (0.5, 0.5)),
    ((0.3, 0.7), (0.3, 0.7)),
    ((0.8, 0.6), (1.0, 0.0)),
]


@exercise("3.4b")
def ddim_step(answer: Callable) -> None:
    rng = generator()
    for (alpha_t, sigma_t), (alpha_s, sigma_s) in _STEPS:
        where = f"α_t = {alpha_t:g}, σ_t = {sigma_t:g}, α_s = {alpha_s:g}, σ_s = {sigma_s:g}"
        clean, noise = normal(5, 3, generator=rng), normal(5, 3, generator=rng)
        x_t = alpha_t * clean + sigma_t * noise
        inputs = (x_t, clean, alpha_t, sigma_t, alpha_s, sigma_s)
        got = ask_tensor(answer, where, *inputs, shape=(5, 3))
        ratio = sigma_s / sigma_t
        mistakes = {
            "your step fits α = 1 only": ratio * x_t + (1 - ratio) * clean,
            "your step draws or keeps no noise": alpha_s * clean,
            "your noise keeps its size σ_t": alpha_s * clean + sigma_t * noise,
        }
        failure = "if x_t = α_t x + σ_t g with a known x, the step must arrive at α_s x + σ_s g"
        need_value(got, alpha_s * clean + sigma_s * noise, where, failure, mistakes)


@exercise("3.4c")
def mixture_denoiser(answer: Callable) -> None:
    rng = generator()
    for name, mixture in _mixtures():
        inputs = (mixture.weights, mixture.means, mixture.covariances)
        for alpha, sigma in [*_LEVELS, (0.0, 1.0), (1.0, 0.01)]:
            where = f"{name}, α = {alpha:g} and σ = {sigma:g}"
            x_t = _noised(mixture, alpha, sigma, rng)
            got = ask_tensor(answer, where, x_t, *inputs, alpha, sigma, shape=tuple(x_t.shape))
            _need_denoised(got, mixture, x_t, alpha, sigma, where)


def _need_denoised(
    got: Tensor, mixture: _Mixture, x_t: Tensor, alpha: float, sigma: float, where: str
) -> None:
    logs, means = mixture._parts(x_t, alpha, sigma)
    even = _Mixture(torch.ones_like(mixture.weights), mixture.means, mixture.covariances)
    spectra = alpha**2 * torch.linalg.eigvalsh(mixture.covariances).clamp(min=0) + sigma**2
    no_volume = logs + spectra.log().sum(1) / 2
    nearest = logs.argmax(1)
    mistakes = {
        "this is the mean of α x; divide by α": alpha * mixture.denoise(x_t, alpha, sigma),
        "the noise has variance σ², not σ": mixture.denoise(x_t, alpha, sigma**0.5),
        "the components' weights are missing": even.denoise(x_t, alpha, sigma),
        "the components' densities lack their determinants": (
            (no_volume.softmax(1)[:, :, None] * means).sum(1)
        ),
        "only the most likely component counts; all must, with their probabilities": (
            means[torch.arange(len(x_t)), nearest]
        ),
        "the components are weighted as if x_t told nothing about them": (
            (mixture.weights[:, None] * means).sum(1)
        ),
    }
    failure = "this is not the mean of x given x_t"
    need_value(got, mixture.denoise(x_t, alpha, sigma), where, failure, mistakes, tol=1e-7)


@dataclass(frozen=True)
class _Process:
    """A noising process and a grid of falling times for it."""

    name: str
    alpha: Callable[[float | Tensor], float | Tensor]
    sigma: Callable[[float | Tensor], float | Tensor]
    times: Tensor


def _processes(steps: int) -> Iterator[_Process]:
    falling = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    angles = (math.pi / 2 * falling).sin()
    growing = 20 * torch.expm1(6 * falling) / math.expm1(6)
    yield _Process("variance exploding", lambda t: 0 * t + 1, lambda t: t, growing)
    yield _Process("variance preserving", lambda t: (1 - t * t) ** 0.5, lambda t: t, angles)
    yield _Process("flow matching", lambda t: 1 - t, lambda t: t, falling)


class _Denoiser:
    """The best denoiser of a mixture under a process; it remembers what it was asked."""

    def __init__(self, mixture: _Mixture, process: _Process) -> None:
        self._mixture, self._process = mixture, process
        self.asked: list[tuple[Tensor, float]] = []

    def __call__(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        times = torch.as_tensor(t, dtype=torch.float64).unique()
        if len(times) != 1:
            raise ValueError(f"the denoiser takes one time, got {len(times)}")
        t = float(times)
        if not 0 <= t <= float(self._process.times[0]):
            limit = float(self._process.times[0])
            raise ValueError(f"the denoiser knows times from 0 to {limit:g}, got {t:g}")
        self.asked.append((x_t, t))
        alpha, sigma = float(self._process.alpha(t)), float(self._process.sigma(t))
        return x_t / alpha if sigma == 0 else self._mixture.denoise(x_t, alpha, sigma)


def _sampler_error(outputs: Tensor, z: Tensor, mixture: _Mixture) -> float:
    """Return the total variation to the mixture of the law that moves each z to its output.

    Both laws are compared on the intervals between neighboring outputs, whose probabilities are
    known exactly: those of normal noise between the z, and those of the mixture.
    """
    spread = mixture.covariances[:, 0, 0].sqrt()
    cdf = (mixture.weights * torch.special.ndtr((outputs - mixture.means[:, 0]) / spread)).sum(1)
    edges = torch.cat([torch.zeros(1), cdf, torch.ones(1)])
    moved = torch.cat([torch.zeros(1), torch.special.ndtr(z), torch.ones(1)])
    return float((edges.diff() - moved.diff()).abs().sum() / 2)


@exercise("3.5a")
def sampler(answer: Callable) -> None:
    _samples_of_a_point(answer)
    _samples_in_one_dimension(answer)
    _samples_in_many_dimensions(answer)


def _ask_sampler(
    answer: Callable, where: str, process: _Process, mixture: _Mixture, noise: Tensor
) -> Tensor:
    denoise = _Denoiser(mixture, process)
    inputs = (denoise, process.alpha, process.sigma, process.times, noise)
    return ask_tensor(answer, where, *inputs, shape=tuple(noise.shape))


def _samples_of_a_point(answer: Callable) -> None:
    """One step from pure noise is exact if there is one point only, on every grid."""
    noise = normal(4, 3, generator=generator())
    point = _Mixture(_tensor([1.0]), _tensor([[2.0, -1.0, 0.5]]), torch.zeros(1, 3, 3).double())
    for steps in (1, 7):
        for process in _processes(steps):
            where = f"{process.name}, {steps} step{'s' * (steps > 1)} and a law on one point"
            start = float(process.sigma(process.times[0])) * noise
            got = _ask_sampler(answer, where, process, point, start)
            need_value(got, point.means.expand(4, 3), where, "your samples are not that point")


def _samples_in_one_dimension(answer: Callable) -> None:
    mixture = _variances([0.3, 0.7], [-1.5, 1.0], [0.05, 0.2])
    z = torch.linspace(-5, 5, 2001, dtype=torch.float64)[:, None]
    for steps, most in ((64, 0.03), (256, 0.012)):
        for process in _processes(steps):
            where = f"{process.name}, {steps} steps and two Gaussians on a line"
            start = float(process.sigma(process.times[0])) * z
            got = _ask_sampler(answer, where, process, mixture, start)
            error = _sampler_error(got, z[:, 0], mixture)
            failure = (
                f"the law of your samples has total variation {error:.3f} to the true one; "
                f"DDIM stays below {most}"
            )
            need(error < most, where, failure)


def _samples_in_many_dimensions(answer: Callable) -> None:
    """The samples of a Gaussian are known: its mean plus the square root of Σ times the noise."""
    rng = generator()
    variances = torch.cat([torch.linspace(4, 0.1, 20), torch.zeros(30)]).double()
    mixture = _Mixture(_tensor([1.0]), normal(1, 50, generator=rng), variances.diag()[None])
    noise = normal(6, 50, generator=rng)
    for process in _processes(128):
        where = f"{process.name}, 128 steps and a Gaussian of rank 20 in R^50"
        start = float(process.sigma(process.times[0])) * noise
        got = _ask_sampler(answer, where, process, mixture, start) - mixture.means
        off = float(got[:, 20:].abs().max())
        need(off < 1e-6, where, f"your samples miss the data's subspace by {off:.2g}")
        ratio = float(got.norm() / (variances.sqrt() * noise).norm())
        failure = f"your samples spread {ratio:.3f} times as far from the mean as they should"
        need(abs(ratio - 1) < 0.03, where, failure)


@exercise("3.5b")
def flow_denoiser(answer: Callable) -> None:
    rng = generator()
    _, preserving, _ = _processes(1)
    for name, mixture in _mixtures():
        for t in (0.001, 0.1, 0.3, 0.5, 0.9, 1.0):
            where = f"{name} and t = {t:g}"
            x_t = _noised(mixture, 1 - t, t, rng)
            denoise = _Denoiser(mixture, preserving)
            got = ask_tensor(answer, where, denoise, x_t, t, shape=tuple(x_t.shape))
            _need_right_question(denoise, x_t, t, where)
            failure = "your denoiser is not E[x | x_t] for flow matching"
            need_value(got, mixture.denoise(x_t, 1 - t, t), where, failure, tol=1e-6)


def _need_right_question(denoise: _Denoiser, x_t: Tensor, t: float, where: str) -> None:
    """Refuse an answer that asks the variance-preserving denoiser about another noise level."""
    need(len(denoise.asked) == 1, where, "your function must call denoise once")
    x_u, u = denoise.asked[0]
    length = math.hypot(1 - t, t)
    ratio = math.sqrt(1 - u * u) / u if u > 0 else math.inf
    failure = (
        f"at time {u:.4g} the variance-preserving process has α/σ = {ratio:.4g}, "
        f"but x_t has {(1 - t) / t:.4g}"
    )
    need(abs(u - t / length) < 1e-6 * u, where, failure)
    failure = (
        "you ask for the right time, but with an input of another scale: there α² + σ² = 1, "
        f"in x_t it is {length**2:.4g}"
    )
    x_u = as_tensor(x_u, "what you hand to denoise", where, tuple(x_t.shape))
    need_value(x_u, x_t / length, where, failure, tol=1e-6)

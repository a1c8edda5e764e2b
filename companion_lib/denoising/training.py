"""Training one network to denoise at all noise levels."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from companion_lib.denoising.processes import Process
from companion_lib.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from companion_lib.validation import (
    check_count,
    check_positive,
    check_range,
    check_tensor,
    draw_normal,
    working,
)

TARGETS = ("x", "noise")
# Signal to noise 1000 to 1 and 1 to 1000, in amplitude; beyond, there is nothing to learn.
LOG_SNR_LIMIT = 2 * math.log(1000)


@dataclass(frozen=True, eq=False, repr=False)
class TrainedDenoiser:
    """A trained denoiser and the history of its training.

    Attributes
    ----------
    model : nn.Module
        The module that was passed in, with the weights of the last step.
    ema : nn.Module
        A copy with the moving average of the weights; the better denoiser as a rule.
    losses : Tensor, shape (steps,)
        Loss of each step's batch.
    """

    model: nn.Module
    ema: nn.Module
    losses: Tensor

    def __repr__(self) -> str:
        return f"TrainedDenoiser({type(self.model).__name__}, steps={len(self.losses)})"


def denoising_loss(
    denoise: Callable[[Tensor, Tensor], Tensor],
    process: Process,
    X: Tensor,
    t: float | Tensor,
    noise: Tensor,
    target: str = "x",
) -> Tensor:
    """Return the squared error of a denoiser on each sample.

    With ``x_t = alpha x + sigma g`` and the estimate ``D(x_t, t)`` of ``x``, this is
    ``|x - D|^2``, or for the noise ``|g - (x_t - alpha D) / sigma|^2``: the same times
    ``alpha^2 / sigma^2``.

    Parameters
    ----------
    denoise : callable
        ``denoise(x_t, t)`` estimates ``x``.
    process
        Noising process, for ``alpha(t)`` and ``sigma(t)``.
    X : Tensor, shape (n, ...)
        Clean samples.
    t : float or Tensor, shape () or (n,)
        Time of all samples, or of each; with the noise as target, ``sigma(t)`` must not be zero.
    noise : Tensor, shape (n, ...)
        Standard normal noise ``g``.
    target : {"x", "noise"}
        What the error is measured on. The denoiser returns ``x`` either way.

    Returns
    -------
    Tensor, shape (n,)
        Squared lengths, summed over all entries of a sample.

    Notes
    -----
    The book's text has the two related by ``alpha / sigma``, its equation by the square of it.
    Book: section ``sampling-via-denoising``.
    """
    _check_target(target)
    if target == "noise" and bool(torch.as_tensor(process.sigma(t) == 0).any()):
        raise ValueError("t must be where sigma is positive if the target is the noise")
    x_t = process.add_noise(X, t, noise)
    errors = (X - denoise(x_t, t)).flatten(1).square().sum(1)
    return errors if target == "x" else noise_weight(process, t) * errors


def noise_weight(process: Process, t: float | Tensor) -> float | Tensor:
    """Return ``alpha^2 / sigma^2``, which turns an error of ``x`` into the error of the noise."""
    return (process.alpha(t) / process.sigma(t)) ** 2


def uniform_angles(process: Process) -> Callable[[Tensor], Tensor]:
    """Return the quantile function of times at which ``arctan(sigma / alpha)`` is uniform.

    It maps ``u`` in (0, 1) to times of rising noise. For the variance-preserving process these are
    ``t = sin(theta)`` with uniform ``theta``. The angles span the process, as far as its signal
    and noise are no more than 1000 to 1 apart.

    Notes
    -----
    Book: section ``sampling-via-denoising``.
    """
    ends = [process.log_snr(t) for t in (process.t_noise, process.t_data)]
    least, most = (min(max(end, -LOG_SNR_LIMIT), LOG_SNR_LIMIT) for end in ends)
    low, high = (math.atan(math.exp(-end / 2)) for end in (most, least))

    def times(u: Tensor) -> Tensor:
        log_snr = -2 * torch.log(torch.tan(low + (high - low) * u))
        return process.time(log_snr.clamp(least, most))  # rounding may lead beyond

    return times


def stratified(n: int, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one number in each of ``n`` equal parts of (0, 1), in rising order, shape ``(n,)``.

    They are as uniform as independent ones, and their averages vary less. Dtype and device are
    those of ``like``.
    """
    device = like.device if generator is None else generator.device
    offsets = torch.rand(n, generator=generator, dtype=like.dtype, device=device)
    return (torch.arange(n, device=device) + offsets).to(like.device) / n


def train_denoiser(
    model: nn.Module,
    X: Tensor,
    process: Process,
    steps: int,
    batch: int = 128,
    lr: float = 1e-3,
    target: str = "x",
    weight: Callable[[Tensor], Tensor] | None = None,
    times: Callable[[Tensor], Tensor] | None = None,
    ema: float = 0.999,
    antithetic: bool = True,
    generator: torch.Generator | None = None,
    checkpoint: str | Path | None = None,
    every: int = 1000,
    progress: bool = False,
) -> TrainedDenoiser:
    """Train a network to denoise at all noise levels, by Adam on the mean ``denoising_loss``.

    The minimizer over all functions is the conditional mean ``E[x | x_t]`` under the law of the
    rows of ``X``, whatever the target and the weight: those say which noise levels a network of
    limited size should spend its effort on.

    Parameters
    ----------
    model : nn.Module
        Denoiser ``model(x_t, t)``; it is trained in place.
    X : Tensor, shape (n, ...)
        Clean samples. They may stay on the CPU while the model is on a GPU.
    process
        Noising process.
    steps : int
        Number of batches, those of an earlier run in ``checkpoint`` included.
    batch : int
        Noised samples a step; even if ``antithetic``. Clean samples are drawn with replacement.
    lr : float
        Learning rate.
    target : {"x", "noise"}
        What the error is measured on.
    weight : callable, optional
        ``weight(t)`` multiplies the loss at times ``t`` ``(b,)``.
    times : callable, optional
        ``times(u)`` is the quantile function of the training times; ``u`` has one uniform number
        in each of equal parts of (0, 1). By default ``uniform_angles(process)``.
    ema : float
        Decay of the moving average of the weights: ``average += (1 - decay) (weights - average)``
        after each step. Early on, after ``k`` steps, it is ``(1 + k) / (10 + k)`` if that is less,
        so the average soon forgets the weights it started from.
    antithetic : bool
        Use each clean sample twice in a batch, with noise ``g`` and ``-g``: the part of the
        gradient that is odd in the noise cancels. At equal cost this cuts the variance of the
        gradient to a third or a half with the noise as target; with ``x`` as target, where fewer
        different samples weigh as much, it changes little.
    generator : torch.Generator, optional
        Draws samples, times and noise.
    checkpoint : str or Path, optional
        File for the state of the run. If it is there, training goes on from it, and ends with the
        same weights, bit for bit, as if it had never stopped.
    every : int
        Steps between checkpoints; there is one at the end, too.
    progress : bool
        Show a progress bar.

    Returns
    -------
    TrainedDenoiser

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or the model was built for another process.
    CheckpointError
        If the checkpoint is damaged, or of another run: another model, data, or setting. Neither
        it nor the model is changed.
    FloatingPointError
        If the loss is no longer finite. The last good checkpoint stays.

    Notes
    -----
    Book: section ``sampling-via-denoising``.
    """
    _check_settings(model, X, process, batch, target, ema, antithetic)
    check_count(steps, "steps")
    check_count(every, "every")
    check_positive(lr, "lr")
    times = times or uniform_angles(process)
    generator = generator or torch.default_generator
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    losses = working(X).new_zeros(steps, device=_device(model))
    modules = {"model": model, "ema": average, "optimizer": optimizer}
    start = 0
    if checkpoint is not None:
        run = {
            "model": _model_name(model), "process": str(process), "data": _data_name(X),
            "batch": batch, "lr": lr, "target": target, "ema": ema, "antithetic": antithetic,
            "weight": _values(weight, times), "times": _values(times),
        }  # fmt: skip
        if Path(checkpoint).exists():
            start = _resume(checkpoint, run, modules, losses, generator)

    for step in tqdm(
        range(start, steps), desc="steps", initial=start, total=steps, disable=not progress
    ):
        x, t, noise = _draw_batch(X, times, batch, antithetic, generator, losses)
        errors = denoising_loss(model, process, x, t, noise, target)
        loss = (errors if weight is None else weight(t) * errors).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _update_average(average, model, min(ema, (1 + step) / (10 + step)))
        losses[step] = loss.detach()
        done = step + 1
        if done % every == 0 or done == steps:
            _check_losses(losses[:done])
            if checkpoint is not None:
                _save(checkpoint, run, modules, losses[:done], generator)
    return TrainedDenoiser(model, average, losses)


def _draw_batch(
    X: Tensor,
    times: Callable[[Tensor], Tensor],
    batch: int,
    antithetic: bool,
    generator: torch.Generator,
    like: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw clean samples, times and noise for one step, on the device of ``like``."""
    n = batch // 2 if antithetic else batch
    rows = torch.randint(len(X), (n,), generator=generator, device=generator.device)
    x = X[rows.to(X.device)].to(like)
    t = times(stratified(n, like, generator))
    noise = draw_normal(x.shape, x, generator)
    if not antithetic:
        return x, t, noise
    return torch.cat([x, x]), torch.cat([t, t]), torch.cat([noise, -noise])


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for old, new in zip(average.parameters(), model.parameters(), strict=True):
        old.lerp_(new, 1 - decay)
    for old, new in zip(average.buffers(), model.buffers(), strict=True):
        old.copy_(new)


def _save(
    path: str | Path,
    run: dict[str, Any],
    modules: dict[str, Any],
    losses: Tensor,
    generator: torch.Generator,
) -> None:
    state = {name: module.state_dict() for name, module in modules.items()}
    save_checkpoint(path, {**state, "losses": losses, "generator": generator.get_state()}, run)


def _resume(
    path: str | Path,
    run: dict[str, Any],
    modules: dict[str, Any],
    losses: Tensor,
    generator: torch.Generator,
) -> int:
    """Bring back the state of a run, and return the number of steps that are done."""
    state = load_checkpoint(path, run)
    done = len(state["losses"])
    if done > len(losses):
        raise CheckpointError(
            f"{path} is already {done} steps along, past the {len(losses)} asked for; it was left "
            "as it is"
        )
    for name, module in modules.items():
        module.load_state_dict(state[name])
    losses[:done] = state["losses"]
    generator.set_state(state["generator"])
    return done


def _check_settings(
    model: nn.Module,
    X: Tensor,
    process: Process,
    batch: int,
    target: str,
    ema: float,
    antithetic: bool,
) -> None:
    if not isinstance(model, nn.Module) or not any(p.requires_grad for p in model.parameters()):
        raise TypeError(f"model must be a module with weights to train, got {model!r}")
    if getattr(model, "process", process) != process:
        raise ValueError(f"model was built for {model.process}, but process is {process}")
    check_tensor(X, "X")
    if X.ndim < 2:
        raise ValueError(f"X must hold samples as rows, got shape {tuple(X.shape)}")
    if check_count(batch, "batch") % 2 and antithetic:
        raise ValueError(f"batch must be even, for noise in pairs, got {batch}")
    _check_target(target)
    check_range(ema, "ema", 0, 1)


def _check_target(target: str) -> None:
    if target not in TARGETS:
        raise ValueError(f"target must be one of {TARGETS}, got {target!r}")


def _check_losses(losses: Tensor) -> None:
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        raise FloatingPointError(
            f"the loss is not finite from step {bad[0].item() + 1} on; try a lower lr"
        )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _model_name(model: nn.Module) -> str:
    """Return the kind of a model and a digest of all that is printed of it and of its shapes."""
    shapes = [
        (name, tuple(value.shape), str(value.dtype)) for name, value in model.state_dict().items()
    ]
    digest = hashlib.sha256(f"{model} {shapes}".encode()).hexdigest()[:8]
    weights = sum(parameter.numel() for parameter in model.parameters())
    return f"{type(model).__name__} with {weights} weights ({digest})"


def _data_name(X: Tensor) -> str:
    content = X.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{tuple(X.shape)} {X.dtype} ({hashlib.sha256(content).hexdigest()[:8]})"


def _values(
    function: Callable[[Tensor], Tensor] | None,
    of: Callable[[Tensor], Tensor] = lambda u: u,
) -> list[float] | None:
    """Return what a function gives at some points: functions have no names to compare."""
    if function is None:
        return None
    return function(of(torch.linspace(0.1, 0.9, 5))).tolist()

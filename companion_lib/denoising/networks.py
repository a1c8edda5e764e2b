"""Networks that denoise at every noise level: a perceptron for vectors, a U-Net for images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

from companion_lib.denoising.processes import Process, per_row
from companion_lib.validation import check_count, check_positive, check_tensor, working

FREQUENCIES = 16


def preconditioning(
    alpha: Tensor, sigma: Tensor, sigma_data: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the coefficients that leave a network the same task at every noise level.

    A denoiser ``D`` is built around a network ``F`` as

        D(x_t) = c_skip x_t + c_out F(c_in x_t),

    where, for data of mean zero and variance ``sigma_data^2`` and ``v = alpha^2 sigma_data^2 +
    sigma^2`` the variance of ``x_t``,

        c_skip = alpha sigma_data^2 / v,   c_out = sigma sigma_data / sqrt(v),   c_in = 1 / sqrt(v).

    Then ``F`` sees inputs of variance one and has targets of variance one, and ``F = 0`` is the
    best linear denoiser.

    Parameters
    ----------
    alpha, sigma : Tensor
        Scale of the data and of the noise in ``x_t = alpha x + sigma g``; not both zero.
    sigma_data : float
        Standard deviation of the entries of the data.

    Returns
    -------
    tuple of Tensor
        ``c_skip``, ``c_out``, ``c_in``, in the shape of ``alpha`` and ``sigma``.

    Notes
    -----
    Karras et al., "Elucidating the design space of diffusion-based generative models" (2022), for
    ``alpha = 1``. Book: section ``unet-denoising``.
    """
    deviation = torch.hypot(alpha * sigma_data, sigma)
    return (
        alpha * (sigma_data / deviation) ** 2,
        sigma_data * sigma / deviation,
        1 / deviation,
    )


def noise_features(log_snr: Tensor) -> Tensor:
    """Return waves of the log-SNR ``(n,)`` of many lengths, ``(n, 32)``: how noisy ``x_t`` is.

    Beyond log-SNR ±20, where only noise is left or none is, they stay the same.
    """
    # Wavelengths from 2 to 120: noise levels that differ by one unit are told apart, and far ones
    # not mistaken for each other.
    frequencies = torch.logspace(-1.28, 0.5, FREQUENCIES).to(log_snr)
    angles = log_snr.clamp(-20, 20)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class PreconditionedDenoiser(nn.Module):
    """What the networks here share: a denoiser around a network that sees unit-scale inputs.

    Subclasses define ``network(h, features)`` for inputs ``h`` and ``noise_features``.
    """

    def __init__(self, process: Process, sigma_data: float, skip: bool = True):
        super().__init__()
        self.process, self.skip = process, skip
        self.sigma_data = check_positive(sigma_data, "sigma_data")

    def forward(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """Return the estimate of the clean ``x``, in the shape and dtype of ``x_t``.

        Parameters
        ----------
        x_t : Tensor, shape (n, ...)
            Noised samples.
        t : float or Tensor, shape () or (n,)
            Time of all samples, or of each.
        """
        self.check(x_t)
        x = working(x_t)
        t = _one_per_row(t, x)
        process, weights = self.process, next(self.parameters())
        scales = preconditioning(process.alpha(t), process.sigma(t), self.sigma_data)
        c_skip, c_out, c_in = (per_row(scale, x) for scale in scales)
        features = noise_features(process.log_snr(t))
        estimate = self.network((c_in * x).to(weights), features.to(weights)).to(x)
        x = c_skip * x + c_out * estimate if self.skip else self.sigma_data * estimate
        return x.to(x_t.dtype)

    def extra_repr(self) -> str:
        return f"process={self.process}, sigma_data={self.sigma_data}, skip={self.skip}"


class DenoisingMLP(PreconditionedDenoiser):
    """A multilayer perceptron that estimates clean vectors from noisy ones.

    Parameters
    ----------
    d : int
        Length of the vectors.
    width, depth : int
        Size and number of hidden layers.
    process
        Noising process, for the scales ``alpha(t)`` and ``sigma(t)`` and the log-SNR.
    sigma_data : float
        Standard deviation of the entries of the data, which should have mean zero.
    skip : bool
        Let ``x_t`` pass by the network, as in ``preconditioning``, which is accurate at low noise.
        With ``False`` the estimate is the network's output (times ``sigma_data``), which can hold
        less than ``x_t`` does; such a network takes to a small training set sooner.
    generator : torch.Generator, optional
        Draws the weights: Gaussian with variance 2 over the number of inputs. Biases are zero, and
        so is the last layer: before training, the estimate is the best linear one, or zero.

    Notes
    -----
    Costs ``d width + (depth - 1) width^2 + width d`` multiplications a sample, about. The features
    of the noise level enter beside the sample. Book: section ``sampling-via-denoising``.
    """

    def __init__(
        self,
        d: int,
        width: int,
        depth: int,
        process: Process,
        sigma_data: float = 1.0,
        skip: bool = True,
        generator: torch.Generator | None = None,
    ):
        super().__init__(process, sigma_data, skip)
        self.d = check_count(d, "d")
        check_count(width, "width")
        sizes = [d + 2 * FREQUENCIES, *[width] * check_count(depth, "depth"), d]
        with torch.random.fork_rng(devices=[]):  # layers draw first, from the global generator
            self.layers = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))
        _draw_weights(self, generator)
        nn.init.zeros_(self.layers[-1].weight)

    def check(self, x_t: Tensor) -> None:
        """Raise an error unless ``x_t`` is ``(n, d)``."""
        check_tensor(x_t, "x_t", ndim=2, finite=False)
        if x_t.shape[1] != self.d:
            raise ValueError(f"x_t must have shape (n, {self.d}), got {tuple(x_t.shape)}")

    def network(self, h: Tensor, features: Tensor) -> Tensor:
        *hidden, last = self.layers
        h = torch.cat([h, features], dim=1)
        for layer in hidden:
            h = silu(layer(h))
        return last(h)


class DenoisingUNet(PreconditionedDenoiser):
    """A compact U-Net that estimates clean images from noisy ones.

    Images become patches of ``patch x patch`` pixels; convolutions go from fine grids to coarse
    ones, attend over the coarsest, and come back, with the fine grids at hand.

    Parameters
    ----------
    channels : int
        1 for gray images, 3 for color.
    widths : sequence of int
        Channels at each level, each half as fine as the one before: multiples of 8.
    process
        Noising process, for the scales ``alpha(t)`` and ``sigma(t)`` and the log-SNR.
    patch : int
        Side of the patches: 1 for pixels; 2 takes a quarter of the time.
    sigma_data : float
        Standard deviation of the entries of the data, which should have mean zero.
    generator : torch.Generator, optional
        Draws the weights: Gaussian with variance 2 over the number of inputs. Biases are zero, and
        so is the last layer: before training, the network is the best linear denoiser.

    Notes
    -----
    With ``widths=(32, 64)`` and gray images it has 0.3 million weights. Images may have any height
    and width that ``patch * 2^(levels - 1)`` divides. Book: section ``unet-denoising``.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        process: Process,
        patch: int = 2,
        sigma_data: float = 1.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__(process, sigma_data)
        self.channels, self.patch = check_count(channels, "channels"), check_count(patch, "patch")
        widths = _check_widths(widths)
        self.coarsest = patch * 2 ** (len(widths) - 1)
        pixels, context = channels * patch**2, 4 * widths[0]
        fine = [widths[0], *widths[:-1]]  # the level before each
        with torch.random.fork_rng(devices=[]):
            self.context = nn.Sequential(nn.Linear(2 * FREQUENCIES, context), nn.SiLU())
            self.stem = nn.Conv2d(pixels, widths[0], 3, padding=1)
            self.down = nn.ModuleList(
                ResidualBlock(a, b, context) for a, b in zip(fine, widths, strict=True)
            )
            self.middle = ResidualBlock(widths[-1], widths[-1], context)
            self.attention = SelfAttention(widths[-1])
            self.up = nn.ModuleList(
                ResidualBlock(2 * b, a, context) for a, b in zip(fine, widths, strict=True)
            )
            self.norm = nn.GroupNorm(8, widths[0])
            self.head = nn.Conv2d(widths[0], pixels, 3, padding=1)
        _draw_weights(self, generator)
        for branch in (self.head, *_ends_of_branches(self)):
            nn.init.zeros_(branch.weight)

    def check(self, x_t: Tensor) -> None:
        """Raise an error unless ``x_t`` is ``(n, channels, h, w)`` of a fitting size."""
        check_tensor(x_t, "x_t", ndim=4, finite=False)
        if x_t.shape[1] != self.channels or any(side % self.coarsest for side in x_t.shape[2:]):
            raise ValueError(
                f"x_t must have shape (n, {self.channels}, h, w) with h and w multiples of "
                f"{self.coarsest}, got {tuple(x_t.shape)}"
            )

    def network(self, h: Tensor, features: Tensor) -> Tensor:
        context = self.context(features)
        h = self.stem(nn.functional.pixel_unshuffle(h, self.patch))
        levels = []
        for block in self.down:
            h = block(_halved(h) if levels else h, context)
            levels.append(h)
        h = self.attention(self.middle(h, context))
        for block in reversed(self.up):
            finer = levels.pop()
            h = h if h.shape[2:] == finer.shape[2:] else interpolate(h, size=finer.shape[2:])
            h = block(torch.cat([h, finer], dim=1), context)
        return nn.functional.pixel_shuffle(self.head(silu(self.norm(h))), self.patch)


class ResidualBlock(nn.Module):
    """Two convolutions around a shift and scale by the noise level, added to the input."""

    def __init__(self, inputs: int, outputs: int, context: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, inputs), nn.GroupNorm(8, outputs)])
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(context, 2 * outputs)
        self.last = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return ``(n, outputs, h, w)`` for ``x`` ``(n, inputs, h, w)``."""
        scale, shift = self.modulation(context)[:, :, None, None].chunk(2, dim=1)
        h = self.first(silu(self.norms[0](x)))
        h = self.norms[1](h) * (1 + scale) + shift
        return self.skip(x) + self.last(silu(h))


class SelfAttention(nn.Module):
    """Attention of every place of an image to every other, added to the input; one head."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.query_key_value = nn.Conv2d(width, 3 * width, 1)
        self.last = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, width, h, w)`` for ``x`` of the same shape."""
        rows = self.query_key_value(self.norm(x)).flatten(2).mT  # (n, h w, 3 width)
        attended = scaled_dot_product_attention(*rows.chunk(3, dim=2))
        return x + self.last(attended.mT.reshape(x.shape))


def _halved(h: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(h, 2)


def _one_per_row(t: float | Tensor, x: Tensor) -> Tensor:
    """Return times ``(n,)`` for the ``n`` rows of ``x``."""
    t = t.to(x.device) if isinstance(t, Tensor) else torch.tensor(t, dtype=x.dtype, device=x.device)
    if t.ndim and t.shape != x.shape[:1]:
        raise ValueError(f"t must be one time or have shape ({len(x)},), got {tuple(t.shape)}")
    return working(t).expand(len(x))


def _check_widths(widths: tuple[int, ...]) -> tuple[int, ...]:
    widths = tuple(widths)
    if not widths or any(check_count(width, "widths") % 8 for width in widths):
        raise ValueError(f"widths must be multiples of 8, one for each level, got {widths}")
    return widths


def _ends_of_branches(module: nn.Module) -> list[nn.Conv2d]:
    """Return the layers that end a branch added to its input; at zero, it starts as nothing."""
    return [m.last for m in module.modules() if isinstance(m, (ResidualBlock, SelfAttention))]


def _draw_weights(module: nn.Module, generator: torch.Generator | None) -> None:
    """Draw the weights of linear and convolution layers, by He et al.; biases are zero."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            with torch.no_grad():
                std = (2 / layer.weight[0].numel()) ** 0.5
                layer.weight.normal_(0, std, generator=generator)
                layer.bias.zero_()

"""Speed of the streamed softmax mean against the matrix products it cannot do without."""

import pytest
import torch

from companion_lib import data, kernels
from companion_lib.kernels import softmax_mean

NOISE = 4.0  # per pixel; enough that several digits share the weight


@pytest.fixture(scope="module")
def problem():
    """Denoise 256 of 5,000 digits at once: queries, keys, bias and scale."""
    images, _ = data.mnist(5000)
    images = images.float()
    generator = torch.Generator().manual_seed(0)
    noisy = images[:256] + NOISE * torch.randn(256, 784, generator=generator)
    return noisy, images, -images.square().sum(1) / 2, torch.full((256,), NOISE**-2)


def check(problem):
    """Both forms give the same values and gradients; rounding is a little more in float32."""
    queries, keys, bias, scale = problem
    inputs = [x.clone().requires_grad_() for x in (queries, keys, bias, scale)]
    values, gradients = [], []
    for form in ("fast", "reference"):
        with kernels.use(form):
            mean = softmax_mean(inputs[0], inputs[1], inputs[1], inputs[2], inputs[3])
        values.append(mean.detach())
        gradients.append(torch.autograd.grad(mean.square().sum(), inputs))
    assert torch.allclose(*values, rtol=0, atol=1e-4)
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-3 * theirs.abs().max())


def test_against_its_two_products(race, problem):
    check(problem)
    queries, keys, bias, scale = problem
    weights = torch.rand(len(queries), len(keys), generator=torch.Generator().manual_seed(0))
    race(
        "softmax mean of MNIST digits",
        lambda: softmax_mean(queries, keys, keys, bias, scale),
        lambda: (queries @ keys.T, weights @ keys),
        at_least=1 / 1.3,
        baseline_name="its two matrix products",
        sizes="256 queries, 5000 x 784",
        note="the denoiser of chapter 3, in blocks; below 1 is the cost of all but the products",
    )


def test_against_the_formula(race, problem):
    queries, keys, bias, scale = (x.clone().requires_grad_() for x in problem)

    def run(form):
        with kernels.use(form):
            mean = softmax_mean(queries, keys, keys, bias, scale)
        return torch.autograd.grad(mean.sum(), (queries, keys, bias, scale))

    race(
        "softmax mean of MNIST digits, with gradients",
        lambda: run("fast"),
        lambda: run("reference"),
        at_least=0.7,
        baseline_name="softmax of all logits",
        sizes="256 queries, 5000 x 784",
        note="a fifth product recomputes the logits, instead of keeping them",
    )

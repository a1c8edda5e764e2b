"""Speed of one matching-stretching-projection step against its two matrix products."""

import pytest
import torch

from companion_lib.subspaces import msp


# The polar factor costs the same for any n: at 10,000 samples it is a third of a step.
@pytest.mark.parametrize(
    "n, d, at_least", [(10_000, 64, 0.35), (50_000, 64, 0.5), (50_000, 128, 0.5)]
)
def test_msp_step_against_its_two_products(race, n, d, at_least):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, d, generator=generator) ** 3
    start = torch.linalg.qr(torch.randn(d, d, generator=generator)).Q
    codes = torch.empty_like(X)

    def products():
        for _ in range(11):
            torch.mm(X, start.T, out=codes)
            codes.T @ X

    race(
        f"MSP step, d = {d}",
        # Ten steps, and the objective once more at the end: 11 pairs of products.
        lambda: msp(X, steps=10, tol=0.0, start=start),
        products,
        at_least=at_least,
        baseline_name="the step's two matrix products alone",
        sizes=f"{n} x {d}",
        note="float32; a ratio of 0.5 is twice the time",
    )

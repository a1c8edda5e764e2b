"""Arrays survive the way into a widget's state and back."""

from __future__ import annotations

import json
import math

import pytest
import torch

from companion_lib.widgets.encoding import fine_scale, pack, unpack


@pytest.mark.parametrize("shape", [(1,), (3, 4), (2, 3, 5)])
def test_round_trip_is_within_half_a_step(shape):
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    back = unpack(json.loads(json.dumps(pack(values, 2.0**-10))))
    assert back.shape == values.shape
    assert (back - values).abs().max() <= 2.0**-11


def test_decoded_numbers_encode_to_themselves():
    values = unpack(pack(torch.linspace(-1, 1, 50), 2.0**-14))
    assert torch.equal(unpack(pack(values, 2.0**-14)), values)


@pytest.mark.parametrize("bits", [8, 16])
def test_fewer_bits_are_as_exact_within_their_range(bits):
    values = torch.linspace(-1, 1, 50, dtype=torch.float64)
    packed = json.loads(json.dumps(pack(values, 1 / 127, bits)))
    assert (unpack(packed) - values).abs().max() <= 0.5 / 127
    assert unpack(packed)[[0, -1]].tolist() == [-1, 1]
    assert len(packed[f"int{bits}"]) == 4 * math.ceil(50 * bits // 8 / 3)


def test_eight_bits_hold_no_more_than_127_steps():
    pack(torch.tensor([-127.0, 127.0]), 1.0, 8)
    with pytest.raises(ValueError, match="must stay below 127 for scale 1, got 128"):
        pack(torch.tensor([-128.0]), 1.0, 8)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"must stay below 8 for scale 0\.0002441, got 9"):
        pack(torch.tensor([9.0]), 2.0**-12)


@pytest.mark.parametrize("size", [1e-3, 0.37, 1.0, 250.0])
def test_fine_scale_fits_and_half_of_it_does_not(size):
    values = torch.tensor([size, -size / 3], dtype=torch.float64)
    scale = fine_scale(values)
    pack(values, scale)
    with pytest.raises(ValueError):
        pack(values, scale / 2)

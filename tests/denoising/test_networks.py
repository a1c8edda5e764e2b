"""Denoising networks: preconditioning, shapes, dtypes, times, weights, bad input."""

import copy
import math

import numpy as np
import pytest
import torch

from companion_lib.denoising.networks import (
    DenoisingMLP,
    DenoisingUNet,
    noise_features,
    preconditioning,
)
from companion_lib.denoising.processes import FlowMatching, VarianceExploding, VariancePreserving

PROCESSES = [VarianceExploding(), VariancePreserving(), FlowMatching(), FlowMatching(data_at=1)]
processes = pytest.mark.parametrize("process", PROCESSES, ids=str)
VP = PROCESSES[1]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def mlp(process=VP, seed=0, **options):
    return DenoisingMLP(5, 16, 2, process, generator=generator(seed), **options)


def unet(process=VP, channels=1, widths=(8, 16), seed=0, **options):
    return DenoisingUNet(channels, widths, process, generator=generator(seed), **options)


def perturbed(model):
    """Give all weights some values, the zeros among them."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * randn(*parameter.shape, seed=9).to(parameter))
    return model


MODELS = {"mlp": (mlp, (5,)), "u-net": (unet, (1, 8, 12))}
models = pytest.mark.parametrize("build, shape", MODELS.values(), ids=MODELS)


# Preconditioning


@pytest.mark.parametrize("sigma_data", [0.3, 1.0, 5.0])
def test_inputs_and_targets_have_variance_one(sigma_data):
    alpha = torch.tensor([1.0, 1.0, 0.8, 0.3, 0.0]).double()
    sigma = torch.tensor([1e-3, 40.0, 0.6, 0.7, 1.0]).double()
    c_skip, c_out, c_in = preconditioning(alpha, sigma, sigma_data)
    x, g = sigma_data * randn(400_000, 1), randn(400_000, 1, seed=1)
    x_t = alpha * x + sigma * g
    for unit in (c_in * x_t, (x - c_skip * x_t) / c_out):
        # Four standard errors of a variance, sqrt(2/n) of it.
        assert unit.square().mean(0).numpy() == pytest.approx(np.ones(5), abs=0.009)
    # What is left for the network has nothing to do with its input: the skip took all of it.
    assert (c_in * x_t * (x - c_skip * x_t) / c_out).mean(0).abs().max() < 0.007


def test_preconditioning_with_alpha_one_is_that_of_karras_et_al():
    sigma, data = torch.tensor([0.0, 0.002, 0.5, 3.0, 80.0]).double(), 0.5
    c_skip, c_out, c_in = preconditioning(torch.ones_like(sigma), sigma, data)
    total = sigma**2 + data**2
    assert torch.allclose(c_skip, data**2 / total, rtol=1e-14)
    assert torch.allclose(c_out, sigma * data / total.sqrt(), rtol=1e-14)
    assert torch.allclose(c_in, 1 / total.sqrt(), rtol=1e-14)


@models
@processes
def test_before_training_it_is_the_best_linear_denoiser(build, shape, process):
    data = 0.7
    model = build(process, sigma_data=data).double()
    x_t, t = randn(6, *shape), torch.linspace(0.05, 0.95, 6).double()
    alpha, sigma = process.alpha(t), process.sigma(t)
    gain = alpha * data**2 / (alpha**2 * data**2 + sigma**2)
    expected = gain.view(-1, *[1] * len(shape)) * x_t
    assert torch.allclose(model(x_t, t), expected, rtol=1e-12)


@models
def test_a_clean_sample_is_its_own_estimate(build, shape):
    x = randn(3, *shape)
    for process in PROCESSES:
        model = perturbed(build(process).double())
        assert torch.allclose(model(x, process.t_data), x, rtol=1e-14)


def test_without_skip_the_network_gives_the_estimate():
    model = perturbed(mlp(sigma_data=2.0, skip=False).double())
    x_t, t = randn(4, 5), torch.tensor([0.0, 0.2, 0.9, 1.0]).double()
    c_in = 1 / torch.sqrt(4 * (1 - t**2) + t**2)
    features = noise_features(VP.log_snr(t))
    expected = 2 * model.network(c_in[:, None] * x_t, features)
    assert torch.allclose(model(x_t, t), expected, rtol=1e-12)
    assert not mlp(skip=False)(x_t, t).any()


def test_the_perceptron_is_the_one_of_numpy():
    model = perturbed(mlp(VarianceExploding()).double())
    x_t, t = randn(4, 5), torch.tensor([0.1, 0.5, 2.0, 70.0]).double()
    c_skip, c_out, c_in = (c[:, None].numpy() for c in preconditioning(torch.ones(4), t))
    h = np.hstack([c_in * x_t.numpy(), noise_features(-2 * t.log()).numpy()])
    for i, layer in enumerate(model.layers):
        h = h / (1 + np.exp(-h)) if i else h
        h = h @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    expected = c_skip * x_t.numpy() + c_out * h
    assert np.allclose(model(x_t, t).detach().numpy(), expected, atol=1e-12)


def standardized(x):
    """Zero mean and unit variance over each of eight groups of channels."""
    groups = x.unflatten(1, (8, -1)).flatten(2)
    mean, variance = groups.mean(2, keepdim=True), groups.var(2, keepdim=True, correction=0)
    return ((groups - mean) / (variance + 1e-5).sqrt()).view_as(x)


def test_the_u_net_is_the_one_of_its_equations():
    """With weights from its ``state_dict`` by name, and nothing else of its modules."""
    model = perturbed(unet(VarianceExploding(), widths=(8, 16)).double())
    weights = model.state_dict()

    def convolve(x, name):
        w, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return torch.nn.functional.conv2d(x, w, b, padding=w.shape[-1] // 2)

    def norm(x, name):
        w, b = (weights[f"{name}.{kind}"][:, None, None] for kind in ("weight", "bias"))
        return w * standardized(x) + b

    def swish(x):
        return x / (1 + torch.exp(-x))

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def block(x, name):
        h = convolve(swish(norm(x, f"{name}.norms.0")), f"{name}.first")
        scale, shift = linear(context, f"{name}.modulation")[:, :, None, None].chunk(2, dim=1)
        h = norm(h, f"{name}.norms.1") * (1 + scale) + shift
        skipped = convolve(x, f"{name}.skip") if f"{name}.skip.weight" in weights else x
        return skipped + convolve(swish(h), f"{name}.last")

    x_t, t = randn(2, 1, 8, 12), torch.tensor([0.3, 2.0]).double()
    c_skip, c_out, c_in = (c.view(2, 1, 1, 1) for c in preconditioning(torch.ones(2), t))
    context = swish(linear(noise_features(-2 * t.log()), "context.0"))
    h = (c_in * x_t).view(2, 4, 2, 6, 2).permute(0, 2, 4, 1, 3).flatten(1, 2)  # patches of 2 x 2
    fine = block(convolve(h, "stem"), "down.0")
    coarse = block(fine.unflatten(3, (3, 2)).unflatten(2, (2, 2)).mean((3, 5)), "down.1")
    h = block(coarse, "middle")
    q, k, v = convolve(norm(h, "attention.norm"), "attention.query_key_value").chunk(3, dim=1)
    places = (torch.einsum("ncij,nckl->nijkl", q, k) / 4).flatten(3).softmax(3)
    h = h + convolve(torch.einsum("nijp,ncp->ncij", places, v.flatten(2)), "attention.last")
    h = block(torch.cat([h, coarse], dim=1), "up.1")
    h = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    h = block(torch.cat([h, fine], dim=1), "up.0")
    h = convolve(swish(norm(h, "norm")), "head")
    estimate = h.view(2, 1, 2, 2, 4, 6).permute(0, 1, 4, 2, 5, 3).reshape(2, 1, 8, 12)
    assert torch.allclose(model(x_t, t), c_skip * x_t + c_out * estimate, atol=1e-10)


def test_before_training_what_is_added_to_an_input_is_nothing():
    model, context = unet(widths=(8, 16)), randn(2, 32, dtype=torch.float32)
    x = randn(2, 16, 4, 4, dtype=torch.float32)
    assert torch.equal(model.middle(x, context), x)
    assert torch.equal(model.attention(x), x)
    for block in (*model.down, *model.up):
        x = randn(2, block.first.in_channels, 4, 4, dtype=torch.float32)
        assert torch.equal(block(x, context), block.skip(x))


def test_features_are_waves_of_lengths_from_2_to_120():
    log_snr = torch.tensor([1e-3, 7.0]).double()
    sines, cosines = noise_features(log_snr).chunk(2, dim=1)
    frequencies = torch.atan2(sines[0], cosines[0]) / 1e-3
    assert torch.allclose(sines[1], (7 * frequencies).sin(), atol=1e-9)
    assert torch.allclose(cosines[1], (7 * frequencies).cos(), atol=1e-9)
    lengths = 2 * math.pi / frequencies
    assert lengths[[0, -1]].tolist() == pytest.approx([120, 2], rel=0.01)
    assert torch.allclose(lengths.log().diff(), lengths.log().diff().mean(), rtol=1e-5)


def test_features_tell_noise_levels_apart():
    features = noise_features(torch.linspace(-14, 14, 281).double())
    assert features.shape == (281, 32)
    distances = torch.cdist(features, features)
    near, far = distances.diagonal(1), distances[~torch.eye(281, dtype=torch.bool)]
    assert near.min() > 0.2 and far.min() == near.min()


def test_features_stop_where_there_is_no_noise_or_no_signal():
    ends = noise_features(torch.tensor([-math.inf, -20.0, 20.0, math.inf]))
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[2], ends[3])
    assert torch.isfinite(ends).all()


# Shapes, times and dtypes


@models
@processes
def test_one_time_for_all_is_the_same_time_for_each(build, shape, process):
    model, x_t = perturbed(build(process)), randn(3, *shape, dtype=torch.float32)
    expected = model(x_t, torch.full((3,), 0.3))
    for t in (0.3, torch.tensor(0.3)):
        assert torch.equal(model(x_t, t), expected)


@models
def test_each_row_is_denoised_for_itself_at_its_own_time(build, shape):
    model, x_t = perturbed(build().double()), randn(4, *shape)
    t = torch.tensor([0.0, 0.2, 0.7, 1.0]).double()
    rows = [model(x_t[i : i + 1], t[i]) for i in range(4)]
    assert torch.allclose(model(x_t, t), torch.cat(rows), atol=1e-12)
    assert not torch.allclose(model(x_t, t), model(x_t, t.flip(0)), atol=1e-3)


@pytest.mark.parametrize(
    "channels, widths, patch, side",
    [(1, (32, 64), 2, 28), (3, (16, 32, 32), 2, 32), (1, (8,), 1, 7), (3, (8, 16), 1, 6)],
)
def test_images_keep_their_shape(channels, widths, patch, side):
    model = perturbed(unet(channels=channels, widths=widths, patch=patch))
    x_t = randn(2, channels, side, side + model.coarsest, dtype=torch.float32)
    assert model(x_t, 0.5).shape == x_t.shape


def test_every_pixel_of_the_input_reaches_every_pixel_of_the_estimate():
    model, x_t = perturbed(unet().double()), randn(1, 1, 12, 12).requires_grad_()
    for place in ((0, 0), (6, 5), (11, 11)):
        (gradient,) = torch.autograd.grad(model(x_t, 0.5)[0, 0][place], x_t)
        assert (gradient != 0).all()


def test_the_size_of_the_small_u_net():
    model = unet(widths=(32, 64))
    assert 250_000 < sum(p.numel() for p in model.parameters()) < 400_000


@models
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(build, shape, dtype):
    model = perturbed(build())
    x_t, t = randn(5, *shape).to(dtype), torch.linspace(0.1, 0.9, 5).to(dtype)
    estimate = model(x_t, t)
    assert estimate.dtype == dtype
    assert torch.equal(estimate, model(x_t.float(), t.float()).to(dtype))


@models
def test_double_inputs_stay_double(build, shape):
    model, x_t = perturbed(build()), randn(5, *shape)
    assert model(x_t, 0.4).dtype == torch.float64
    assert torch.allclose(model(x_t, 0.4), copy.deepcopy(model).double()(x_t, 0.4), atol=1e-4)


@models
def test_gradients(build, shape):
    model = perturbed(build().double())
    x_t = randn(2, *shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: model(x, 0.6), (x_t,))


# Weights


@models
def test_weights_are_drawn_by_the_generator_alone(build, shape):
    state = torch.get_rng_state()
    first, again, other = (build(seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(*pair) for pair in pairs)
    assert any(
        not torch.equal(*pair) for pair in zip(first.parameters(), other.parameters(), strict=True)
    )


def test_weights_have_variance_two_over_the_number_of_inputs():
    layers = [*DenoisingMLP(100, 200, 3, VP, generator=generator()).layers[:-1]]
    layers += [block.first for block in unet(widths=(32, 64)).down]
    for layer in layers:
        count = layer.weight.numel()
        expected = 2 / layer.weight[0].numel()
        # Five standard errors of a variance, sqrt(2/m) of it.
        assert layer.weight.square().mean().item() == pytest.approx(
            expected, rel=5 * (2 / count) ** 0.5
        )
        assert not layer.bias.any()


@models
def test_all_weights_learn_once_the_last_layer_does(build, shape):
    model = perturbed(build())
    x_t = randn(3, *shape, dtype=torch.float32)
    (model(x_t, torch.tensor([0.2, 0.5, 0.9])) - 1).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@models
def test_a_state_dict_carries_a_model_over(build, shape):
    model, other = perturbed(build()), build(seed=3)
    other.load_state_dict(model.state_dict())
    x_t = randn(2, *shape, dtype=torch.float32)
    assert torch.equal(model(x_t, 0.5), other(x_t, 0.5))


def test_a_model_says_what_it_was_built_for():
    text = str(mlp(FlowMatching(), sigma_data=0.5, skip=False))
    assert "FlowMatching(data_at=0)" in text and "sigma_data=0.5, skip=False" in text


# Bad input


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"d": 0}, ValueError, "d must be at least 1, got 0"),
        ({"width": 2.5}, TypeError, "width must be an integer, got 2.5"),
        ({"depth": 0}, ValueError, "depth must be at least 1, got 0"),
        ({"sigma_data": 0.0}, ValueError, "sigma_data must be positive and finite, got 0.0"),
        ({"sigma_data": math.nan}, ValueError, "sigma_data must be positive and finite, got nan"),
    ],
)
def test_bad_perceptrons(arguments, error, message):
    with pytest.raises(error, match=message):
        DenoisingMLP(**{"d": 4, "width": 8, "depth": 1, "process": VP, **arguments})


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"channels": 0}, ValueError, "channels must be at least 1, got 0"),
        ({"patch": 0}, ValueError, "patch must be at least 1, got 0"),
        ({"patch": 1.5}, TypeError, "patch must be an integer, got 1.5"),
        (
            {"widths": ()},
            ValueError,
            r"widths must be multiples of 8, one for each level, got \(\)",
        ),
        ({"widths": (8, 20)}, ValueError, r"widths must be multiples of 8.*got \(8, 20\)"),
        ({"widths": (8, 0)}, ValueError, "widths must be at least 1, got 0"),
        ({"sigma_data": -1.0}, ValueError, "sigma_data must be positive and finite, got -1.0"),
    ],
)
def test_bad_u_nets(arguments, error, message):
    with pytest.raises(error, match=message):
        unet(**arguments)


@pytest.mark.parametrize(
    "model, x_t, t, error, message",
    [
        (mlp(), randn(3, 4), 0.5, ValueError, r"x_t must have shape \(n, 5\), got \(3, 4\)"),
        (mlp(), randn(5), 0.5, ValueError, r"x_t must have 2 axes, got shape \(5,\)"),
        (mlp(), randn(0, 5), 0.5, ValueError, "x_t is empty"),
        (mlp(), np.zeros((3, 5)), 0.5, TypeError, "x_t must be a torch.Tensor, got ndarray"),
        (mlp(), randn(3, 5).long(), 0.5, TypeError, "x_t must hold floating-point numbers"),
        (mlp(), randn(3, 5), 1.5, ValueError, r"t must be in \[0, 1\], got 1.5"),
        (mlp(), randn(3, 5), math.nan, ValueError, r"t must be in \[0, 1\], got nan"),
        (mlp(), randn(3, 5), torch.rand(2), ValueError, r"t must be one time or have shape \(3,\)"),
        (mlp(), randn(3, 5), torch.rand(3, 1), ValueError, r"t must be one time .* got \(3, 1\)"),
        (unet(), randn(2, 64), 0.5, ValueError, r"x_t must have 4 axes, got shape \(2, 64\)"),
        (
            unet(),
            randn(2, 1, 8, 10),
            0.5,
            ValueError,
            r"shape \(n, 1, h, w\) with h and w multiples of 4, got \(2, 1, 8, 10\)",
        ),
        (unet(), randn(2, 3, 8, 8), 0.5, ValueError, r"x_t must have shape \(n, 1, h, w\)"),
    ],
)
def test_bad_calls(model, x_t, t, error, message):
    with pytest.raises(error, match=message):
        model(x_t, t)


@models
def test_nan_stays_in_its_row(build, shape):
    model, x_t = perturbed(build()), randn(3, *shape, dtype=torch.float32)
    x_t[1].view(-1)[0] = math.nan
    bad = model(x_t, 0.5).isnan().flatten(1).any(1)
    assert bad.tolist() == [False, True, False]

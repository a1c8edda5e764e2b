import copy
import dataclasses
import pickle

import pytest
import torch

from companion_lib import scale


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch):
    monkeypatch.delenv("COMPANION_SCALE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def choose(**options):
    return scale.choose(images=(5000, 70000), atoms=(128, 512), **options)


def test_small_is_the_default_without_cuda():
    S = choose()
    assert (S.name, S.images, S.atoms, S.device) == ("small", 5000, 128, torch.device("cpu"))


def test_full_is_the_default_with_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    S = choose()
    assert (S.name, S.images, S.device.type) == ("full", 70000, "cuda")


@pytest.mark.parametrize(("name", "images"), [("small", 5000), ("full", 70000)])
@pytest.mark.parametrize("cuda", [False, True])
def test_the_environment_decides(monkeypatch, name, images, cuda):
    monkeypatch.setenv("COMPANION_SCALE", name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    S = choose()
    assert (S.name, S.images) == (name, images)
    assert S.device.type == ("cuda" if cuda else "cpu")


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("COMPANION_SCALE", "")
    assert choose().name == "small"


@pytest.mark.parametrize("name", ["big", "Small", "full "])
def test_another_value_is_refused(monkeypatch, name):
    monkeypatch.setenv("COMPANION_SCALE", name)
    with pytest.raises(ValueError, match=f"'small' or 'full', got '{name}'"):
        choose()


def test_the_seed_fixes_both_generators():
    def draw(seed):
        S = choose(seed=seed)
        return torch.cat([torch.randn(3, generator=S.generator), torch.randn(3)])

    assert torch.equal(draw(1), draw(1))
    assert not (draw(1) == draw(2)).any()


def test_the_generator_is_not_torchs_global_one():
    S = choose()
    state = torch.get_rng_state()
    torch.randn(3, generator=S.generator)
    assert torch.equal(torch.get_rng_state(), state)
    assert S.generator.device.type == "cpu"


def test_the_table_prints_both_columns_and_marks_the_one_in_use(monkeypatch):
    assert repr(choose(seed=3)) == (
        "        *small   full\n"
        "images    5000  70000\n"
        "atoms      128    512\n"
        "* in use, on cpu, seed 3"
    )
    monkeypatch.setenv("COMPANION_SCALE", "full")
    assert repr(choose()).splitlines()[0] == "        small  *full"


def test_a_scale_cannot_be_changed():
    S = choose()
    with pytest.raises(dataclasses.FrozenInstanceError):
        S.images = 3
    with pytest.raises(TypeError):
        S.columns["images"] = (1, 2)


def test_an_unknown_column_names_the_known_ones():
    with pytest.raises(AttributeError, match=r"no column 'image'.*images, atoms"):
        _ = choose().image


def test_columns_are_completed_by_an_editor():
    assert {"images", "atoms", "name", "generator"} <= set(dir(choose()))


@pytest.mark.parametrize("column", ["name", "device", "generator", "columns"])
def test_a_reserved_column_name_is_refused(column):
    with pytest.raises(ValueError, match=f"'{column}' is taken"):
        scale.choose(**{column: (1, 2)})


@pytest.mark.parametrize("pair", [5, (1,), (1, 2, 3), [1, 2]])
def test_a_column_must_be_a_pair(pair):
    with pytest.raises(TypeError, match=r"images must be a \(small, full\) pair"):
        scale.choose(images=pair)


def test_a_column_may_hold_anything():
    S = scale.choose(shape=((8, 8), (28, 28)), model=("tiny", "base"))
    assert (S.shape, S.model) == ((8, 8), "tiny")


def test_a_half_made_object_fails_cleanly():
    # copy and pickle look up attributes before there are any columns.
    with pytest.raises(AttributeError):
        _ = scale.Scale.__new__(scale.Scale).images
    for action in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):  # a generator cannot be copied; no endless recursion
            action(choose())

"""The machinery: one line per check, stable results, and errors a beginner can use."""

import json
from pathlib import Path

import pytest
import torch

from companion_lib import exercises
from companion_lib.exercises import grading

SOLUTIONS = sorted((Path(__file__).parents[2] / "notebooks").glob("solutions_ch*.ipynb"))


def code_cells(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [source for source in sources if not source.startswith("# Setup:")]


@pytest.mark.parametrize("notebook", SOLUTIONS, ids=lambda path: path.stem)
def test_a_solutions_notebook_passes_every_check_of_its_chapter(notebook, capsys):
    namespace = {}
    for source in code_cells(notebook):
        exec(source, namespace)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Exercise" in line]
    chapter = str(int(notebook.stem[-2:]))
    names = [name for name in exercises.names() if name.split(".")[0] == chapter]
    titles = [grading._title(name) for name in names]
    assert lines == [f"✓ {title}" for title in titles]


@pytest.mark.parametrize("reply", [None, ..., (None, None), (torch.ones(1), ...)])
@pytest.mark.parametrize("name", exercises.names())
def test_a_stub_is_not_answered_yet(name, reply, capsys):
    result = exercises.check(name, lambda *inputs: reply)
    assert (result.status, result.passed) == ("unanswered", False)
    assert capsys.readouterr().out == f"{grading._title(name)}: not answered yet\n"


@pytest.mark.parametrize("name", exercises.names())
@pytest.mark.parametrize(
    "reply",
    [
        torch.full((2, 2), torch.nan),
        torch.ones(7, 1, dtype=torch.int64),
        torch.zeros(0, 5, dtype=torch.float64),
        (torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)),
        "U",
        float("inf"),
        [],
    ],
)
def test_a_nonsense_answer_is_wrong_and_never_raises(name, reply):
    assert exercises.check(name, lambda *inputs: reply).status == "wrong"


@pytest.mark.parametrize("name", exercises.names())
def test_an_error_inside_the_answer_is_reported(name):
    def answer(*inputs):
        raise RuntimeError("shapes do not fit")

    result = exercises.check(name, answer)
    assert result.status == "wrong"
    assert "your function raised RuntimeError: shapes do not fit" in result.reason


def test_single_precision_is_named():
    result = exercises.check("2.6a", lambda u, g: (g - (u @ g) * u).float())
    assert "float64" in result.reason


def test_an_answer_may_change_its_inputs():
    def answer(A, k):
        U = torch.linalg.eigh(A).eigenvectors[:, -k:]
        A.zero_()
        return U

    assert exercises.check("2.1a", answer).passed


def test_two_runs_print_the_same(capsys):
    for _ in range(2):
        exercises.check("2.2", lambda Y, M, sigma: -Y.square().sum(1))
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.startswith("✗ Exercise 2.2: for M = I, ")


def test_results_have_a_stable_form_and_display_nothing_more(capsys):
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    result = grading.Result("2.E2a", "wrong", "too small")
    assert str(result) == "✗ Exercise 2.E2 (a): too small"
    assert repr(result) == "<Exercise 2.E2a: wrong>"
    assert formatter.format(result) == ({}, {})
    assert capsys.readouterr().out == ""


def test_unknown_exercises_and_answers_that_are_no_functions():
    with pytest.raises(ValueError, match=r"exercise must be one of 2\.1a, .*, got '2\.99'"):
        exercises.check("2.99", lambda: None)
    with pytest.raises(TypeError, match="the function itself, without"):
        exercises.check("2.1a", torch.eye(3))


def test_names_are_sorted_by_number_and_ours_come_last(monkeypatch):
    jumbled = dict.fromkeys(["2.E1", "2.10", "2.2b", "2.2a", "2.1"], print)
    monkeypatch.setattr(grading, "_CHECKS", jumbled)
    assert grading.names() == ["2.1", "2.2a", "2.2b", "2.10", "2.E1"]


def test_second_derivative_is_exact():
    assert grading.second_derivative(lambda t: torch.exp(3 * t)) == pytest.approx(9, rel=1e-14)

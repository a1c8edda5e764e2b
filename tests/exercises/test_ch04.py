"""Right answers pass in more than one form; plausible wrong ones are refused with a reason."""

import math
from itertools import combinations

import pytest
import torch

from companion_lib import data, exercises
from companion_lib.exercises import ch04_ours, ch04_rate_distortion
from companion_lib.exercises.work import Work

NAMES = [name for name in exercises.names() if name.startswith("4.")]


def eye(d):
    return torch.eye(d, dtype=torch.float64)


def rows(values):
    return torch.tensor(values, dtype=torch.float64)


def whitened_eigenvalues(X, H):
    root = torch.linalg.cholesky(X)
    half = torch.linalg.solve_triangular(root, H, upper=False)
    return torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.T, upper=False))


def second_difference(X, H, step=1e-4):
    def value(t):
        return float(torch.logdet(X + t * H))

    return (value(step) - 2 * value(0) + value(-step)) / step**2


def log_det_by_cholesky(X):
    S = X @ X.T if len(X) < len(X.T) else X.T @ X
    return 2 * torch.linalg.cholesky(eye(len(S)) + S).diagonal().log().sum()


def rates_by_eigenvalues(Z, eps, half=0.5, power=2, n=None):
    n, d = n or len(Z), len(Z.T)
    eigenvalues = torch.linalg.eigvalsh(Z.T @ Z).clamp(min=0)
    return half * torch.log1p(torch.outer(d / (n * eps**power), eigenvalues)).sum(1)


def rates_one_by_one(Z, eps):
    n, d = Z.shape
    return torch.stack([torch.logdet(eye(d) + d / (n * e * e) * Z.T @ Z) / 2 for e in eps])


def rates_as_a_batch(Z, eps):
    n, d = Z.shape
    return torch.logdet(eye(d) + (d / (n * eps**2))[:, None, None] * (Z.T @ Z)) / 2


def log_det_of_angle(c):
    angle = math.acos(c)
    Z = rows([[1, 0], [math.cos(angle), math.sin(angle)]])
    return torch.logdet(eye(2) + Z.T @ Z)


def cosines_on_a_grid(low, high):
    c = torch.linspace(low, high, 4001, dtype=torch.float64)
    value = torch.log(4 - c**2)
    near = c[(2 - 2 * c).argmin()]
    return c[c.argmax()], near, c[value.argmin()], c[value.argmax()]


def nearest_to_zero(low, high):
    return min(max(low, 0.0), high)


def farthest_from_zero(low, high):
    return low if -low > high else high


def fill(eigenvalues, eps):
    """Spend the budget evenly; where it exceeds the variance, clip, and spread what is left."""
    full = torch.zeros_like(eigenvalues, dtype=torch.bool)
    D = eigenvalues.clone()
    while not full.all():
        level = (eps**2 - eigenvalues[full].sum()) / (~full).sum()
        over = ~full & (eigenvalues <= level)
        if not over.any():
            D[~full] = level
            break
        full = full | over
    return D


def rate(eigenvalues, eps, base=1.0, factor=0.5):
    D = fill(eigenvalues, eps)
    terms = [math.log(x / y) for x, y in zip(eigenvalues.tolist(), D.tolist(), strict=True) if x]
    return factor * sum(terms) / base


def clipped_rate(eigenvalues, eps):
    even = eps**2 / len(eigenvalues)
    return sum(max(0.0, math.log(x / even) / 2) for x in eigenvalues.tolist() if x)


def log_det_of_matrix(m, a, c):
    Z = torch.full((m, m), float(c), dtype=torch.float64)
    Z.fill_diagonal_(1.0)
    return torch.logdet(eye(m) + a * Z)


def reduction(K, r, d, eps, half=0.5, power=2, dims=None):
    a = (dims or d) / eps**power
    return half * r * (K * math.log1p(a / (K * r)) - math.log1p(a / r))


def rank_by(objective):
    return lambda K, d, eps: max(range(1, d // K + 1), key=lambda r: objective(K, r, d, eps))


def length(X, eps, overhead=True, bits=1.0, power=2):
    n, d = X.shape
    log_det = torch.logdet(eye(d) + d / (n * eps**power) * X.T @ X)
    return float((n + d * overhead) * log_det / 2 / bits)


def merge(membership=True, sign=1, forced=False, first=False, **options):
    def answer(X, labels, eps):
        saved = {}
        for k, m in combinations(labels.unique().tolist(), 2):
            A, B = X[labels == k], X[labels == m]
            n, both = len(A) + len(B), torch.cat([A, B])
            bits = sum(len(C) * math.log(n / len(C)) for C in (A, B)) * membership
            apart = length(A, eps, **options) + length(B, eps, **options) + bits
            saved[m, k] = sign * (apart - length(both, eps, **options))
        good = {pair: value for pair, value in saved.items() if value > 0 or forced}
        if not good:
            return ()
        return next(iter(good)) if first else max(good, key=good.get)

    return answer


def merge_nearest_means(X, labels, eps):
    means = torch.stack([X[labels == k].mean(0) for k in labels.unique()])
    distances = torch.cdist(means, means) + 1e9 * eye(len(means))
    if len(means) == 1:
        return ()
    return tuple(divmod(int(distances.argmin()), len(means)))


def largest_slope(d, n, n_k, eps):
    root = math.sqrt(n / n_k)
    return d / (n * eps**2) * (root - 1) / (root + 1)


def critical_square(d, n, n_k, eps, lam, sign=1):
    a, a_k = d / (n * eps**2), d / (n_k * eps**2)
    eta = a_k - a - lam * (n / n_k + 1)
    return (eta + sign * math.sqrt(eta**2 - 4 * lam**2 * n / n_k)) / (2 * lam * a_k)


def critical_by_bisection(d, n, n_k, eps, lam):
    a, a_k = d / (n * eps**2), d / (n_k * eps**2)
    low, high = 1 / math.sqrt(a * a_k), 1e12
    for _ in range(200):
        s = math.sqrt(low * high)
        rising = a / (1 + a * s) - a / (1 + a_k * s) > lam
        low, high = (s, high) if rising else (low, s)
    return math.sqrt(low)


def threshold_by_bisection(d, n, n_k, eps):
    """Raise λ until the value at the critical point is zero."""
    a, a_k = d / (n * eps**2), d / (n_k * eps**2)
    low, high = 0.1 * largest_slope(d, n, n_k, eps), 0.9999 * largest_slope(d, n, n_k, eps)
    for _ in range(60):
        lam = (low + high) / 2
        s = critical_square(d, n, n_k, eps, lam)
        value = math.log1p(a * s) - n_k / n * math.log1p(a_k * s) - lam * s
        low, high = (lam, high) if value > 0 else (low, lam)
    return low


def triples(first, second):
    return lambda: (rows(first), rows(second))


E1, E2, E3 = eye(3).tolist()

# Other right answers than those of the solutions notebook.
RIGHT = {
    "4.1a": [
        lambda X, H: -whitened_eigenvalues(X, H).square().sum(),
        lambda X, H: -float((X.inverse() @ H @ X.inverse() * H).sum()),
    ],
    "4.1b": [log_det_by_cholesky, lambda X: torch.linalg.svdvals(X).square().log1p().sum()],
    "4.1c": [rates_by_eigenvalues],
    "4.2a": [log_det_of_angle, lambda c: math.log(2 + c) + math.log(2 - c)],
    "4.2b": [
        cosines_on_a_grid,
        lambda low, high: (
            high,
            high,
            high if abs(high) > abs(low) else low,
            nearest_to_zero(low, high),
        ),
    ],
    "4.3a": [fill],
    "4.3b": [rate],
    "4.3c": [lambda r, d: r * math.log(math.sqrt(d / r)), lambda r, d: -r / 2 * math.log(r / d)],
    "4.E1a": [log_det_of_matrix],
    "4.E1b": [
        lambda: (torch.linalg.cholesky(0.6 * eye(3) + 0.4), eye(3)[[0, 0, 1]]),
    ],
    "4.E2": [reduction],
    "4.E3": [rank_by(reduction), lambda K, d, eps: torch.tensor(rank_by(reduction)(K, d, eps))],
    "4.E4": [merge(), lambda *inputs: list(merge()(*inputs)), lambda *a: torch.tensor(merge()(*a))],
    "4.E5a": [critical_by_bisection],
    "4.E5b": [threshold_by_bisection],
}

# Wrong answers and a piece of the reason they must be given.
WRONG = {
    "4.1a": [
        ("sign", lambda X, H: whitened_eigenvalues(X, H).square().sum(), "positive"),
        ("slope", lambda X, H: whitened_eigenvalues(X, H).sum(), "second derivative"),
        ("half", lambda X, H: -whitened_eigenvalues(X, H).square().sum() / 2, "second derivative"),
        ("det", lambda X, H: -torch.trace(X.inverse() @ H @ H), "second derivative"),
        ("squared trace", lambda X, H: -(whitened_eigenvalues(X, H).sum() ** 2), "random"),
        ("zero", lambda X, H: 0.0, "second derivative"),
    ],
    "4.1b": [
        ("larger side", lambda X: torch.logdet(eye(len(X.T)) + X.T @ X), "1,000,000 numbers"),
        ("always rows", lambda X: torch.logdet(eye(len(X)) + X @ X.T), "is enough"),
        ("full SVD", lambda X: torch.linalg.svd(X).S.square().log1p().sum(), "is enough"),
        ("no identity", lambda X: torch.linalg.svdvals(X).square().log().sum(), "shape (6, 4)"),
        ("half", lambda X: torch.linalg.svdvals(X).square().log1p().sum() / 2, "not log det"),
        ("not squared", lambda X: torch.linalg.svdvals(X).log1p().sum(), "not log det"),
    ],
    "4.1c": [
        ("no half", lambda Z, eps: rates_by_eigenvalues(Z, eps, half=1.0), "twice"),
        ("bits", lambda Z, eps: rates_by_eigenvalues(Z, eps) / math.log(2), "bits"),
        ("eps not squared", lambda Z, eps: rates_by_eigenvalues(Z, eps, power=1), "not the rates"),
        ("no n", lambda Z, eps: rates_by_eigenvalues(Z, eps, n=1), "not the rates"),
        ("one by one", rates_one_by_one, "200 matrices were factored"),
        ("a batch", rates_as_a_batch, "200 matrices were factored"),
        ("one number", lambda Z, eps: rates_by_eigenvalues(Z, eps).sum(), "shape"),
    ],
    "4.2a": [
        ("sign", lambda c: math.log(4 + c * c), "cosine 0.5"),
        ("no identity", lambda c: math.log(1 - c * c + 1e-9), "cosine 0"),
        ("book's direction", lambda c: math.log(3 + c), "cosine 0"),
        ("not squared", lambda c: math.log(4 - c), "cosine 0.5"),
    ],
    "4.2b": [
        ("as printed", lambda low, high: (high, high, low, high), "smallest log det"),
        ("c ≥ 0 assumed", lambda low, high: (high, high, high, max(low, 0)), "smallest log det"),
        ("free optimum", lambda low, high: (1.0, 1.0, 1.0, 0.0), "outside"),
        ("farthest", lambda low, high: (high, low, high, low), "smallest distance"),
        (
            "any range holds 0",
            lambda low, high: (high, high, farthest_from_zero(low, high), 0.0),
            "outside",
        ),
        ("three", lambda low, high: (high, high, high), "4 values"),
    ],
    "4.3a": [
        ("even", lambda x, eps: torch.full_like(x, eps**2 / len(x)), "more distortion"),
        ("even, clipped", lambda x, eps: x.clamp(max=eps**2 / len(x)), "sum to"),
        ("proportional", lambda x, eps: x * min(1, eps**2 / (float(x.sum()) or 1)), "evening"),
        ("eps for eps²", lambda x, eps: fill(x, eps**0.5), "sum to"),
        ("all of it", lambda x, eps: x, "sum to"),
        ("below zero", lambda x, eps: fill(x, eps) - 0.2, "negative"),
        (
            "the small ones dropped first",
            lambda x, eps: x.sort(descending=True).values * 0 + fill(x, eps).sort().values,
            "more distortion",
        ),
    ],
    "4.3b": [
        ("coding rate", lambda x, eps: (len(x) / eps**2 * x).log1p().sum() / 2, "R_ε"),
        ("bits", lambda x, eps: rate(x, eps, base=math.log(2)), "bits"),
        ("no half", lambda x, eps: rate(x, eps, factor=1.0), "twice"),
        ("not clipped", lambda x, eps: (len(x) / eps**2 * x).log().sum() / 2, "enough and"),
        ("minus", lambda x, eps: -rate(x, eps), "negative"),
        ("even share", clipped_rate, "enough and necessary"),
        ("log of zero", lambda x, eps: (x / fill(x, eps)).log().sum() / 2, "finite"),
    ],
    "4.3c": [
        ("none", lambda r, d: 0.0, "the gap"),
        ("no half", lambda r, d: r * math.log(d / r), "the gap"),
        ("sign", lambda r, d: r / 2 * math.log(r / d), "the gap"),
        ("all directions", lambda r, d: d / 2 * math.log(d / r), "the gap"),
    ],
    "4.E1a": [
        ("two only", lambda m, a, c: math.log((1 + a) ** 2 - (a * c) ** 2), "m = 3"),
        ("sign", lambda m, a, c: math.log((1 + a) ** 2 + (a * c) ** 2), "cosine 0.7"),
        ("first order", lambda m, a, c: m * math.log1p(a), "cosine 0.7"),
        ("m for m - 1", lambda m, a, c: math.log1p(a + m * a * c) + a, "cosine 0"),
    ],
    "4.E1b": [
        ("swapped", triples([E1, E1, E2], [E1, E2, E3]), "not above"),
        ("agreeing", triples([E1, E1, E1], [E1, E1, E2]), "log det"),
        ("equal", triples([E1, E1, E2], [E1, E1, E2]), "sum to"),
        ("not unit", triples([E1, E1, [0, 2, 0]], [E1, E2, E3]), "unit"),
        ("negative", triples([E1, E2, E3], [E1, [-1, 0, 0], E2]), "negative"),
        ("pairs", triples([E1, E1], [E1, E2]), "shape"),
    ],
    "4.E2": [
        ("no half", lambda *a: reduction(*a, half=1.0), "twice"),
        ("bits", lambda *a: reduction(*a) / math.log(2), "bits"),
        ("eps not squared", lambda *a: reduction(*a, power=1), "nats"),
        ("d lost", lambda *a: reduction(*a, dims=1), "can reach"),
        (
            "R only",
            lambda K, r, d, eps: K * r / 2 * math.log1p(d / (K * r * eps**2)),
            "classes",
        ),
    ],
    "4.E3": [
        ("the largest", lambda K, d, eps: d // K, "another rank"),
        ("one", lambda K, d, eps: 1, "another rank"),
        ("d", lambda K, d, eps: d, "integer"),
        ("of R", rank_by(lambda K, r, d, eps: r * math.log1p(d / (K * r * eps**2))), "another"),
        ("eps not squared", rank_by(lambda *a: reduction(*a, power=1)), "another rank"),
        ("a fraction", lambda K, d, eps: d / K / eps**2, "integer"),
    ],
    "4.E4": [
        ("no membership", merge(membership=False), "saves"),
        ("no overhead", merge(overhead=False), "you merge nothing"),
        ("never", lambda X, labels, eps: (), "you merge nothing"),
        ("always", merge(forced=True), "costs"),
        ("the worst", merge(sign=-1), "costs"),
        ("any that pays", merge(first=True), "another merge"),
        ("eps not squared", merge(power=1), "saves"),
        ("nearest means", merge_nearest_means, "costs"),
        ("the same twice", lambda X, labels, eps: (0, 0), "two different labels"),
        ("no label", lambda X, labels, eps: (0, 17), "two different labels"),
    ],
    "4.E5a": [
        ("squared", lambda *a: critical_square(*a), "slope"),
        ("other root", lambda *a: critical_square(*a, sign=-1) ** 0.5, "minimum"),
        (
            "the inflection",
            lambda d, n, n_k, eps, lam: (n * n_k) ** 0.25 * eps / d**0.5,
            "slope",
        ),
        (
            "lambda for half of it",
            lambda d, n, n_k, eps, lam: critical_square(d, n, n_k, eps, lam / 2) ** 0.5,
            "slope",
        ),
    ],
    "4.E5b": [
        ("largest slope", largest_slope, "worse than Z = 0"),
        ("fraction", lambda *a: 0.867 * largest_slope(*a), "still better"),
        ("half", lambda *a: largest_slope(*a) / 2, "still better"),
        ("negative", lambda *a: -1.0, "positive"),
    ],
}


def test_every_exercise_has_right_and_wrong_answers():
    assert list(RIGHT) == list(WRONG) == NAMES
    assert min(len(answers) for answers in WRONG.values()) >= 4


@pytest.mark.parametrize(
    ("name", "answer"),
    [(name, answer) for name, answers in RIGHT.items() for answer in answers],
)
def test_another_right_answer_is_accepted(name, answer):
    result = exercises.check(name, answer)
    assert result.passed, result.reason


@pytest.mark.parametrize(
    ("name", "answer", "reason"),
    [
        pytest.param(name, answer, reason, id=f"{name}-{label}")
        for name, answers in WRONG.items()
        for label, answer, reason in answers
    ],
)
def test_a_wrong_answer_is_refused_for_the_right_reason(name, answer, reason):
    result = exercises.check(name, answer)
    assert result.status == "wrong"
    assert reason in result.reason


def test_work_sees_the_largest_tensor_made_and_counts_factored_matrices():
    X = torch.ones(3, 50, dtype=torch.float64)
    with Work() as work:
        X.expand(1000, 3, 50).transpose(0, 1)
        torch.linalg.eigvalsh(X @ X.T)
    assert (work.largest, work.factored) == (150, 1)
    with Work() as work:
        torch.linalg.cholesky(eye(50).repeat(4, 1, 1) + X.T @ X)
    assert (work.largest, work.factored) == (4 * 50 * 50, 4)


@pytest.mark.parametrize(
    "factor",
    [
        torch.det,
        torch.logdet,
        torch.slogdet,
        torch.linalg.cholesky,
        torch.linalg.eig,
        torch.linalg.eigh,
        torch.linalg.eigvals,
        torch.linalg.eigvalsh,
        torch.linalg.ldl_factor,
        torch.linalg.lu,
        torch.linalg.lu_factor,
        torch.linalg.qr,
        torch.linalg.svd,
        torch.linalg.svdvals,
    ],
)
def test_every_factorization_counts(factor):
    with Work() as work:
        factor(2 * eye(3).repeat(5, 1, 1))
    assert work.factored == 5


@pytest.mark.parametrize(("values", "eps"), ch04_rate_distortion._SOURCES)
def test_water_filling_by_bisection_is_that_by_even_spending(values, eps):
    eigenvalues = rows(values)
    got = ch04_rate_distortion._water_filling(eigenvalues, eps)
    torch.testing.assert_close(got, fill(eigenvalues, eps))


def isotropic_classes(K, r, d, n_k, orthogonal, generator):
    """Return K classes (n_k, d) with r singular values sqrt(n_k / r) each."""
    frames = data.random_orthogonal(d, generator=generator, dtype=torch.float64)
    classes = []
    for k in range(K):
        codes = torch.randn(n_k, r, generator=generator, dtype=torch.float64)
        frame = frames[k * r : (k + 1) * r]
        if not orthogonal:
            frame = data.random_orthogonal(d, generator=generator, dtype=torch.float64)[:r]
        classes.append((n_k / r) ** 0.5 * torch.linalg.qr(codes).Q @ frame)
    return classes


def rate_of_matrix(Z, eps):
    n, d = Z.shape
    return float(torch.logdet(eye(d) + d / (n * eps**2) * Z.T @ Z)) / 2


@pytest.mark.parametrize(("K", "r", "d", "eps"), [(4, 4, 16, 0.7), (2, 1, 2, 1.0), (3, 2, 10, 2.0)])
def test_the_largest_reduction_is_that_of_orthogonal_classes_and_no_others(K, r, d, eps):
    generator = torch.Generator().manual_seed(0)
    want = ch04_ours._largest_reduction(K, r, d, eps)
    for orthogonal in (True, False, False):
        classes = isotropic_classes(K, r, d, 12, orthogonal, generator)
        value = rate_of_matrix(torch.cat(classes), eps)
        value -= sum(rate_of_matrix(Z, eps) for Z in classes) / K
        if orthogonal:
            assert value == pytest.approx(want, abs=1e-10)
        else:
            assert value < want - 1e-6


def test_savings_are_differences_of_the_whole_length():
    """Membership bits n_k log(n / n_k) of a partition change as those of the pair alone."""

    def whole(X, labels, eps):
        clusters = [X[labels == k] for k in labels.unique()]
        bits = sum(len(C) * math.log(len(X) / len(C)) for C in clusters)
        return bits + sum(length(C, eps) for C in clusters)

    for _, X, labels, eps in ch04_ours._clusterings():
        for (k, m), saved in ch04_ours._savings(X, labels, eps).items():
            merged = labels.where(labels != m, torch.full_like(labels, k))
            change = whole(X, labels, eps) - whole(X, merged, eps)
            assert saved == pytest.approx(change, abs=1e-9)


def test_merging_never_pays_without_membership_and_overhead():
    for _, X, labels, eps in ch04_ours._clusterings():
        assert merge(membership=False, overhead=False)(X, labels, eps) == ()


@pytest.mark.parametrize(("K", "part"), [(2, 0.867), (3, 0.870), (5, 0.877), (10, 0.887)])
def test_zero_wins_above_a_known_part_of_the_largest_lambda(K, part):
    inputs = (8, 10 * K, 10, 0.7)
    ratio = threshold_by_bisection(*inputs) / largest_slope(*inputs)
    assert ratio == pytest.approx(part, abs=6e-4)
    square = inputs[-1] ** 2
    grid = ch04_ours._largest_slope(*inputs[:-1], square)
    assert grid == pytest.approx(largest_slope(*inputs), rel=1e-6)


def test_the_rate_of_views_expands_as_the_solution_says():
    """Near alignment the sum of cosines counts, near orthogonality the sum of their squares."""
    generator = torch.Generator().manual_seed(0)
    m, d, a = 5, 40, 7.0
    noise = 1e-3 * torch.randn(m, d, generator=generator, dtype=torch.float64)
    frame = data.random_orthogonal(d, generator=generator, dtype=torch.float64)[:m]
    for base, aligned in ((frame[:1].expand(m, d), True), (frame, False)):
        Z = torch.nn.functional.normalize(base + noise, dim=1)
        cosines = (Z @ Z.T)[~torch.eye(m, dtype=torch.bool)]
        if aligned:
            start, change = math.log1p(a * m), a**2 / (1 + a * m) * (1 - cosines).sum()
        else:
            start, change = m * math.log1p(a), -0.5 * (a / (1 + a) * cosines).square().sum()
        got = torch.logdet(eye(m) + a * Z @ Z.T) - start
        torch.testing.assert_close(got, change, rtol=0.01, atol=0)

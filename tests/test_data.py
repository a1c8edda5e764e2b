import gc
import hashlib
import http.server
import io
import socket
import tarfile
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, unfold

from companion_lib import data
from companion_lib.data import DownloadError, fetch

# A download that fails leaves its socket to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def offline():
    """Let nothing in this file leave the machine: all but full MNIST must work without network."""
    connect = socket.socket.connect

    def loopback_only(self, address):
        assert address[0] == "127.0.0.1", f"a connection to {address} was attempted"
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", loopback_only)
        yield


def test_the_guard_against_the_network_works():
    with pytest.raises(AssertionError, match="a connection to"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Downloads

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def whole(handler, body=CONTENT):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def truncated(handler):
    """Announce everything, send half, hang up."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[: len(CONTENT) // 2])


def shortened(handler):
    whole(handler, CONTENT[: len(CONTENT) // 2])


def garbage(handler):
    whole(handler, b"<html>log in to this network</html>")


def missing(handler):
    handler.send_error(404)


@contextmanager
def serve(*answers):
    """Answer each request with the next of the answers, and the last from then on."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            answers[min(len(requests), len(answers)) - 1](self)

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/digits.bin", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # pooch waits between tries
    yield tmp_path / "cache"
    gc.collect()


def files(folder):
    return sorted(path.name for path in folder.glob("**/*") if path.is_file())


def test_a_download_is_kept_and_used_again_without_network(cache):
    with serve(whole) as (url, requests):
        path = fetch("digits.bin", url, SHA256)
        assert path == cache / "digits.bin" and path.read_bytes() == CONTENT
    assert fetch("digits.bin", url, SHA256).read_bytes() == CONTENT
    assert len(requests) == 1


@pytest.mark.parametrize("bad", [truncated, shortened, garbage])
def test_a_damaged_download_is_thrown_away_and_fetched_again(cache, bad):
    with serve(bad, whole) as (url, requests):
        assert fetch("digits.bin", url, SHA256).read_bytes() == CONTENT
    assert len(requests) == 2
    assert files(cache) == ["digits.bin"]


@pytest.mark.parametrize("bad", [truncated, shortened, garbage, missing])
def test_a_server_that_never_has_the_file_is_an_error_and_leaves_nothing(cache, bad):
    with serve(bad) as (url, requests), pytest.raises(DownloadError) as caught:
        fetch("digits.bin", url, SHA256)
    assert len(requests) == 3
    assert files(cache) == []
    for part in (url, str(cache / "digits.bin"), SHA256, "COMPANION_SCALE=small"):
        assert part in str(caught.value)


def test_a_damaged_file_in_the_cache_is_replaced(cache):
    cache.mkdir()
    (cache / "digits.bin").write_bytes(CONTENT[:-1])
    with serve(whole) as (url, _):
        assert fetch("digits.bin", url, SHA256).read_bytes() == CONTENT


def test_without_network_a_damaged_file_in_the_cache_is_not_used(cache):
    cache.mkdir()
    (cache / "digits.bin").write_bytes(CONTENT[:-1])
    with serve(whole) as (url, _):
        pass  # the server is gone, its port is closed
    with pytest.raises(DownloadError, match="could not get digits"):
        fetch("digits.bin", url, SHA256)


def test_a_file_put_there_by_hand_is_used(cache):
    cache.mkdir()
    (cache / "digits.bin").write_bytes(CONTENT)
    assert fetch("digits.bin", "http://127.0.0.1:9/digits.bin", SHA256).read_bytes() == CONTENT


def test_the_cache_is_the_systems_unless_it_is_chosen(monkeypatch, tmp_path):
    monkeypatch.delenv("COMPANION_DATA", raising=False)
    assert data.cache_dir().name == "companion_lib"
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))
    assert data.cache_dir() == tmp_path


# Images


@pytest.fixture
def tiny_mnist(cache, monkeypatch):
    """A file of the form of MNIST's, with three training images and one test image."""
    pixels = np.arange(4, dtype=np.uint8)[:, None, None] * np.full((4, 28, 28), 85, np.uint8)
    labels = np.array([7, 0, 3, 9], np.uint8)
    file = io.BytesIO()
    np.savez(file, x_train=pixels[:3], y_train=labels[:3], x_test=pixels[3:], y_test=labels[3:])
    sha256 = hashlib.sha256(file.getvalue()).hexdigest()
    with serve(lambda handler: whole(handler, file.getvalue())) as (url, _):
        monkeypatch.setattr(data, "MNIST", ("mnist.npz", url, sha256))
        data._mnist_full.cache_clear()
        yield
    data._mnist_full.cache_clear()


def test_full_mnist_is_downloaded_training_images_first(tiny_mnist):
    images, labels = data.mnist(full=True)
    assert images.shape == (4, 784) and images.dtype == torch.float32
    assert images[:, 0].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert labels.tolist() == [7, 0, 3, 9] and labels.dtype == torch.int64
    assert len(data.mnist(3, full=True)[0]) == 3
    with pytest.raises(ValueError, match="n must be between 1 and number of images = 4, got 5"):
        data.mnist(5, full=True)


def test_full_mnist_without_network_says_so(cache, monkeypatch):
    monkeypatch.setattr(data, "MNIST", ("mnist.npz", "http://127.0.0.1:9/mnist.npz", SHA256))
    data._mnist_full.cache_clear()
    with pytest.raises(DownloadError, match="COMPANION_SCALE=small"):
        data.mnist(full=True)


@pytest.fixture
def tiny_cifar(cache, monkeypatch):
    """An archive of the form of CIFAR-10's, with one image in each of its six files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
            red, green, blue = (np.full(1024, 51 * value, np.uint8) for value in (i, 5 - i, 1))
            green[1] = 255  # the second pixel of the first row
            content = bytes([9 - i]) + b"".join(map(bytes, (red, green, blue)))
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    sha256 = hashlib.sha256(file.getvalue()).hexdigest()
    with serve(lambda handler: whole(handler, file.getvalue())) as (url, _):
        monkeypatch.setattr(data, "CIFAR10", ("cifar-10-binary.tar.gz", url, sha256))
        data._cifar10.cache_clear()
        yield
    data._cifar10.cache_clear()


def test_cifar_is_downloaded_with_colors_and_rows_in_place(tiny_cifar):
    images, labels = data.cifar10()
    assert images.shape == (6, 3, 32, 32) and images.dtype == torch.float32
    assert labels.tolist() == [9, 8, 7, 6, 5, 4] and labels.dtype == torch.int64
    assert images[:, 0, 5, 5].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert images[:, 1, 5, 5].tolist() == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    assert images[0, :, 0, 1].tolist() == pytest.approx([0, 1, 0.2])
    assert len(data.cifar10(2)[0]) == 2
    with pytest.raises(ValueError, match="n must be between 1 and number of images = 6, got 7"):
        data.cifar10(7)


def test_cifar_without_network_says_so(cache, monkeypatch):
    monkeypatch.setattr(
        data, "CIFAR10", ("cifar.tar.gz", "http://127.0.0.1:9/cifar.tar.gz", SHA256)
    )
    data._cifar10.cache_clear()
    with pytest.raises(DownloadError, match="COMPANION_SCALE=small"):
        data.cifar10()


@pytest.mark.parametrize("file", [data.MNIST, data.CIFAR10], ids=["mnist", "cifar10"])
def test_the_checksum_is_a_sha256(file):
    name, url, sha256 = file
    assert url.startswith("https://") and url.endswith(name)
    assert len(sha256) == 64 and int(sha256, 16)


def test_mnist_has_500_of_each_digit_taking_turns():
    images, labels = data.mnist()
    assert images.shape == (5000, 784) and images.dtype == torch.float32
    assert labels.shape == (5000,) and labels.dtype == torch.int64
    assert images.min() == 0 and images.max() == 1
    assert torch.equal(labels, torch.arange(10).repeat(500))


def test_mnist_images_belong_to_their_labels():
    from sklearn.neighbors import KNeighborsClassifier

    images, labels = data.mnist(1500)
    model = KNeighborsClassifier(1).fit(images[:1000], labels[:1000])
    assert model.score(images[1000:], labels[1000:]) > 0.8


def test_mnist_takes_a_prefix():
    images, labels = data.mnist(25)
    assert torch.equal(images, data.mnist()[0][:25])
    assert torch.equal(labels, data.mnist()[1][:25])


@pytest.mark.parametrize("n", [0, -1, 5001])
def test_mnist_has_no_more_than_it_has(n):
    with pytest.raises(ValueError, match=f"between 1 and number of images = 5000, got {n}"):
        data.mnist(n)


def test_digits():
    images, labels = data.digits()
    assert images.shape == (1797, 64) and images.dtype == torch.float32
    assert labels.shape == (1797,) and labels.dtype == torch.int64
    assert images.min() == 0 and images.max() == 1
    assert sorted(set(labels.tolist())) == list(range(10))


def test_photos():
    photos = data.photos()
    assert [tuple(photo.shape) for photo in photos] == [(427, 640, 3)] * 2
    assert all(photo.dtype == torch.float32 for photo in photos)
    assert all(photo.min() == 0 and photo.max() == 1 for photo in photos)
    assert not torch.equal(*photos)


def test_faces_are_faces():
    faces = data.faces()
    assert faces.shape == (100, 625) and faces.dtype == torch.float32
    assert 0 <= faces.min() and faces.max() <= 1
    # The file's other half is background, some of it blank; no face is.
    from skimage.data import lfw_subset

    other = torch.from_numpy(lfw_subset()[100:]).float().flatten(1)
    assert faces.std(1).min() > 0.05 > other.std(1).min()


def write_over(value):
    for part in value if isinstance(value, tuple | list) else [value]:
        part.fill_(0)


@pytest.mark.parametrize("load", ["mnist", "digits", "photos", "faces"])
def test_a_caller_cannot_spoil_the_data_of_the_next(load):
    load = getattr(data, load)
    write_over(load())
    fresh = load()
    assert all(part.any() for part in (fresh if isinstance(fresh, tuple | list) else [fresh]))


# Patches


@pytest.fixture
def numbered():
    """Two images in which every pixel is different."""
    return torch.arange(2 * 6 * 9).reshape(2, 6, 9) / 108


@pytest.mark.parametrize("flat", [False, True])
def test_patches_are_the_windows_of_the_images(numbered, flat):
    images = torch.arange(2 * 64).reshape(2, 8, 8) / 128 if flat else numbered
    windows = unfold(images[:, None], 3).transpose(1, 2).flatten(0, 1)
    patches = data.mnist_patches(
        2000, 3, seeded(), min_sum=0, images=images.flatten(1) if flat else images
    )
    counts = (patches[:, None] == windows).all(2).sum(0)
    assert counts.sum() == 2000  # every patch is exactly one of the windows
    expected = 2000 / len(windows)
    assert (counts - expected).abs().max() < 5 * expected**0.5  # uniformly drawn


def test_only_bright_patches_are_kept():
    patches = data.mnist_patches(4000, generator=seeded())
    assert patches.shape == (4000, 64) and patches.dtype == torch.float32
    sums = patches.sum(1)
    assert sums.min() >= 8**0.5
    assert sums.min() < 8**0.5 + 0.2  # and the threshold is no higher
    assert patches.mean() > 0.1  # not centered


def test_bright_patches_are_drawn_uniformly_from_all_bright_places():
    images = data.mnist(200)[0].unflatten(1, (28, 28))
    sums = avg_pool2d(images[:, None], 8, stride=1) * 64
    bright = sums[sums >= 8**0.5]
    drawn = data.mnist_patches(20000, generator=seeded(), images=images).sum(1)
    assert abs(drawn.mean() - bright.mean()) < 5 * bright.std() / 20000**0.5


def test_one_bright_place_is_found_among_millions():
    images = torch.zeros(4000, 28, 28)
    images[3999, 20:, 20:] = 0.05
    patches = data.mnist_patches(10, generator=seeded(), min_sum=3.1, images=images)
    assert torch.allclose(patches, torch.tensor(0.05))


def test_a_threshold_nothing_reaches_is_an_error():
    with pytest.raises(ValueError, match=r"min_sum = 65.*largest sum is 64"):
        data.mnist_patches(1, min_sum=65, images=torch.ones(1, 8, 8))


def test_a_patch_of_the_whole_image():
    image = torch.rand(1, 8, 8)
    assert torch.equal(
        data.mnist_patches(2, 8, min_sum=0, images=image), image.flatten(1).expand(2, -1)
    )


def test_patches_have_the_dtype_of_their_images(numbered):
    assert data.mnist_patches(2, 3, images=numbered.double(), min_sum=0).dtype == torch.float64


@pytest.mark.parametrize("size", [0, 7])
def test_a_patch_larger_than_the_image_is_an_error(numbered, size):
    with pytest.raises(ValueError, match=f"size must be between 1 and .* = 6, got {size}"):
        data.mnist_patches(1, size, images=numbered)


def test_no_patches_is_an_error(numbered):
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        data.mnist_patches(0, images=numbered)


@pytest.mark.parametrize(
    ("images", "error"),
    [
        (torch.ones(2, 10), ValueError),
        (torch.ones(2, 3, 8, 8), ValueError),
        (torch.ones(8), ValueError),
        (torch.full((1, 8, 8), float("nan")), ValueError),
        (torch.ones(1, 8, 8, dtype=torch.uint8), TypeError),
        (np.ones((1, 8, 8)), TypeError),
    ],
)
def test_images_of_another_form_are_an_error(images, error):
    with pytest.raises(error, match="images"):
        data.mnist_patches(1, images=images)


def test_photo_patches_come_from_the_gray_photos():
    from skimage.color import rgb2gray

    patches = data.photo_patches(5, 16, seeded())
    assert patches.shape == (5, 256) and patches.dtype == torch.float32
    gray = torch.stack([torch.from_numpy(rgb2gray(p.numpy())) for p in data.photos()])
    for patch in patches:
        places = (gray[:, :-15, :-15] == patch[0]).nonzero().tolist()
        windows = [gray[k, i : i + 16, j : j + 16].flatten() for k, i, j in places]
        assert any(torch.equal(window, patch) for window in windows)


@pytest.mark.parametrize("draw", [data.mnist_patches, data.photo_patches])
def test_the_generator_decides_the_patches(draw):
    assert torch.equal(draw(9, 4, seeded(1)), draw(9, 4, seeded(1)))
    assert not torch.equal(draw(9, 4, seeded(1)), draw(9, 4, seeded(2)))


# Synthetic data


@pytest.mark.parametrize("d", [1, 2, 7, 30])
def test_random_orthogonal_is_orthogonal(d):
    Q = data.random_orthogonal(d, seeded())
    assert Q.dtype == torch.float64
    assert torch.allclose(Q @ Q.T, torch.eye(d, dtype=torch.float64), atol=1e-13)


def test_random_orthogonal_is_uniform():
    # Without the sign fix the first column of LAPACK's Q has a negative first entry always, and
    # the trace is far from its Haar law: mean 0 and variance 1.
    n, g = 600, seeded()
    Q = torch.stack([data.random_orthogonal(3, g) for _ in range(n)])
    trace = Q.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(trace.mean()) < 5 / n**0.5
    assert abs(trace.var() - 1) < 5 * (2 / n) ** 0.5  # E trace^4 = 3, as for a normal
    assert (Q.mean(0).abs() < 5 / (3 * n) ** 0.5).all()
    determinant = (torch.linalg.cross(Q[:, 0], Q[:, 1]) * Q[:, 2]).sum(1)
    assert determinant.mean().abs() < 5 / n**0.5  # rotations and reflections alike


def test_subspace_samples_lie_on_their_subspace():
    X, U = data.subspace_samples(50, 12, 3, generator=seeded())
    assert X.shape == (50, 12) and U.shape == (12, 3)
    assert torch.allclose(U.T @ U, torch.eye(3, dtype=torch.float64), atol=1e-13)
    assert torch.allclose(X @ U @ U.T, X, atol=1e-12)
    assert torch.linalg.matrix_rank(X) == 3


def test_subspace_samples_have_the_stated_covariance():
    X, U = data.subspace_samples(40000, 5, 2, noise=0.5, generator=seeded())
    covariance = U @ U.T + 0.25 * torch.eye(5, dtype=torch.float64)
    # An entry's standard error is at most sqrt(2) * 1.25 / sqrt(n).
    assert (X.T @ X / 40000 - covariance).abs().max() < 5 * 1.25 * (2 / 40000) ** 0.5
    assert X.mean(0).abs().max() < 5 * (1.25 / 40000) ** 0.5


@pytest.mark.parametrize("theta", [0.05, 0.3, 1.0])
def test_bernoulli_gaussian_has_the_stated_moments(theta):
    n = 200_000
    z = data.bernoulli_gaussian(n // 4, 4, theta, generator=seeded()).flatten()
    assert abs((z != 0).double().mean() - theta) <= 5 * (theta * (1 - theta) / n) ** 0.5
    assert abs(z.mean()) < 5 / n**0.5
    assert abs(z.square().mean() - 1) < 5 * ((3 / theta - 1) / n) ** 0.5
    fourth, eighth = 3 / theta, 105 / theta**3
    assert abs(z.pow(4).mean() - fourth) < 5 * ((eighth - fourth**2) / n) ** 0.5


def test_bernoulli_gaussian_entries_are_independent():
    z = data.bernoulli_gaussian(100_000, 2, 0.3, generator=seeded())
    support = (z != 0).double()
    assert abs(torch.corrcoef(z.T)[0, 1]) < 5 / 100_000**0.5
    assert abs(torch.corrcoef(support.T)[0, 1]) < 5 / 100_000**0.5


@pytest.mark.parametrize("counts", [(100, 100, 158), (1, 5, 2)])
def test_two_lines_and_a_plane_without_noise(counts):
    X, labels = data.two_lines_and_a_plane(0, counts, seeded())
    assert X.shape == (sum(counts), 3) and labels.dtype == torch.int64
    assert torch.bincount(labels).tolist() == list(counts) and (labels.diff() >= 0).all()
    for line, direction in enumerate([[0.6, 0, 0.8], [0, -0.6, 0.8]]):
        t = X[labels == line] @ torch.tensor(direction).double()
        exact = t[:, None] * torch.tensor(direction, dtype=torch.float64)
        assert torch.allclose(X[labels == line], exact, atol=1e-7)
        assert t.abs().max() <= 1 + 1e-7
    assert not X[labels == 2, 2].any() and X[labels == 2].abs().max() <= 1


def test_two_lines_and_a_plane_are_filled_evenly():
    n = 20_000
    X, labels = data.two_lines_and_a_plane(0.0, (n, n, n), seeded())
    t = torch.stack([X[labels == 0, 0] / 0.6, X[labels == 1, 1] / -0.6, *X[labels == 2, :2].T])
    # Uniform on [-1, 1]: variance 1/3, fourth moment 1/5.
    assert (t.mean(1).abs() < 5 * (1 / 3 / n) ** 0.5).all()
    assert ((t.square().mean(1) - 1 / 3).abs() < 5 * ((1 / 5 - 1 / 9) / n) ** 0.5).all()
    assert abs((t[2] * t[3]).mean()) < 5 * (1 / 9 / n) ** 0.5  # coordinates are independent


def test_the_noise_is_the_root_of_its_mean_squared_length():
    still, moved = (data.two_lines_and_a_plane(noise, generator=seeded()) for noise in (0, 0.05))
    assert len(moved[0]) == 358 and torch.equal(still[1], moved[1])
    e = (moved[0] - still[0]) / (0.05 / 3**0.5)
    assert abs(e.square().mean() - 1) < 5 * (2 / e.numel()) ** 0.5
    assert (e.mean(0).abs() < 5 / 358**0.5).all()


DRAWS = {
    "random_orthogonal": lambda **options: data.random_orthogonal(4, **options),
    "subspace_samples": lambda **options: data.subspace_samples(6, 4, 2, 0.1, **options)[0],
    "subspace_basis": lambda **options: data.subspace_samples(6, 4, 2, **options)[1],
    "bernoulli_gaussian": lambda **options: data.bernoulli_gaussian(6, 4, 0.5, **options),
    "two_lines_and_a_plane": lambda **options: data.two_lines_and_a_plane(**options)[0],
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_generator_decides_and_nothing_else(draw):
    state = torch.get_rng_state()
    first, again, other = (draw(generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(draw(), first)  # without one, torch's own


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_dtype_is_the_one_asked_for(draw, dtype):
    value = draw(generator=seeded(), dtype=dtype)
    assert value.dtype == dtype
    wide = torch.promote_types(dtype, torch.float32)
    assert torch.equal(value, draw(generator=seeded(), dtype=wide).to(dtype))


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_an_integer_dtype_is_a_type_error(draw):
    with pytest.raises(TypeError, match=r"dtype must be a floating-point type, got torch\.int64"):
        draw(dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.random_orthogonal(0), "d must be at least 1, got 0"),
        (lambda: data.subspace_samples(0, 4, 2), "n must be at least 1, got 0"),
        (lambda: data.subspace_samples(5, 4, 0), "k must be between 1 and d = 4, got 0"),
        (lambda: data.subspace_samples(5, 4, 5), "k must be between 1 and d = 4, got 5"),
        (lambda: data.subspace_samples(5, 4, 2, -0.1), "noise must be at least 0, got -0.1"),
        (lambda: data.subspace_samples(5, 4, 2, float("inf")), "noise must be at least 0 and fin"),
        (lambda: data.bernoulli_gaussian(0, 4, 0.5), "n must be at least 1, got 0"),
        (lambda: data.bernoulli_gaussian(5, 0, 0.5), "d must be at least 1, got 0"),
        (lambda: data.two_lines_and_a_plane(-0.1), "noise must be at least 0, got -0.1"),
        (lambda: data.two_lines_and_a_plane(float("nan")), "noise must be at least 0, got nan"),
        (lambda: data.two_lines_and_a_plane(0.1, (3, 0, 4)), "counts must be at least 1, got 0"),
        (lambda: data.bernoulli_gaussian(5, 4, 0.0), r"theta must be in \(0, 1\], got 0.0"),
        (lambda: data.bernoulli_gaussian(5, 4, 1.1), r"theta must be in \(0, 1\], got 1.1"),
        (lambda: data.bernoulli_gaussian(5, 4, float("nan")), r"theta must be in \(0, 1\]"),
    ],
)
def test_impossible_sizes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: data.mnist(2.5), "n"),
        (lambda: data.mnist(True), "n"),
        (lambda: data.mnist_patches(2.5), "n"),
        (lambda: data.mnist_patches(2, 2.5), "size"),
        (lambda: data.photo_patches(2, 2.5), "size"),
        (lambda: data.random_orthogonal(2.5), "d"),
        (lambda: data.subspace_samples(2.5, 4, 2), "n"),
        (lambda: data.subspace_samples(5, 4.5, 2), "d"),
        (lambda: data.subspace_samples(5, 4, 1.5), "k"),
        (lambda: data.bernoulli_gaussian(2.5, 4, 0.5), "n"),
        (lambda: data.bernoulli_gaussian(5, 4.5, 0.5), "d"),
        (lambda: data.two_lines_and_a_plane(0.1, (3, 2.5, 4)), "counts"),
    ],
)
def test_sizes_are_integers(call, name):
    with pytest.raises(TypeError, match=f"^{name} must be an integer, got (.*.5|True)$"):
        call()

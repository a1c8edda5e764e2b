import re
import tomllib
from pathlib import Path

import pytest

from companion_lib import sections
from companion_lib.sections import UnknownSection, read, registry, section

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "book" / "sections.yml"
CHAPTER_2 = {
    "subspace": "2.1",
    "pca": "2.1.1",
    "power-iteration": "2.1.2",
    "online-pca": "2.1.3",
    "ppca": "2.1.4",
    "matrix-completion": "2.1.5",
    "mixtures": "2.2",
    "sparsely-used-dictionaries": "2.2.1",
    "complete-dictionary-learning": "2.2.2",
    "ica": "2.2.3",
    "overcomplete": "2.3",
    "sparse-coding": "2.3.1",
    "overcomplete-dictionary-learning": "2.3.2",
    "learned-sparse-coding": "2.3.3",
    "ch2-summary": "2.4",
    "ch2-exercises": "2.5",
}


def entry(anchor="a", v2='"8.10"', v1="null", title="T"):
    return f"- {{anchor: {anchor}, v2: {v2}, v1: {v1}, title: {title}}}\n"


def write(folder, *entries):
    path = folder / "sections.yml"
    path.write_text("".join(entries))
    return path


def test_the_anchors_of_chapter_2_have_the_numbers_of_version_2():
    chapter = {s.anchor: s.v2 for s in registry().values() if s.v2.startswith("2.")}
    assert chapter == CHAPTER_2


def test_anchors_are_short_kebab_case():
    for anchor in registry():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", anchor) and len(anchor) <= 42, anchor


def test_the_numbers_form_one_tree_without_gaps_in_the_order_of_the_book():
    numbers = [s.v2 for s in registry().values()]
    chapters = [n for n in numbers if "." not in n]
    assert chapters == [*"123456789", "A", "B"]
    for number in numbers:
        head, _, last = number.rpartition(".")
        if head:
            before = head if last == "1" else f"{head}.{int(last) - 1}"
            assert before in numbers[: numbers.index(number)], number

    def key(number):
        return [int(part) if part.isdigit() else 100 + ord(part) for part in number.split(".")]

    assert numbers == sorted(numbers, key=key)


def test_version_1_numbers_follow_the_chapters_they_moved_from():
    moved = dict(zip("123456789AB", "12334567" + "8AB", strict=True))
    for s in registry().values():
        if s.v1 is not None:
            assert s.v1.split(".")[0] == moved[s.v2.split(".")[0]], s


@pytest.mark.parametrize(
    ("anchor", "v1"),
    [
        ("online-pca", None),
        ("ppca", "2.1.3"),
        ("matrix-completion", "2.1.4"),
        ("rate-reduction", "3.4.2"),
        ("crate", "4.2.2"),
        ("masked-autoencoding", "7.6"),
    ],
)
def test_version_1_numbers(anchor, v1):
    assert section(anchor).v1 == v1


def test_every_section_has_a_title():
    assert all(s.title.strip() == s.title and s.title for s in registry().values())


def test_a_misspelled_anchor_is_answered_with_the_closest():
    with pytest.raises(UnknownSection, match=r"'power-iterations'; did you mean 'power-iteration'"):
        section("power-iterations")
    with pytest.raises(KeyError) as caught:
        section("qqqqqqqq")
    message = str(caught.value)
    assert message == "no section of the book has the anchor 'qqqqqqqq'; see book/sections.yml"


def test_a_number_is_not_an_anchor():
    with pytest.raises(UnknownSection):
        section("2.1.1")
    with pytest.raises(UnknownSection):
        section(None)


@pytest.mark.parametrize("numbers", [{"v2": "8.10"}, {"v1": "8.10"}])
def test_a_number_without_quotes_is_refused(tmp_path, numbers):
    with pytest.raises(ValueError, match="quotes around the numbers of 'a'"):
        read(write(tmp_path, entry(**numbers)))


def test_quoted_numbers_keep_their_zeros(tmp_path):
    assert read(write(tmp_path, entry()))["a"].v2 == "8.10"


def test_duplicates_are_refused(tmp_path):
    with pytest.raises(ValueError, match="anchor a occurs more than once"):
        read(write(tmp_path, entry(), entry(v2='"8.11"')))
    with pytest.raises(ValueError, match=r"v2 8\.10 occurs more than once"):
        read(write(tmp_path, entry(), entry("b")))


@pytest.fixture
def places(tmp_path, monkeypatch):
    source, wheel = tmp_path / "book" / "sections.yml", tmp_path / "lib" / "sections.yml"
    for path, title in ((source, "source"), (wheel, "wheel")):
        path.parent.mkdir()
        path.write_text(entry(title=title))
    monkeypatch.setattr(sections, "PLACES", (source, wheel))
    registry.cache_clear()
    yield source, wheel
    registry.cache_clear()


def test_the_source_tree_wins_over_the_copy_in_the_package(places):
    assert section("a").title == "source"


def test_a_wheel_reads_its_own_copy(places):
    places[0].unlink()
    assert section("a").title == "wheel"


def test_this_checkout_reads_the_registry_in_book():
    assert sections.PLACES[0] == SOURCE and SOURCE.exists()


def test_the_wheel_carries_the_registry_beside_the_module():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    copied = build["targets"]["wheel"]["force-include"]["book/sections.yml"]
    assert sections.PLACES[1] == ROOT / copied

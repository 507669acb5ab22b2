from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from orchestra_graph.errors import MissingError
from orchestra_graph.tools.dense_index import DenseIndex

DIMENSIONS = 16
Vectors = npt.NDArray[np.float32]


def unit(count: int, seed: int = 0) -> Vectors:
    """Vectors around a few hundred centres, as texts lie around what they are about."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((300, DIMENSIONS))
    made = centres[chance.integers(300, size=count)] + 0.3 * chance.standard_normal((count, DIMENSIONS))
    normalised: Vectors = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return normalised


def nearest(vectors: Vectors, asked: Vectors, depth: int) -> npt.NDArray[np.int64]:
    best: npt.NDArray[np.int64] = np.argsort(-(asked @ vectors.T), axis=1)[:, :depth]
    return best


@pytest.fixture(scope="module")
def grouped() -> DenseIndex:
    index = DenseIndex.empty(DIMENSIONS)
    index.add(range(30_000), unit(30_000))
    assert index.regroup()
    return index


def test_a_small_index_is_exact() -> None:
    vectors, asked = unit(2_000), unit(20, seed=1)
    index = DenseIndex.empty(DIMENSIONS)
    index.add(np.arange(2_000) + 500, vectors)
    assert not index.regroup()
    ids, cosines = index.search(asked, 5)
    true = np.take_along_axis(asked @ vectors.T, nearest(vectors, asked, 5), axis=1)
    assert cosines == pytest.approx(true, abs=2e-3)  # half precision: near ties may change places
    assert np.einsum("qd,qkd->qk", asked, vectors[ids - 500]) == pytest.approx(true, abs=2e-3)
    assert (len(index), index.dimensions, index.groups) == (2_000, DIMENSIONS, 1)


def test_groups_find_nearly_what_an_exact_search_finds(grouped: DenseIndex) -> None:
    vectors, asked = unit(30_000), unit(200, seed=1)
    assert 64 <= grouped.groups <= 512
    assert grouped.searched_groups < grouped.groups
    true = nearest(vectors, asked, 10)
    exact, _ = grouped.search(asked, 10, exact=True)
    found, _ = grouped.search(asked, 10)
    shares = {
        name: np.mean([len(set(a) & set(b)) / 10 for a, b in zip(true.tolist(), ids.tolist(), strict=True)])
        for name, ids in (("exact", exact), ("found", found))
    }
    assert shares["exact"] > 0.98
    assert shares["found"] > 0.9


def test_saved_and_mapped_it_answers_the_same(grouped: DenseIndex, tmp_path: Path) -> None:
    grouped.save(tmp_path / "v.faiss")
    asked = unit(50, seed=2)
    expected, cosines = grouped.search(asked, 10)
    for mapped in (True, False):
        opened = DenseIndex.open(tmp_path / "v.faiss", mapped=mapped)
        found, same = opened.search(asked, 10)
        assert found.tolist() == expected.tolist()
        assert same == pytest.approx(cosines)
        assert (opened.searched_groups, len(opened)) == (grouped.searched_groups, len(grouped))
        assert sorted(opened.ids().tolist()) == list(range(30_000))


def test_vectors_are_added_and_removed_in_an_index_with_groups(grouped: DenseIndex, tmp_path: Path) -> None:
    grouped.save(tmp_path / "v.faiss")
    index = DenseIndex.open(tmp_path / "v.faiss", mapped=False)
    index.remove(np.arange(0, 30_000, 2))
    late = unit(1_000, seed=3)
    index.add(np.arange(50_000, 51_000), late)
    assert not index.regroup()
    assert sorted(index.ids().tolist()) == [*range(1, 30_000, 2), *range(50_000, 51_000)]
    found, _ = index.search(late[:100], 1)
    assert np.mean(found[:, 0] == np.arange(50_000, 50_100)) > 0.95
    left, _ = index.search(unit(100), 5)
    assert np.all((left % 2 == 1) | (left >= 50_000))


@pytest.mark.slow
def test_groups_are_made_anew_when_they_are_outgrown() -> None:
    index = DenseIndex.empty(DIMENSIONS)
    index.add(range(21_000), unit(21_000))
    assert index.regroup()
    before = index.groups
    index.add(range(21_000, 100_000), unit(79_000, seed=4))
    assert index.regroup()
    assert index.groups >= 2 * before
    assert len(index) == 100_000
    assert not index.regroup()


def test_a_short_index_fills_up_with_no_id() -> None:
    index = DenseIndex.empty(DIMENSIONS)
    index.add([4], unit(1))
    assert index.search(unit(1), 3)[0].tolist() == [[4, -1, -1]]
    assert DenseIndex.empty(DIMENSIONS).ids().tolist() == []


def test_a_file_that_is_gone_and_a_library_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        DenseIndex.open(tmp_path / "gone")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingError, match=r"the extra `search` is missing; fix: pip install .*faiss-cpu"):
        DenseIndex.open(tmp_path / "gone")

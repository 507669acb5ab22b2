"""Vectors of passages in a Faiss file, read through a memory map.

The index is an inverted file (IVF) over half-precision vectors (`QT_fp16`), compared by inner product. Of the Faiss
indexes that can be mapped it is the one that lets vectors be removed by id; half precision is as fast as eight bits,
loses no recall that can be measured, and needs no training, so vectors that come later fit as well as the first.

Vectors go into one list as they come and are searched exactly. Once there are enough, they are grouped by k-means, and
as many groups are searched as find 95 % of the true neighbours of a sample of the vectors themselves. Groups are made
anew when the index has outgrown them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestra_graph.tools.documents import search_module

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]

_EXACT: Final = 20_000
"""Vectors up to which one list is searched whole: about 1 ms at 256 dimensions."""
_OUTGROWN: Final = 2
"""Groups are made anew when there should be this many times as many."""
_TRAINED_PER_GROUP: Final = 64
_ROUNDS: Final = 10
"""Of k-means."""
_RECALL: Final = 0.95
_SAMPLE: Final = 256
"""Vectors whose true neighbours are looked for, to choose how many groups a search looks into."""
_NEIGHBOURS: Final = 10
_CHUNK: Final = 16_384
"""Vectors taken out of the lists at a time."""
_SEED: Final = 20_090_719


class DenseIndex:
    """Vectors by id; see the module. Searching is safe from several threads, changing is not.

    Make one with `empty` or `open`.
    """

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def empty(cls, dimensions: int) -> DenseIndex:
        """An index without vectors.

        Raises:
            MissingError: Faiss is not installed; it comes with the extra `search`.
        """
        numpy = search_module("numpy")
        return cls(_inverted_file(numpy.zeros((1, dimensions), numpy.float32)))

    @classmethod
    def open(cls, path: Path, *, mapped: bool = True) -> DenseIndex:
        """Open a file.

        Args:
            path: What `save` wrote.
            mapped: For reading only, through a memory map; otherwise all of it is read, and can be changed.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: It is no Faiss index, or damaged.
            MissingError: See `empty`.
        """
        faiss = search_module("faiss")
        try:
            return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0))
        except RuntimeError as error:  # Faiss has no other
            if not path.is_file():
                raise FileNotFoundError(f"{str(path)!r} is not there") from error
            said = str(error).strip().splitlines()[-1]
            raise OSError(
                f"{str(path)!r} holds no vectors ({said}); fix: delete it and build the index again"
            ) from error

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return int(self._index.d)

    @property
    def groups(self) -> int:
        """Lists that the vectors are in."""
        return int(self._index.nlist)

    @property
    def searched_groups(self) -> int:
        """Lists that a search looks into."""
        return int(self._index.nprobe)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def ids(self) -> Ids:
        """All ids, in no order."""
        numpy = search_module("numpy")
        lists = [self._list(number)[0] for number in range(self.groups)]
        found: Ids = numpy.concatenate([part.copy() for part in lists])
        return found

    def add(self, ids: Sequence[int] | Ids, vectors: Matrix) -> None:
        """Add vectors of length one under ids that are not there yet."""
        numpy = search_module("numpy")
        self._index.add_with_ids(vectors, numpy.asarray(ids, dtype=numpy.int64))

    def remove(self, ids: Ids) -> None:
        """Remove vectors."""
        self._index.remove_ids(ids)

    def search(self, vectors: Matrix, depth: int, *, exact: bool = False) -> tuple[Ids, Matrix]:
        """Ids and cosines of the nearest vectors, a row for each vector asked; id -1 fills a row that is short.

        Args:
            vectors: Of length one.
            depth: Neighbours wanted.
            exact: Look into all groups.
        """
        faiss = search_module("faiss")
        looked_into = faiss.SearchParametersIVF(nprobe=self.groups if exact else self.searched_groups)
        cosines, ids = self._index.search(vectors, depth, params=looked_into)
        return ids, cosines

    def regroup(self) -> bool:
        """Group the vectors where there are enough and the groups have been outgrown; tells whether it did."""
        wanted = _groups_for(len(self))
        if wanted < _OUTGROWN * self.groups:
            return False
        grouped = _inverted_file(self._centres(wanted))
        for ids, vectors in self._chunks():
            grouped.add_with_ids(vectors, ids)
        self._index = grouped
        self._choose_search()
        return True

    def save(self, path: Path) -> None:
        """Write the index to a file.

        Raises:
            OSError: The file cannot be written.
        """
        try:
            search_module("faiss").write_index(self._index, str(path))
        except RuntimeError as error:
            raise OSError(f"{str(path)!r} cannot be written: {str(error).strip().splitlines()[-1]}") from error

    def _centres(self, groups: int) -> Matrix:
        faiss = search_module("faiss")
        sample = self._sample(groups * _TRAINED_PER_GROUP)
        kmeans = faiss.Kmeans(
            self.dimensions,
            groups,
            niter=_ROUNDS,
            seed=_SEED,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=_TRAINED_PER_GROUP,
        )
        kmeans.train(sample)
        centres: Matrix = kmeans.centroids
        return centres

    def _choose_search(self) -> None:
        """Double the groups looked into until a sample of the vectors finds its true neighbours."""
        sample = self._sample(_SAMPLE)
        true, _ = self.search(sample, _NEIGHBOURS + 1, exact=True)
        while self.searched_groups < self.groups:
            found, _ = self.search(sample, _NEIGHBOURS + 1)
            # The first neighbour of each is the vector itself.
            shares = [len(set(a[1:]) & set(b[1:])) / _NEIGHBOURS for a, b in zip(true, found, strict=True)]
            if sum(shares) / len(shares) >= _RECALL:
                break
            self._index.nprobe = min(2 * self._index.nprobe, self.groups)

    def _sample(self, count: int) -> Matrix:
        """About as many vectors, each as likely as any other."""
        numpy = search_module("numpy")
        random = numpy.random.default_rng(_SEED)
        share = min(1.0, count / len(self))
        parts = [vectors[random.random(len(vectors)) < share] for _, vectors in self._chunks()]
        return numpy.concatenate(parts) if len(self) else numpy.empty((0, self.dimensions), numpy.float32)  # type: ignore[no-any-return]

    def _chunks(self) -> Iterator[tuple[Ids, Matrix]]:
        numpy = search_module("numpy")
        for number in range(self.groups):
            ids, codes = self._list(number)
            for start in range(0, len(ids), _CHUNK):
                part = slice(start, start + _CHUNK)
                yield ids[part].copy(), codes[part].astype(numpy.float32)

    def _list(self, number: int) -> tuple[Ids, Any]:
        """Ids and half-precision vectors of a list, as views into the index."""
        faiss, numpy = search_module("faiss"), search_module("numpy")
        lists = self._index.invlists
        size = lists.list_size(number)
        if not size:
            return numpy.empty(0, numpy.int64), numpy.empty((0, self.dimensions), numpy.float16)
        ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
        codes = faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
        return ids, codes.view(numpy.float16).reshape(size, self.dimensions)


def _groups_for(vectors: int) -> int:
    """A power of two near the square root, so that a search compares about as many centres as vectors of a list."""
    return 1 if vectors <= _EXACT else 2 ** round(math.log2(math.sqrt(vectors)))


def _inverted_file(centres: Matrix) -> Any:
    faiss = search_module("faiss")
    groups, dimensions = centres.shape
    quantizer = faiss.IndexFlatIP(dimensions)
    quantizer.add(centres)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, dimensions, groups, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    index.is_trained = True  # the centres are there, and half precision learns nothing
    return index

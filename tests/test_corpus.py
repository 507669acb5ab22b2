from __future__ import annotations

import gzip
from pathlib import Path

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from orchestra_graph.errors import ConfigError
from orchestra_graph.tools.corpus import CorpusReader, is_corpus

LINES = b"""\
{"id": 7, "contents": "The gannet dives.", "score": 3}
{"_id": "b", "title": "Puffins", "text": "They nest in burrows."}

{"content": "Tides turn."}
"""
PASSAGES = [
    ("7", "", "The gannet dives."),
    ("b", "Puffins", "They nest in burrows."),
    ("corpus.jsonl:4", "", "Tides turn."),
]


def compressed(ending: str, data: bytes) -> bytes:
    match ending:
        case ".gz":
            return gzip.compress(data)
        case ".zst":  # two frames in a row, as tools that append write them
            half = len(data) // 2
            return b"".join(zstandard.ZstdCompressor().compress(part) for part in (data[:half], data[half:]))
    return data


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_reads_each_name_of_a_field_and_each_compression(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"corpus.jsonl{ending}"
    path.write_bytes(compressed(ending, LINES))
    reader = CorpusReader(path)
    assert list(reader) == [*PASSAGES[:2], (f"{path.name}:4", "", "Tides turn.")]
    assert (reader.bad_lines, reader.problem) == (0, "")
    assert reader.bytes_read == path.stat().st_size


def test_bad_lines_are_counted_and_the_first_are_told(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    bad = [
        b'{"contents": ',
        b'{"title": "x"}',
        b'{"text": 5}',
        b"[1]",
        b'{"text": " "}',
        b"\xff\xfe",
        b'{"text": "\\ud800"}',
    ]
    path.write_bytes(b"\n".join([LINES.strip(), *bad, b'{"text": "the last"}']))
    reader = CorpusReader(path)
    assert [text for _, _, text in reader] == [*(text for _, _, text in PASSAGES), "the last"]
    assert reader.bad_lines == len(bad)
    assert reader.problem.startswith(
        "7 lines hold no passage and were left out: line 5: Invalid JSON: EOF while parsing"
    )
    assert (
        "; line 6: expected one of contents, content, text; line 7: text: Input should be a valid string; ..."
        in reader.problem
    )
    assert "\n" not in reader.problem


@pytest.mark.parametrize(
    ("title", "text", "kept"),
    [
        ("Tides", '"Tides"\nThey turn.', ""),
        ("Art", "Art", ""),
        ("C++", "C++ has classes.", ""),
        ("Art", "Arthur was a king.", "Art"),
        ("Art", "The art of war.", "Art"),
    ],
)
def test_a_title_that_the_text_begins_with_is_not_repeated(tmp_path: Path, title: str, text: str, kept: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(orjson.dumps({"title": title, "contents": text}))
    assert list(CorpusReader(path)) == [("corpus.jsonl:1", kept, text)]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("cut", [0.5, 0.99])
def test_a_file_that_breaks_off_is_no_short_corpus(tmp_path: Path, ending: str, cut: float) -> None:
    path = tmp_path / f"corpus.jsonl{ending}"
    whole = compressed(ending, b"".join(b'{"text": "%d"}\n' % n for n in range(5000)))
    path.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(ConfigError, match=r"cannot be read after line \d+ .*expected a whole file.*fix: "):
        list(CorpusReader(path))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_file_that_is_not_compressed_as_it_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"corpus.jsonl{ending}"
    path.write_bytes(LINES)
    with pytest.raises(ConfigError, match="compressed as its ending says"):
        list(CorpusReader(path))


def test_endings() -> None:
    assert all(is_corpus(Path(f"a{ending}")) for ending in (".jsonl", ".JSONL.GZ", ".jsonl.zst"))
    assert not any(is_corpus(Path(name)) for name in ("a.json", "a.gz", "jsonl"))


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20))
def test_every_line_is_a_passage_or_counted(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("corpus") / "c.jsonl.zst"
    lines = b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts)
    path.write_bytes(zstandard.ZstdCompressor().compress(lines))
    reader = CorpusReader(path)
    read = [text for _, _, text in reader]
    assert read == [text for text in texts if text.strip()]
    assert reader.bad_lines == len(texts) - len(read)

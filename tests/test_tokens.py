"""Counts and cuts by tokens: the same as tokenising the whole text, whatever the text."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Plain

from orchestra_graph import tokens as module
from orchestra_graph.errors import ConfigError, MissingError, RouterError
from orchestra_graph.text import clean
from orchestra_graph.tokens import FolderTokenizer, ServerTokenizer
from tests import make_tokenizer
from tests.examples import examples

FOLDER = Path(__file__).parent / "data" / "tokenizer"
PLAIN = Plain.from_file(str(FOLDER / "tokenizer.json"))
TOKENIZER = FolderTokenizer(FOLDER)


def other(tmp_path: Path, **parts: Any) -> Path:
    """A folder with the tokenizer changed in some parts."""
    data = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.json").write_text(json.dumps({**data, **parts}), encoding="utf-8")
    return tmp_path


def whole(text: str) -> list[tuple[int, int]]:
    return list(PLAIN.encode(text, add_special_tokens=False).offsets)


def plain_last(text: str, tokens: int) -> str:
    """The definition, on the tokens of the whole text."""
    offsets = whole(text)
    at = max(0, len(offsets) - tokens)
    while 0 < at < len(offsets) and offsets[at][0] < offsets[at - 1][1]:
        at += 1
    return text if at == 0 else text[offsets[at][0] :] if at < len(offsets) else ""


def plain_first(text: str, tokens: int) -> str:
    offsets = whole(text)
    return text[: offsets[max(0, tokens)][0]] if tokens < len(offsets) else text


WORDS = st.sampled_from(
    "word~ word~it's~'LL~Doc 1:~```python~\n~\n\n~\r\n~ \n~\t~  ~\x1c~\x85~\xa0~\u2028~\u3000~!?~...~1234~\u0301~"
    "e\u0301~q\u0307\u0323~\u0958~\u1100\u1161~\u212b~\ufeff~\u200b~日本語~😀~👩\u200d👩\u200d👧~Straße~'\u017f~\u017f~"
    "<think>~</think>~<|im_end|>~<|im~_start|>".split("~")
)
TEXTS = st.lists(st.one_of(WORDS, st.text(max_size=4)), max_size=40).map("".join).map(clean)


@settings(max_examples=examples(300), deadline=None)
@given(text=TEXTS, length=st.sampled_from([1, 2, 7, 1000]))
@example(text="a\n\n\u0301b", length=1)
@example(text="x \n b\n\n  c\n\n\nd e f", length=1)
def test_segments_have_the_tokens_of_the_whole_text(text: str, length: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SEGMENT", length)
        forward = list(TOKENIZER._segments(text))
        assert "".join(forward) == text
        assert list(TOKENIZER._segments_from_end(text)) == forward[::-1]
        ids = [number for part in forward for number in PLAIN.encode(part, add_special_tokens=False).ids]
        assert ids == PLAIN.encode(text, add_special_tokens=False).ids


@settings(max_examples=examples(300), deadline=None)
@given(text=TEXTS, tokens=st.integers(-1, 60), length=st.sampled_from([1, 5, 1000]))
def test_cuts_are_those_of_the_whole_text(text: str, tokens: int, length: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SEGMENT", length)
        assert TOKENIZER.count(text) == len(whole(text))
        assert TOKENIZER.last(text, tokens) == plain_last(text, max(0, tokens))
        assert TOKENIZER.first(text, tokens) == plain_first(text, max(0, tokens))


@settings(max_examples=examples(200), deadline=None)
@given(text=TEXTS, tokens=st.integers(0, 60))
def test_a_cut_is_a_part_of_the_text_that_leaves_out_no_whole_token(text: str, tokens: int) -> None:
    last, first = TOKENIZER.last(text, tokens), TOKENIZER.first(text, tokens)
    assert text.endswith(last)
    assert text.startswith(first)
    assert TOKENIZER.last(text, 10_000) == TOKENIZER.first(text, 10_000) == text


@pytest.mark.parametrize("character", ["é", "日", "😀", "\ufffd"])
def test_no_character_is_broken(character: str) -> None:
    text = character * 5
    each = TOKENIZER.count(character)
    assert each > 1
    for tokens in range(each * 5 + 1):
        assert TOKENIZER.last(text, tokens) == TOKENIZER.first(text, tokens) == character * (tokens // each)


def test_lone_surrogates_are_replaced() -> None:
    assert TOKENIZER.count("a\ud800b") == TOKENIZER.count("a\ufffdb")
    assert TOKENIZER.last("a\ud800b", 100) == TOKENIZER.first("a\ud800b", 100) == "a\ufffdb"


def test_a_text_is_cut_to_nothing() -> None:
    assert [TOKENIZER.last("word", 0), TOKENIZER.first("word", 0), TOKENIZER.last("", 3), TOKENIZER.first("", 3)] == [
        ""
    ] * 4
    assert TOKENIZER.count("") == 0


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "NFKC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}},
        {
            "added_tokens": [
                {
                    "id": 3000,
                    "content": "<gap>",
                    "single_word": False,
                    "lstrip": True,
                    "rstrip": False,
                    "normalized": False,
                    "special": False,
                }
            ]
        },
    ],
)
def test_a_tokenizer_of_another_build_is_given_whole_texts(parts: dict[str, Any], tmp_path: Path) -> None:
    made = FolderTokenizer(other(tmp_path, **parts))
    text = "one two\n\n<gap>three " * 300
    assert list(made._segments(text)) == list(made._segments_from_end(text)) == [text]
    plain = Plain.from_file(str(tmp_path / "tokenizer.json"))
    offsets = plain.encode(text, add_special_tokens=False).offsets
    assert made.count(text) == len(offsets)
    assert made.last(text, 10) == text[offsets[-10][0] :]


def test_a_tokenizer_without_a_normaliser_is_cut_by_segments(tmp_path: Path) -> None:
    assert len(list(FolderTokenizer(other(tmp_path, normalizer=None))._segments("one two\n\nthree"))) == 2


def test_truncation_in_the_file_is_not_applied(tmp_path: Path) -> None:
    short = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    assert FolderTokenizer(other(tmp_path, truncation=short)).count("word " * 100) == TOKENIZER.count("word " * 100)


def test_the_file_itself_may_be_named() -> None:
    assert FolderTokenizer(FOLDER / "tokenizer.json").count("word") == TOKENIZER.count("word")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer.json' is not there; expected the folder of a model"):
        FolderTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"is no tokenizer.json: .*; fix: download"):
        FolderTokenizer(tmp_path)


def test_without_the_package_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingError, match="the package tokenizers is missing; fix: pip install tokenizers"):
        FolderTokenizer(FOLDER)


def test_counts_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_CHARACTERS", 5_000)
    tokenizer = FolderTokenizer(FOLDER)
    for n in range(500):
        text = f"document {n} " * 10
        assert tokenizer.count(text) == len(whole(text))
        kept = sum(map(len, (*tokenizer._new, *tokenizer._old)))
        assert kept <= 2 * (5_000 + len(text))


def test_what_is_before_the_cut_is_not_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = FolderTokenizer(FOLDER)
    read: list[str] = []
    count = tokenizer._count

    def recorded(part: str) -> int:
        read.append(part)
        return count(part)

    monkeypatch.setattr(tokenizer, "_count", recorded)
    text = "".join(f"Doc {n}: some words of it\n\n" for n in range(10_000))
    assert text.endswith(tokenizer.last(text, 100))
    assert len("".join(read)) < 1_000


@pytest.mark.parametrize("piece", ["\n", "\n\n ", "a\n\n", " ", "a ", "x", "\n\n\u3000", "日"])
def test_odd_texts_are_cut_in_linear_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    started = time.perf_counter()
    assert text.endswith(TOKENIZER.last(text, 1_000))
    assert time.perf_counter() - started < 5.0


# The tokenizer of the tests.


def test_the_tokenizer_of_the_tests_is_built_like_qwen3s() -> None:
    assert make_tokenizer.PATTERN == module.QWEN_PATTERN
    assert len(list(TOKENIZER._segments("one two\n\nthree"))) == 2
    for token in make_tokenizer.SPECIAL + make_tokenizer.TAGS:
        assert PLAIN.encode(token, add_special_tokens=False).tokens == [token]
    assert (FOLDER / "tokenizer.json").stat().st_size < 200_000


# A server.


class _Vllm(BaseHTTPRequestHandler):
    """Answers `/tokenize` and `/detokenize` as vLLM does, with the tokenizer of the tests."""

    refusals: ClassVar[list[int]] = []
    """Statuses of the next answers, from the end."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if _Vllm.refusals:
            return self._answer(_Vllm.refusals.pop(), {"message": "starting"})
        if body["model"] != "router" or self.headers["Authorization"] not in (None, "Bearer key"):
            return self._answer(404, {"message": f"The model `{body['model']}` does not exist."})
        if self.path == "/tokenize":
            ids = PLAIN.encode(body["prompt"], add_special_tokens=body["add_special_tokens"]).ids
            return self._answer(200, {"count": len(ids), "max_model_len": 64, "tokens": ids, "token_strs": None})
        if self.path == "/detokenize":
            return self._answer(200, {"prompt": PLAIN.decode(body["tokens"], skip_special_tokens=False)})
        return self._answer(200 if self.path == "/odd/tokenize" else 404, {"detail": "Not Found"})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Vllm) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


TEXT = "Häuser\n\n日本語 😀😀 e\u0301 <think>it's</think>\r\n word <|im_end|> end"


@pytest.mark.parametrize("tokens", range(0, 70))
def test_a_server_cuts_as_the_folder_does(tokens: int, address: str) -> None:
    served = ServerTokenizer(f"{address}/v1/", "router", api_key="key")
    text = TEXT.replace("e\u0301", "é")
    assert served.blocks
    assert served.last(text, tokens) == TOKENIZER.last(text, tokens)
    assert served.first(text, tokens) == TOKENIZER.first(text, tokens)


@pytest.mark.parametrize("tokens", range(0, 12))
def test_a_server_cuts_a_text_that_holds_the_mark_of_broken_characters(tokens: int, address: str) -> None:
    served = ServerTokenizer(address, "router")
    text = "\ufffd\ufffd end \ufffd\ufffd"
    assert text.endswith(served.last(text, tokens))
    assert text.startswith(served.first(text, tokens))


def test_a_server_counts(address: str) -> None:
    served = ServerTokenizer(address, "router")
    assert [served.count(text) for text in ("", TEXT, "a\ud800")] == [TOKENIZER.count(t) for t in ("", TEXT, "a\ud800")]


def test_what_a_server_has_composed_comes_back_composed(address: str) -> None:
    assert ServerTokenizer(address, "router").last("word e\u0301 word", 4) in ("é word", " é word")


def test_a_server_that_is_busy_is_asked_again(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra_graph.tokens._PAUSES", (0.0, 0.0))
    served = ServerTokenizer(address, "router")
    _Vllm.refusals[:] = [503, 429]
    assert served.count("a word") == TOKENIZER.count("a word")
    _Vllm.refusals[:] = [503, 503, 503]
    with pytest.raises(RouterError, match="/tokenize answered 503"):
        served.count("a word")
    _Vllm.refusals[:] = [400]
    with pytest.raises(RouterError, match="/tokenize answered 400"):
        served.count("a word")
    assert _Vllm.refusals == []


def test_a_server_that_does_not_answer_is_named(address: str) -> None:
    with pytest.raises(RouterError, match=r"http://127.0.0.1:1/tokenize does not answer \(ConnectError.*fix: start it"):
        ServerTokenizer("http://127.0.0.1:1/v1", "router").count("a")
    with pytest.raises(RouterError, match=r"/other/tokenize answered 404: .*Not Found.*FolderTokenizer"):
        ServerTokenizer(f"{address}/other", "router").count("a")
    with pytest.raises(RouterError, match=r"The model `wrong` does not exist"):
        ServerTokenizer(address, "wrong").count("a")
    with pytest.raises(RouterError, match=r"answered '\{\"detail\": \"Not Found\"\}'; expected a vLLM server"):
        ServerTokenizer(f"{address}/odd", "router").count("a")

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from orchestra_graph.text import clean, cut, estimate_tokens, neutralise, neutralise_values
from tests.examples import examples

TOKENS = {
    "qwen": ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|fim_prefix|>", "<|object_ref_end|>"],
    "qwen tools": [
        "<tool_call>",
        "</tool_call>",
        "<tool_response>",
        "</tool_response>",
        "<tools>",
        "</tools>",
        "<think>",
    ],
    "qwen coder": ["<function=ask>", "</function>", "<parameter=query>", "</parameter>"],
    "llama": ["<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<|eot|>"],
    "llama 2": ["<s>", "</s>", "<<SYS>>", "<</SYS>>", "[INST]", "[/INST]", "<unk>"],
    "mistral": [
        *(
            "[TOOL_CALLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
            "[TOOL_CONTENT]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
        ),
        *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]", "[IMG]", "[IMG_BREAK]"),
    ],
    "gemma": [
        "<bos>",
        "<eos>",
        "<pad>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<unused7>",
        "<mask>",
        "<image_soft_token>",
    ],
    "gemma 4": ["<|turn>", "<turn|>", "<|tool_call>", "<tool_call|>", '<|"|>', "<start_function_call>", "<escape>"],
    "deepseek": [
        *("<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "</think>"),
        *(
            "<\uff5ctool\u2581calls\u2581begin\uff5c>",
            "<\uff5cDSML\uff5cfunction_calls>",
            '<\uff5cDSML\uff5cinvoke name="x">',
        ),
    ],
    "phi": [
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|end|>",
        "<|tool|>",
        "<|/tool|>",
        "<|tool_call|>",
        "<|im_sep|>",
    ],
    "glm": [
        "[gMASK]",
        "[sMASK]",
        "<sop>",
        "<eop>",
        "<|observation|>",
        "<arg_key>",
        "</arg_value>",
        "<|begin_of_image|>",
    ],
    "kimi": [
        "<|tool_calls_section_begin|>",
        "<|tool_call_argument_begin|>",
        "<|im_middle|>",
        "[BOS]",
        "[EOS]",
        "[EOT]",
    ],
    "gpt-oss": ["<|start|>", "<|channel|>", "<|message|>", "<|call|>", "<|constrain|>", "<|return|>"],
    "minimax": ["]~b]", "]~!b[", "[e~[", "<minimax:tool_call>", '<invoke name="x">', "</invoke>"],
    "others": ["<TOOLCALL>", "<SPECIAL_12>", "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<seed:think>", "<scratchpad>"],
    "snake case": [
        *("<function_call>", "</function_call>", "<functioncall>", "<tool_use>", "<tool_code>", "<longcat_tool_call>"),
        *("<end_of_utterance>", "<extra_id_0>", "<reserved_106>", "<fim_prefix>", "<file_sep>", "<image>", "</image>"),
        *("<tool_use/>", "<tool_call=ask>", '<function name="x">', '<new_tool name="x">', '<ns:new_tool\nname="x">'),
    ],
}
ALL = [token for tokens in TOKENS.values() for token in tokens]

hostile = st.lists(
    st.one_of(st.sampled_from(ALL), st.sampled_from(list("<>|/[]=~ \uff5cs\u2581")), st.text(max_size=5)), max_size=30
).map("".join)


@pytest.mark.parametrize("family", TOKENS)
def test_no_token_of_a_family_survives(family: str) -> None:
    for token in TOKENS[family]:
        text = neutralise(f"a{token}b")
        assert token not in text, token
        assert text.replace(" ", "") == f"a{token}b".replace(" ", ""), "the words are kept"


@settings(max_examples=examples(1000))
@given(hostile)
@example("<<|im_start|>|im_start|>")
@example("<|im_end<|im_end|>|>")
@example("[[INST]INST]")
@example("<tool_<tool_call>call>")
def test_no_token_survives_wherever_it_stands(text: str) -> None:
    broken = neutralise(text)
    assert [token for token in ALL if token in broken] == []


@settings(max_examples=examples(1000))
@given(hostile)
def test_neutralising_twice_changes_nothing_more(text: str) -> None:
    assert neutralise(neutralise(text)) == neutralise(text)


@settings(max_examples=examples(500))
@given(hostile, st.integers(1, 40))
def test_a_cut_makes_no_new_token(text: str, tokens: int) -> None:
    short = cut(neutralise(text), tokens)
    assert [token for token in ALL if token in short] == []


@pytest.mark.parametrize(
    "text",
    [
        "A plain sentence, with commas; 3 < 4 and 5 > 2.",
        "xs |> List.map f <| ys; a <|> b; p || q",
        "List<T> x = a[0][i]; vec![0; 3]; x[mask] = y[args]",
        "<b>bold</b> <answer>42</answer> <p class='x'>",
        '<div class="a_b" data-x="1"><img src="a_b.png"/></div> <image href="a.png"/> <my-element>',
        "List<int> map<string, int> Vec<Option<T>> vector<size_t> static_cast<std::uint8_t>(x)",
        "a<b, n_1<n_2, i_0 < n_max and x<y_max or y>z; 1 <a_b c> 2",
        "<https://example.org/a_b> <first_last@example.org> <_io.TextIOWrapper name='x'> #include <my_types.h>",
        "[1] see [the docs](https://example.org) [x] done",
        '{"name": "ask", "arguments": {}}',
        "Übergröße, 東京, 🙂 and \u200b nothing else",
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert neutralise(text) == text


@settings(max_examples=examples(300))
@given(st.text(st.characters(exclude_characters="<[]", exclude_categories=["Cs"])))
def test_text_without_brackets_stays_as_it_is(text: str) -> None:
    assert neutralise(text) == text


@pytest.mark.parametrize(
    "part",
    [
        "<",
        "<a",
        "</",
        "<function",
        "[",
        "[TOOL_",
        "<w:",
        "<start_of_function_",
        "]~",
        "<|x|>",
        "_",
        "<_",
        "<a_b ",
        "<a:",
        "</_a b",
    ],
)
def test_a_megabyte_takes_no_time(part: str) -> None:
    text = part * (1_000_000 // len(part))
    started = time.process_time()
    neutralise(text)
    assert time.process_time() - started < 5


def test_every_text_in_a_value_is_neutralised() -> None:
    value = {"a<|x|>": ["<tool_call>", 3, None, {"b": "[INST]"}], "n": 1.5}
    assert neutralise_values(value) == {"a< |x|>": ["< tool_call>", 3, None, {"b": "[ INST]"}], "n": 1.5}


@settings(max_examples=examples(500))
@given(st.text(max_size=400), st.integers(1, 60))
def test_a_cut_keeps_head_and_tail_and_is_no_longer_than_its_limit_and_mark(text: str, tokens: int) -> None:
    short, limit = cut(text, tokens), tokens * 4
    if len(text) <= limit:
        assert short == text
        return
    mark = f"\n[... {len(text) - limit:,} of {len(text):,} characters cut ...]\n"
    head, tail = limit * 2 // 3, limit - limit * 2 // 3
    assert short == text[:head] + mark + text[-tail:]
    assert len(short) == limit + len(mark)


def test_the_mark_says_how_much_was_cut() -> None:
    assert cut("a" * 10_000, 1000) == "a" * 2666 + "\n[... 6,000 of 10,000 characters cut ...]\n" + "a" * 1334


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("naïve 🙂", "naïve 🙂"),
        ("\ud800", "\ufffd"),
        ("a\udc00b", "a\ufffdb"),
        ("\ud83d\ude42", "🙂"),
        ("\ufeff\ud800x", "\ufeff\ufffdx"),
        ("\ud800\ud800\udc00", "\ufffd\U00010000"),
    ],
)
def test_lone_surrogates_are_replaced_and_pairs_joined(text: str, expected: str) -> None:
    assert clean(text) == expected


@settings(max_examples=examples(500))
@given(st.text(st.characters(categories=["Cs", "Lu", "So"])))
def test_what_is_clean_can_be_encoded_and_stays(text: str) -> None:
    assert clean(text).encode().decode() == clean(text)
    assert clean(clean(text)) == clean(text)


def test_tokens_are_a_quarter_of_the_characters() -> None:
    call = {"name": "ask", "args": {"query": "x" * 37}, "id": "1", "type": "tool_call"}
    assert estimate_tokens("") == 1
    assert estimate_tokens("x" * 400) == 101
    assert estimate_tokens([HumanMessage("x" * 40), AIMessage("", tool_calls=[call])]) == 21
    assert estimate_tokens({"a": [None, 12, "abcd"]}) == 2

"""Turns a GGUF file's vocabulary into the tokenizer.json that its family publishes.

It never guesses: a vocabulary whose `tokenizer.ggml.pre` is not listed here is refused.

    python tokenizer_json.py IN.gguf OUT/tokenizer.json
"""

import json
import sys

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

QWEN_REGEX = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)

# GGUF files call these control tokens; the published tokenizer.json says "special": false.
QWEN_PLAIN = {
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>",
    "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>",
}


def _byte_level(add_prefix_space, trim_offsets, use_regex):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space,
            "trim_offsets": trim_offsets, "use_regex": use_regex}


def _added(token_id, content, special):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": special}


def _smollm(tokens, types):
    # Without an unk_token: the published vocabulary lacks 21 bytes, and text loses them.
    added = [_added(i, tokens[i], True) for i, kind in enumerate(types) if kind == CONTROL]
    return {
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, _byte_level(False, True, True)]},
        "post_processor": None,
        "decoder": _byte_level(True, True, True),
    }, {}, tokens


def _qwen2(tokens, types):
    added = [_added(i, tokens[i], kind == CONTROL and tokens[i] not in QWEN_PLAIN)
             for i, kind in enumerate(types) if kind in (CONTROL, USER_DEFINED)]
    vocabulary = [token for token, kind in zip(tokens, types) if kind == NORMAL]
    assert tokens[: len(vocabulary)] == vocabulary, "normal tokens must come first"
    return {
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": QWEN_REGEX}, "behavior": "Isolated",
             "invert": False}, _byte_level(False, False, False)]},
        "post_processor": _byte_level(False, False, False),
        "decoder": _byte_level(False, False, False),
    }, {"continuing_subword_prefix": "", "end_of_word_suffix": ""}, vocabulary


_FAMILIES = {"smollm": _smollm, "qwen2": _qwen2}


def tokenizer_json(metadata):
    """`metadata` maps GGUF keys to Python values; returns the tokenizer.json as a dict."""
    pre = metadata["tokenizer.ggml.pre"]
    if pre not in _FAMILIES:
        raise ValueError(f"tokenizer.ggml.pre {pre!r}: known are {sorted(_FAMILIES)}")
    parts, fields, vocabulary = _FAMILIES[pre](metadata["tokenizer.ggml.tokens"],
                                               metadata["tokenizer.ggml.token_type"])
    model = {"type": "BPE", "dropout": None, "unk_token": None,
             "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
             "byte_fallback": False, "ignore_merges": False}
    model.update(fields)
    model["vocab"] = {token: index for index, token in enumerate(vocabulary)}
    model["merges"] = metadata["tokenizer.ggml.merges"]
    return {"version": "1.0", "truncation": None, "padding": None, **parts, "model": model}


def read_metadata(path):
    """The tokenizer's part of a GGUF file's metadata."""
    import gguf

    fields = gguf.GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items()
            if key.startswith("tokenizer.ggml.")}


def write_tokenizer_json(gguf_path, json_path):
    document = tokenizer_json(read_metadata(gguf_path))
    with open(json_path, "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False)


if __name__ == "__main__":
    write_tokenizer_json(sys.argv[1], sys.argv[2])

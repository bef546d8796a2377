"""Folders with a tokenizer.model that stands for a tokenizer.json; for oracle.py.

The protocol buffer is written by hand: field numbers are those of sentencepiece_model.proto.
"""

import json
import re
import struct

UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def varint(value):
    out = bytearray()
    while value > 0x7f:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def integer(number, value):
    return varint(number << 3) + varint(value)


def message(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def piece(text, score, kind):
    body = message(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
    return message(1, body + (integer(3, kind) if kind != NORMAL else b""))


def write(document, folder, legacy):
    """Pieces without a score of their own are the better the smaller their id is."""
    vocabulary = document["model"]["vocab"]
    is_unigram = isinstance(vocabulary, list)
    if not is_unigram:
        ordered = sorted(vocabulary, key=vocabulary.get)
        vocabulary = [(text, float(-i)) for i, text in enumerate(ordered)]
    added = {token["content"]: token for token in document["added_tokens"]}
    data = b""
    for i, (text, score) in enumerate(vocabulary):
        kind = NORMAL
        if text in added:
            kind = UNKNOWN if i == 0 else CONTROL
        elif re.fullmatch("<0x[0-9A-F]{2}>", text):
            kind = BYTE
        data += piece(text, score, kind)
    data += message(2, integer(3, UNIGRAM if is_unigram else BPE) + integer(35, 1))
    data += message(3, message(1, b"identity"))
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(data)
    decoder = {str(token["id"]): {k: v for k, v in token.items() if k != "id"}
               for token in added.values()}
    config = {"legacy": legacy, "added_tokens_decoder": decoder, "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")

"""Derives the tokenizer's Unicode tables from PyPI `tokenizers` itself.

Its parts follow different Unicode versions (the regex engine, Rust's standard library and the
NFC crate), so no published table fits: every code point is put to the library, and what it does
is written to server/model/tokenizer/*.inc.

    python make_unicode_tables.py           writes the tables
    python make_unicode_tables.py --check   fails if the committed ones differ
"""

import argparse
import pathlib
import sys
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

FOLDER = pathlib.Path(__file__).parents[2] / "server" / "model" / "tokenizer"
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
NFC = normalizers.NFC().normalize_str
NFD = normalizers.NFD().normalize_str
HANGUL = range(0xAC00, 0xD7A4)

# Bits of CharClass in unicode.h.
LETTER, NUMBER, SPACE, NUMERIC, WORD, WHITE_SPACE, PUNCTUATION = 1, 2, 4, 8, 16, 32, 64


def blocks(size=1024):
    for begin in range(0, len(CODE_POINTS), size):
        yield [chr(c) for c in CODE_POINTS[begin:begin + size]]


def regex_members(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    members = set()
    for block in blocks():
        kept = "".join(piece for piece, _ in split.pre_tokenize_str("".join(block)))
        members |= set(block) - set(kept)
    return members


def digits_members():
    split = pre_tokenizers.Digits(individual_digits=True)
    members = set()
    for block in blocks():
        text = "xx" + "xx".join(block) + "xx"
        members |= {piece for piece, _ in split.pre_tokenize_str(text) if len(piece) == 1}
    return members


def added_token_members(**flags):
    """Characters that change how an added token right after them matches."""
    tokenizer = tokenizers.Tokenizer(models.BPE({"A": 0}, []))
    tokenizer.add_tokens([AddedToken("<Q>", normalized=False, **flags)])
    plain, stretched = set(), set()
    for block in blocks():
        text = ".".join(c + "<Q>" for c in block) + "."
        for begin, end in tokenizer.encode(text).offsets:
            if end - begin == 4:
                stretched.add(text[begin])
            elif end - begin == 3 and begin > 0:
                plain.add(text[begin - 1])
    return plain, stretched


def classes():
    every = {chr(c) for c in CODE_POINTS}
    not_word, _ = added_token_members(single_word=True)
    _, white_space = added_token_members(lstrip=True)
    members = [(LETTER, regex_members(r"\p{L}")), (NUMBER, regex_members(r"\p{N}")),
               (SPACE, regex_members(r"\s")), (NUMERIC, digits_members()),
               (WORD, every - not_word), (WHITE_SPACE, white_space),
               (PUNCTUATION, regex_members(r"\p{P}"))]
    bits = [0] * 0x110000
    for bit, characters in members:
        for character in characters:
            bits[ord(character)] |= bit
    return bits


def ranges(values):
    result, begin = [], 0
    for c in range(1, len(values) + 1):
        if c == len(values) or values[c] != values[begin]:
            if values[begin]:
                result.append((begin, c, values[begin]))
            begin = c
    return result


def combining_classes():
    """Canonical combining class by how the library reorders a character among known ones."""
    known = {}
    # Assigned before Unicode 6: every version knows them.
    for c in [*range(0x300, 0x1100), *range(0x1DC0, 0x1DD1), *range(0x3000, 0x3100),
              0xFB1E, 0x1D16D]:
        if c < 0x1100 and unicodedata.ucd_3_2_0.combining(chr(c)) == 0:
            continue
        known.setdefault(unicodedata.combining(chr(c)), chr(c))
    known.pop(0, None)
    values = [0] * 0x110000
    low, high = known[1], known[240]
    for block in blocks():
        for c in block:
            if NFD(c) != c or (NFD(c + low) == c + low and NFD(high + c) == high + c and
                               c not in known.values()):
                continue
            equal = [k for k, other in known.items()
                     if NFD(c + other) == c + other and NFD(other + c) == other + c]
            assert len(equal) == 1, (hex(ord(c)), equal)
            values[ord(c)] = equal[0]
    return values


def decompositions():
    full = {c: NFD(chr(c)) for c in CODE_POINTS
            if c not in HANGUL and NFD(chr(c)) != chr(c)}
    whole = {text: c for c, text in full.items() if NFC(chr(c)) == chr(c)}
    rest = {text: c for c, text in full.items()}
    rows = []
    for c, text in sorted(full.items()):
        if len(text) == 1:
            rows.append((c, ord(text), 0, 0))
            continue
        head, tail = text[:-1], text[-1]
        first = ord(head) if len(head) == 1 else whole.get(head, rest.get(head))
        composes = NFC(chr(c)) == chr(c)
        assert first is not None and NFD(chr(first) + tail) == text, hex(c)
        assert not composes or NFC(chr(first) + tail) == chr(c), hex(c)
        rows.append((c, first, ord(tail), int(composes)))
    return rows


def rows_to_text(rows):
    cells = [",".join(f"0x{value:X}" if value > 9 else str(value) for value in row)
             for row in rows]
    lines, line = [], ""
    for cell in cells:
        if len(line) + len(cell) + 2 > 100:
            lines.append(line)
            line = ""
        line += (" " if line else "") + cell + ","
    return "\n".join(lines + [line]) + "\n"


def tables():
    head = ("// Generated by tests/tools/make_unicode_tables.py from PyPI tokenizers "
            f"{tokenizers.__version__}; do not edit.\n")
    return {
        "unicode_classes.inc": head + "// begin, end, bits of CharClass\n" +
                               rows_to_text(ranges(classes())),
        "combining_classes.inc": head + "// begin, end, canonical combining class\n" +
                                 rows_to_text(ranges(combining_classes())),
        "decompositions.inc": head + "// character, first, second or 0, may be composed\n" +
                              rows_to_text(decompositions()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    failures = 0
    for name, text in tables().items():
        path = FOLDER / name
        if not check:
            path.write_text(text)
        elif path.read_text() != text:
            print(f"{path}: differs from what the library does")
            failures += 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

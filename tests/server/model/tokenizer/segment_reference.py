"""Which segment a token belongs to, worked out slowly and in the open: one owner per byte.

Shares no code and no table with the server: characters are decomposed and composed by asking PyPI
`tokenizers` about them one by one.
"""

import functools
import re
import unicodedata

from tokenizers import normalizers, pre_tokenizers

NFC = normalizers.NFC().normalize_str
NFD = functools.lru_cache(None)(normalizers.NFD().normalize_str)
NO_SEGMENT = -1
META = "\u2581"


@functools.lru_cache(None)
def combining_class(c):
    if NFD(c + "\u0334") == c + "\u0334" and NFD("\u0345" + c) == "\u0345" + c:
        return 0
    return unicodedata.combining(c)


@functools.lru_cache(None)
def compose(first, second):
    text = NFC(first + second)
    return text if len(text) == 1 else None


def nfc(chars):
    """[(character, owner)] -> the same in NFC; what is composed belongs to the earliest."""
    if NFC("".join(c for c, _ in chars)) == "".join(c for c, _ in chars):
        return chars
    parts = [(d, owner) for c, owner in chars for d in NFD(c)]
    ordered, marks = [], []
    for part in parts:
        if combining_class(part[0]) == 0:
            ordered += sorted(marks, key=lambda p: combining_class(p[0])) + [part]
            marks = []
        else:
            marks.append(part)
    ordered += sorted(marks, key=lambda p: combining_class(p[0]))
    out, starter = [], None
    for c, owner in ordered:
        if starter is not None:
            between = out[starter + 1:]
            blocked = any(combining_class(b) == 0 or combining_class(b) >= combining_class(c)
                          for b, _ in between)
            whole = None if blocked else compose(out[starter][0], c)
            if whole is not None:
                out[starter] = (whole, min(out[starter][1], owner))
                continue
        if combining_class(c) == 0:
            starter = len(out)
        out.append((c, owner))
    return out


def byte_alphabet():
    """The character of each byte in a byte-level vocabulary, asked for byte by byte."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    characters = [None] * 256
    for text in [chr(c) for c in range(0x80)] + [chr(c) for c in range(0x80, 0x110000, 0x37)
                                                 if not 0xD800 <= c < 0xE000]:
        for byte, c in zip(text.encode(), split.pre_tokenize_str(text)[0][0]):
            characters[byte] = c
    return characters


class Reference:
    def __init__(self, document):
        self.document = document
        added = document["added_tokens"]
        self.added = {token["id"]: token for token in added}
        self.by_content = {token["content"]: token for token in added}
        names = sorted(self.by_content, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, names))) if names else None
        normalizer = document["normalizer"]
        steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
        # A pattern that matches the front of a text alone puts its content there.
        self.kinds = ["Prepend" if "^" in step.get("pattern", {}).get("Regex", "") else step["type"]
                      for step in steps]
        pre = document["pre_tokenizer"] or {}
        self.scheme = pre["prepend_scheme"] if pre.get("type") == "Metaspace" else None
        self.writes_meta = self.scheme is not None or "Replace" in self.kinds
        byte_level = "ByteLevel" in str(document["pre_tokenizer"])
        model = document["model"]
        vocabulary = model["vocab"]
        if isinstance(vocabulary, list):
            vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
        self.lengths = {i: self._length(token, byte_level)
                        for token, i in vocabulary.items()}
        # Bytes without a token are lost, with unk_token null.
        self.lost = set()
        if byte_level:
            self.lost = {byte for byte, c in enumerate(byte_alphabet()) if c not in vocabulary}
        unknown = (model.get("unk_token") is not None or "unk_id" in model) and \
            not byte_level and not model["byte_fallback"]
        removed = any(step.get("behavior") == "Removed" and not step["invert"] for step in
                      (document["pre_tokenizer"] or {}).get("pretokenizers", []))
        # Only the lengths of plainly matching added tokens are known.
        self.exact = not unknown and not removed and not any(
            t["lstrip"] or t["rstrip"] or t["single_word"] or (t["normalized"] and self.kinds)
            for t in added)
        for token in added:
            self.lengths[token["id"]] = len(token["content"].encode())

    @staticmethod
    def _length(token, byte_level):
        if byte_level:
            return len(token)
        return 1 if re.fullmatch("<0x[0-9A-F]{2}>", token) else len(token.encode())

    def normalise(self, chars, at_start):
        for kind in self.kinds:
            if kind == "NFC":
                chars = nfc(chars)
            elif kind == "Prepend":
                chars = [(META, NO_SEGMENT)] + chars
            else:
                chars = [(META if c == " " else c, owner) for c, owner in chars]
        if self.scheme is not None:
            chars = [(META if c == " " else c, owner) for c, owner in chars]
            wanted = self.scheme == "always" or (self.scheme == "first" and at_start)
            if wanted and chars[0][0] != META:
                chars = [(META, NO_SEGMENT)] + chars
        return chars

    def byte_owners(self, segments, parse_special):
        """The owner and weight of each byte of the normalised text, and the indices of those not
        lost. A META counts one byte, that of its space: a third for each of its three."""
        chars = [(c, i) for i, segment in enumerate(segments) for c in segment]
        text = "".join(segments)
        pieces, done = [], 0
        for match in self.pattern.finditer(text) if self.pattern else ():
            if self.by_content[match[0]]["special"] and not parse_special:
                continue
            pieces += [(done, match.start(), False), (match.start(), match.end(), True)]
            done = match.end()
        pieces.append((done, len(text), False))
        owners, weights, kept = [], [], []
        for begin, end, whole in pieces:
            if begin == end:
                continue
            part = chars[begin:end]
            owned = part if whole else self.normalise(part, begin == 0)
            size = len(owners)
            for c, owner in owned:
                for byte in c.encode():
                    if whole or byte not in self.lost:
                        kept.append(len(owners))
                    owners.append(owner)
                    weights.append(1 if c == META and self.writes_meta and not whole else 3)
            # A dummy prefix counts for no segment; alone it goes to what follows it.
            if owned[0][1] == NO_SEGMENT:
                follower = next((o for o in owners[size:] if o != NO_SEGMENT), 0)
                owners[size:size + 3] = [(NO_SEGMENT, follower)] * 3
        return owners, weights, kept

    def attribute(self, ids, segments, parse_special):
        """The segment of each token, or None if the lengths of the tokens are not known."""
        if not self.exact:
            return None
        if sum(1 for segment in segments if segment) == 1:
            only = next(i for i, segment in enumerate(segments) if segment)
            return [only] * len(ids)
        owners, weights, kept = self.byte_owners(segments, parse_special)
        result, position = [], 0
        for token in ids:
            end = position + self.lengths[token]
            whole = slice(kept[position], kept[end - 1] + 1)
            part = owners[whole]
            counts = {}
            for owner, weight in zip(part, weights[whole]):
                if not isinstance(owner, tuple):
                    counts[owner] = counts.get(owner, 0) + weight
            if counts:
                result.append(min(counts, key=lambda o: (-counts[o], o)))
            else:
                result.append(part[0][1])
            position = end
        assert position == len(kept), "the reference lost count of the bytes"
        return result

"""The specification in plain Python: prompt JSON to tokens, groups, positions and visibility.

It is slow and literal on purpose: it shares no code and no idea with the server, so that the two
can disagree. Needs numpy and PyPI `tokenizers`; never runs a model and never talks to a server.
"""

import dataclasses
import json
import re
import unicodedata

import numpy as np
import tokenizers

MAX_GROUPS = 64
NO_SEGMENT = -1
SPACE = "\u2581"  # SentencePiece's, written for a space.


@dataclasses.dataclass
class Encoded:
    """One prompt as the model sees it; all lists have one entry per prompt token."""

    token_ids: list
    segments: list
    groups: list
    positions: list
    visible: list  # visible[g]: set of the groups that group g sees.


# ---------------------------------------------------------------------------- text to tokens


@dataclasses.dataclass
class Char:
    """One character of normalised text and the index of the original character it came from."""

    text: str
    source: int


def _is_starter(char):
    return unicodedata.combining(char) == 0


def _decompose(chars):
    """Full canonical decomposition in canonical order; every part keeps its source."""
    parts = [Char(piece, char.source) for char in chars
             for piece in unicodedata.normalize("NFD", char.text)]
    begin = 0
    while begin < len(parts):
        end = begin + 1
        while end < len(parts) and not _is_starter(parts[end].text):
            end += 1
        marks = begin + 1 if _is_starter(parts[begin].text) else begin
        parts[marks:end] = sorted(parts[marks:end],
                                  key=lambda part: unicodedata.combining(part.text))
        begin = end
    return parts


def compose_nfc(chars):
    """NFC that remembers sources: a composed character comes from its earliest part."""
    result = []
    starter = None  # Index into result of the last starter.
    for part in _decompose(chars):
        pair = None
        if starter is not None:
            last = result[-1]
            blocked = len(result) - 1 > starter and (
                unicodedata.combining(last.text) >= unicodedata.combining(part.text))
            composed = unicodedata.normalize("NFC", result[starter].text + part.text)
            if not blocked and len(composed) == 1:
                pair = composed
        if pair is not None:
            result[starter] = Char(pair, min(result[starter].source, part.source))
            continue
        result.append(part)
        if _is_starter(part.text):
            starter = len(result) - 1
    return result


def _normalize(chars, normalizer):
    if normalizer is None:
        return chars
    kind = normalizer["type"]
    if kind == "Sequence":
        for child in normalizer["normalizers"]:
            chars = _normalize(chars, child)
        return chars
    if kind == "NFC":
        return compose_nfc(chars)
    if kind == "Prepend":
        prefix = [Char(char, NO_SEGMENT) for char in normalizer["prepend"]]
        return prefix + chars if chars else chars
    if kind == "Replace":
        old, new = normalizer["pattern"]["String"], normalizer["content"]
        if len(old) != 1 or len(new) != 1:
            raise ValueError(f"Replace {old!r} by {new!r}: only one character by one is known")
        return [Char(new if char.text == old else char.text, char.source) for char in chars]
    raise ValueError(f"normalizer {kind}: NFC, Prepend, Replace and Sequence are known")


def _byte_alphabet():
    """GPT-2's printable stand-in of each byte, inverted."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    inverse = {chr(byte): byte for byte in printable}
    rest = (byte for byte in range(256) if byte not in printable)
    inverse.update((chr(256 + index), byte) for index, byte in enumerate(rest))
    return inverse


class Encoder:
    """A tokenizer.json as PyPI `tokenizers` reads it, with the segment of every token."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self.tokenizer.encode_special_tokens = True
        self._normalizer = document["normalizer"]
        self._byte_level = not document["model"]["byte_fallback"]
        self._alphabet = _byte_alphabet()
        self._added = {entry["id"]: entry["content"] for entry in document["added_tokens"]}
        self._special = {entry["content"]: entry["id"] for entry in document["added_tokens"]
                         if entry["special"]}
        plain = [entry["content"] for entry in document["added_tokens"] if not entry["special"]]
        self._special_pattern = self._any_of(self._special)
        self._plain_pattern = self._any_of(plain)
        for entry in document["added_tokens"]:
            if entry["lstrip"] or entry["rstrip"] or entry["single_word"]:
                raise ValueError(f"added token {entry['content']!r}: stripping is not known")
        self.prefix, self.suffix = self._special_frame()

    @staticmethod
    def _any_of(contents):
        # Leftmost, longest first, as the added-token search of `tokenizers` does.
        ordered = sorted(contents, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def _special_frame(self):
        bare = self.tokenizer.encode("a", add_special_tokens=False).ids
        full = self.tokenizer.encode("a", add_special_tokens=True).ids
        for begin in range(len(full) - len(bare) + 1):
            if full[begin:begin + len(bare)] == bare:
                return full[:begin], full[begin + len(bare):]
        raise ValueError("the post-processor does not keep the text's own tokens")

    def _token_bytes(self, token):
        """Bytes of an ordinary vocabulary entry, as they stand in the normalised text."""
        if self._byte_level:
            return bytes(self._alphabet[char] for char in token)
        if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            return bytes([int(token[3:5], 16)])
        return token.encode()

    def _encode_ordinary(self, chars):
        """Tokens of text without added tokens: [(id, [source of each byte that counts])].

        A space of SentencePiece counts one byte wherever it stands whole, else the bytes there are.
        A dummy prefix has no source; where it is all of a token, that has the first character's.
        """
        normalised = _normalize(chars, self._normalizer)
        encoding = self.tokenizer.encode("".join(char.text for char in chars),
                                         add_special_tokens=False)
        sources = [char.source for char in normalised for _ in char.text.encode()]
        spelled = b""
        result = []
        for token_id, token in zip(encoding.ids, encoding.tokens):
            own = self._token_bytes(token)
            of_bytes = sources[len(spelled):len(spelled) + len(own)]
            spelled += own
            if not self._byte_level and len(own) > 1:
                text = own.decode()
                ends = [len(text[:place + 1].encode()) for place in range(len(text))]
                of_bytes = [source for char, end in zip(text, ends)
                            for source in of_bytes[end - len(char.encode()):end]
                            [:1 if char == SPACE else None]]
            counted = [source for source in of_bytes if source != NO_SEGMENT]
            result.append((token_id, counted or [chars[0].source]))
        if spelled != "".join(char.text for char in normalised).encode():
            raise ValueError(f"tokens spell {spelled!r}, which is not the normalised text")
        return result

    def _encode_plain(self, chars):
        """As _encode_ordinary, but added tokens that are not special match in the text."""
        text = "".join(char.text for char in chars)
        result = []
        begin = 0
        for match in self._plain_pattern.finditer(text) if self._plain_pattern else ():
            result += self._encode_ordinary(chars[begin:match.start()])
            result.append(self._added_token(chars, match))
            begin = match.end()
        result += self._encode_ordinary(chars[begin:])
        whole = self.tokenizer.encode(text, add_special_tokens=False).ids
        if [token_id for token_id, _ in result] != whole:
            raise ValueError(f"pieces of {text!r} do not encode as the whole")
        return result

    def _added_token(self, chars, match):
        token_id = self.tokenizer.token_to_id(match.group())
        return token_id, [char.source for char in chars[match.start():match.end()]
                          for _ in char.text.encode()]

    def encode(self, texts, parse_special):
        """Encodes the concatenation of `texts` once. Returns [(id, index of its text)]."""
        owner = [index for index, text in enumerate(texts) for _ in text]
        whole = "".join(texts)
        chars = [Char(char, place) for place, char in enumerate(whole)]
        tokens = []
        begin = 0
        for match in self._special_pattern.finditer(whole) if self._special_pattern else ():
            if not all(parse_special[owner[place]] for place in range(*match.span())):
                continue
            tokens += self._encode_plain(chars[begin:match.start()])
            tokens.append(self._added_token(chars, match))
            begin = match.end()
        tokens += self._encode_plain(chars[begin:])
        return [(token_id, _majority(sources, owner)) for token_id, sources in tokens]


def _majority(sources, owner):
    """The segment that holds most of a token's bytes; on a tie the earlier one."""
    votes = {}
    for source in sources:
        votes[owner[source]] = votes.get(owner[source], 0) + 1
    return min(votes, key=lambda segment: (-votes[segment], segment))


def tokenize(prompt, encoder):
    """Returns the prompt's token ids and the segment of each (NO_SEGMENT for special tokens)."""
    segments = prompt["segments"]
    texts = [segment.get("text") for segment in segments]
    parse = [segment.get("parse_special", False) for segment in segments]
    all_ids = all("token_ids" in segment for segment in segments)
    if all_ids or prompt.get("tokenization", "joint") == "per_segment":
        body = []
        for index, segment in enumerate(segments):
            if "token_ids" in segment:
                body += [(token_id, index) for token_id in segment["token_ids"]]
            else:
                body += [(token_id, index)
                         for token_id, _ in encoder.encode([texts[index]], [parse[index]])]
    else:
        body = encoder.encode(texts, parse)
    # Nothing is added behind: a prompt is continued.
    begins_so = [token_id for token_id, _ in body[:len(encoder.prefix)]] == encoder.prefix
    if prompt.get("add_special_tokens", True) and not all_ids and not begins_so:
        body = [(token_id, NO_SEGMENT) for token_id in encoder.prefix] + body
    return [token_id for token_id, _ in body], [segment for _, segment in body]


# ---------------------------------------------------------------------------- structure


def group_of(segment):
    if "group" in segment:
        return segment["group"]
    if segment["type"] == "question":
        return 1 + segment.get("paraphrase_index", segment.get("paraphrase_idx"))
    return 0


def rule_table(rule):
    """visible[g]: the set of groups that g sees. A preset has a row for every group."""
    if isinstance(rule, dict):
        return [set(row) for row in rule["visible"]]
    everything = set(range(MAX_GROUPS))
    rows = [everything]
    for group in range(1, MAX_GROUPS):
        rows.append({"anchored": {1, group}, "shared": {0, group}, "isolated": {group},
                     "causal": everything}[rule])
    return rows


class Positions:
    """Gives positions token by token; the same object goes on for generated tokens."""

    def __init__(self, policy):
        self._aligned = {"sequential": False, "aligned": True}[policy]
        self._largest = -1
        self._base = None
        self._rank = {}

    def next(self, group):
        if not self._aligned or group == 0:
            position = self._largest + 1
        else:
            if self._base is None:
                self._base = self._largest + 1
            position = self._base + self._rank.get(group, 0)
            self._rank[group] = self._rank.get(group, 0) + 1
        self._largest = max(self._largest, position)
        return position


def encode_prompt(prompt, encoder):
    token_ids, segments = tokenize(prompt, encoder)
    groups = [0 if segment == NO_SEGMENT else group_of(prompt["segments"][segment])
              for segment in segments]
    policy = Positions(prompt.get("positions", "sequential"))
    return Encoded(token_ids=token_ids, segments=segments, groups=groups,
                   positions=[policy.next(group) for group in groups],
                   visible=rule_table(prompt.get("rule", "anchored")))


def extend(encoded, policy_name, count):
    """Groups and positions of the prompt followed by `count` generated tokens of group 0."""
    groups = encoded.groups + [0] * count
    policy = Positions(policy_name)
    return groups, [policy.next(group) for group in groups]


def may_see(groups, visible, query, key):
    """THE definition of visibility."""
    return key <= query and groups[key] in visible[groups[query]]


def visibility(groups, visible):
    """Boolean [S, S]: may_see for every pair."""
    size = len(groups)
    groups = np.asarray(groups)
    sees = np.zeros((MAX_GROUPS, MAX_GROUPS), dtype=bool)
    for group, row in enumerate(visible):
        sees[group, sorted(row)] = True
    return sees[groups[:, None], groups[None, :]] & np.tri(size, dtype=bool)

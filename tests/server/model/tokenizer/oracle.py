r"""Compares the server's tokenizer with PyPI `tokenizers` on generated texts.

    python oracle.py --tool build/release/bin/tokenizer_tool --family qwen2 --count 20000 \\
        --hostile 100 --seed 1

Ids of a whole text, the segment of every token, and decoded text must be equal; exits 1 at the
first batch with a difference. Families are the fixtures under tests/golden/tokenizers, variants of
them made here, and, with --models, the real vocabularies (from tokenizer.json and from GGUF).
"""

import argparse
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
import tokenizers  # noqa: E402

import gguf_files  # noqa: E402
import sentencepiece_files  # noqa: E402
from segment_reference import Reference  # noqa: E402
from text_generator import TextGenerator  # noqa: E402

FIXTURES = pathlib.Path(__file__).parents[3] / "golden" / "tokenizers"
BATCH = 10_000


def fixture(name):
    return json.loads((FIXTURES / name / "tokenizer.json").read_text(encoding="utf-8"))


def metaspace(scheme, split):
    document = fixture("llama2")
    document["normalizer"] = None
    document["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581",
                                 "prepend_scheme": scheme, "split": split}
    document["added_tokens"].append(flagged(len(document["model"]["vocab"]), "<tool>"))
    return document


def flagged(token_id, content, special=False, **flags):
    token = {"id": token_id, "content": content, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": special}
    return token | flags


def flags(name):
    """Added tokens with every flag, some of them normalised, some special."""
    document = fixture(name)
    next_id = max([token["id"] for token in document["added_tokens"]] +
                  list(document["model"]["vocab"].values())) + 1
    tokens = [("<L>", {"lstrip": True}), ("<R>", {"rstrip": True}), ("<W>", {"single_word": True}),
              ("<LRW>", {"lstrip": True, "rstrip": True, "single_word": True}),
              ("<N>", {"normalized": True}), ("e\u0301t\u00e9", {"normalized": True}),
              ("<NS>", {"normalized": True, "special": True}), ("<SL>", {"special": True,
                                                                         "lstrip": True}),
              ("the", {"single_word": True}), ("<L><R>", {}), ("<NLR>", {"normalized": True,
                                                                         "lstrip": True,
                                                                      "rstrip": True})]
    for content, given in tokens:
        known = document["model"]["vocab"].get(content)
        document["added_tokens"].append(flagged(next_id if known is None else known, content,
                                                **given))
        next_id += known is None
    return document


def lossy_smollm2():
    """Without the bytes that no merge needs, as the real vocabulary."""
    document = fixture("smollm2")
    model = document["model"]
    needed = {part for merge in model["merges"] for part in merge.split(" ")}
    tokens = [token for token in model["vocab"] if len(token) > 1 or token in needed]
    model["vocab"] = {token: index for index, token in enumerate(tokens)}
    return document


def byteless_llama2():
    """No byte fallback, and few letters: unknown tokens, fused or not."""
    document = fixture("llama2")
    document["model"]["byte_fallback"] = False
    return document


def unfused_llama2():
    document = byteless_llama2()
    document["model"]["fuse_unk"] = False
    return document


def metaspace_decoder():
    document = metaspace("first", False)
    document["decoder"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first",
                           "split": False}
    return document


def scored_llama2():
    """The merges that the scores of a GGUF file stand for."""
    document = fixture("llama2")
    document["model"]["merges"] = gguf_files.scored_merges(document["model"]["vocab"])
    return document


def split(regex, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def split_before(name, *steps):
    """A byte-level family cut by other steps."""
    document = fixture(name)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": False}
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*steps, byte_level]}
    return document


DIGITS = {"type": "Digits", "individual_digits": True}
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
# The cased letters of Unicode 12.
DEEPSEEK_WORDS = (
    "\\s?["
    "A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF"
    "\u01C4-\u0293\u0295-\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F"
    "\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481"
    "\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD"
    "\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A"
    "\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59"
    "\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4"
    "\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4"
    "\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126"
    "\u2128\u212A-\u212D\u212F-\u2134\u2139\u213C-\u213F\u2145-\u2149\u214E"
    "\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3"
    "\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E"
    "\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A"
    "\U00010400-\U0001044F\U000104B0-\U000104D3\U000104D8-\U000104FB"
    "\U00010C80-\U00010CB2\U00010CC0-\U00010CF2\U000118A0-\U000118DF"
    "\U0001E900-\U0001E943"
    "]+")
DEEPSEEK_PUNCTUATION = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
TAIL = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
LLAMA3 = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" + TAIL)
TIKTOKEN = ("'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}"
            "| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+")


def deepseek_llm():
    return split_before("gpt2", split("[\r\n]"), split(DEEPSEEK_WORDS), split(DEEPSEEK_PUNCTUATION),
                        split("\\s+$"), split(CJK), DIGITS)


def deepseek_coder():
    return split_before("gpt2", split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"),
                        split(CJK), DIGITS)


def scored_metaspace():
    document = metaspace("first", False)
    document["model"]["merges"] = gguf_files.scored_merges(document["model"]["vocab"])
    return document


def scored_llmjp():
    """Unigram with LLaMA's components, and scores that a float32 holds."""
    document, llama2 = fixture("llmjp"), fixture("llama2")
    for part in ("normalizer", "decoder"):
        document[part] = llama2[part]
    vocabulary = document["model"]["vocab"]
    document["model"]["vocab"] = [[token, round(score * 64) / 64] for token, score in vocabulary]
    return document


def byteless_llmjp():
    document = fixture("llmjp")
    document["model"]["byte_fallback"] = False
    return document


VARIANTS = {
    "scored-metaspace": scored_metaspace,
    "scored-llmjp": scored_llmjp,
    "byteless-llmjp": byteless_llmjp,
    "deepseek-llm": deepseek_llm,
    "deepseek-coder": deepseek_coder,
    "phi-4": lambda: split_before("llama3", split(LLAMA3, "Removed", True)),
    "tiktoken": lambda: split_before("llama3", split(TIKTOKEN, "Removed", True)),
    "split-removed": lambda: split_before("gpt2", split("\\s?\\p{P}+", "Removed")),
    "split-previous": lambda: split_before("gpt2", split("\\s+$"),
                                           split("[^\\r\\n\\p{L}]{1,2}", "MergedWithPrevious")),
    "split-next": lambda: split_before("gpt2", split("[\\s!-/]", "MergedWithNext", True)),
    "split-contiguous": lambda: split_before("gpt2", split("\\p{N}{1,3}", "Contiguous"),
                                             split(" ?\\p{L}+", "MergedWithNext")),
    "scored-llama2": scored_llama2,
    "metaspace-first": lambda: metaspace("first", False),
    "metaspace-always": lambda: metaspace("always", True),
    "metaspace-never": lambda: metaspace("never", True),
    "metaspace-decoder": metaspace_decoder,
    "flags-qwen2": lambda: flags("qwen2"),
    "flags-llama2": lambda: flags("llama2"),
    "flags-gpt2": lambda: flags("gpt2"),
    "lossy-smollm2": lossy_smollm2,
    "unknown-fused": byteless_llama2,
    "unknown-apart": unfused_llama2,
}

# Families that a folder with a tokenizer.model is written of, too; and whether it says `legacy`.
SENTENCEPIECE = {"scored-llama2": True, "scored-metaspace": False, "scored-llmjp": True}

REAL = {"smollm2-real": ("smollm2-hf", "smollm2.gguf"),
        "qwen2.5-real": ("qwen2.5-0.5b-hf", "qwen2.5-0.5b.gguf")}


def load(family, models):
    """The family's tokenizer.json, and the GGUF file that must behave like it, if there is one."""
    if family in REAL:
        folder, gguf = REAL[family]
        path = pathlib.Path(models) / folder / "tokenizer.json"
        return json.loads(path.read_text(encoding="utf-8")), pathlib.Path(models) / gguf
    return VARIANTS[family]() if family in VARIANTS else fixture(family), None


class Tool:
    """Requests to tokenizer_tool, a batch at a time."""

    def __init__(self, binary, path):
        self.command = [binary, str(path)]
        self.requests = []

    def encode(self, segments, parse_special):
        parts = [b"E", struct.pack("<i", len(segments))]
        for segment in segments:
            data = segment.encode()
            parts += [struct.pack("<ii", int(parse_special), len(data)), data]
        self.requests.append(b"".join(parts))

    def decode(self, ids):
        self.requests.append(b"D" + struct.pack(f"<{len(ids) + 1}i", len(ids), *ids))

    def run(self):
        result = subprocess.run(self.command, input=b"".join(self.requests), check=True,
                                stdout=subprocess.PIPE)
        self.requests = []
        return Answers(result.stdout)


class Answers:
    def __init__(self, data):
        self.data, self.position = data, 0

    def _take(self, count):
        values = struct.unpack_from(f"<{count}i", self.data, self.position)
        self.position += 4 * count
        return values

    def tokens(self):
        (count,) = self._take(1)
        values = self._take(2 * count)
        return list(values[0::2]), list(values[1::2])

    def text(self):
        (size,) = self._take(1)
        self.position += size
        return self.data[self.position - size:self.position].decode()


class Comparison:
    def __init__(self, document, path, tools, seed):
        self.tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self.reference = Reference(document)
        self.tools = tools
        self.size = self.tokenizer.get_vocab_size()
        contents = [token["content"] for token in document["added_tokens"]]
        self.generator = TextGenerator(seed, contents)
        self.counts = {"texts": 0, "attributed": 0, "tokens": 0, "decoded": 0, "different": 0}

    def report(self, what, *details):
        self.counts["different"] += 1
        if self.counts["different"] <= 10:
            print("DIFFERENT", what, *[ascii(detail) for detail in details], sep="\n  ")

    def batch(self, count, parse_special, hostile=False):
        cases = [self.generator.segments(hostile) for _ in range(count)]
        self.tokenizer.encode_special_tokens = not parse_special
        encodings = self.tokenizer.encode_batch_fast(["".join(case) for case in cases],
                                                     add_special_tokens=False)
        expected = [encoding.ids for encoding in encodings]
        lists = expected + [self.generator.ids(self.size) for _ in range(count)]
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in lists]
        segments = [self.reference.attribute(ids, case, parse_special)
                    for ids, case in zip(expected, cases)]
        encoded = list(zip(cases, expected, segments))
        for tool in self.tools:
            self.compare(tool, encoded, list(zip(lists, texts)), parse_special)

    def compare(self, tool, encoded, decoded, parse_special):
        """encoded: (case, ids, segment of each id or None); decoded: (ids, text)."""
        for case, _, _ in encoded:
            tool.encode(case, parse_special)
        for ids, _ in decoded:
            tool.decode(ids)
        answers = tool.run()
        for case, ids, owners in encoded:
            our_ids, our_owners = answers.tokens()
            self.counts["texts"] += 1
            self.counts["tokens"] += len(ids)
            self.counts["attributed"] += owners is not None
            if our_ids != ids:
                self.report("ids", case, ids, our_ids)
            elif owners is not None and our_owners != owners:
                self.report("segments", case, ids, owners, our_owners)
        for ids, text in decoded:
            self.counts["decoded"] += 1
            our_text = answers.text()
            if our_text != text:
                self.report("text", ids, text, our_text)


def compare_family(arguments, family):
    document, gguf = load(family, arguments.models)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        if family in gguf_files.PRE or family == "scored-llama2":
            gguf = pathlib.Path(folder) / "vocabulary.gguf"
            gguf_files.write(document, gguf, family)
        others = [gguf] if gguf else []
        if family in SENTENCEPIECE:
            others.append(pathlib.Path(folder) / "model")
            sentencepiece_files.write(document, others[-1], SENTENCEPIECE[family])
        tools = [Tool(arguments.tool, file) for file in [path, *others]]
        comparison = Comparison(document, path, tools, f"{family} {arguments.seed}")
        done = 0
        while done < arguments.count and comparison.counts["different"] == 0:
            count = min(BATCH, arguments.count - done)
            comparison.batch(count * 4 // 5, parse_special=False)
            comparison.batch(count - count * 4 // 5, parse_special=True)
            done += count
        if arguments.hostile and comparison.counts["different"] == 0:
            comparison.batch(arguments.hostile, parse_special=False, hostile=True)
            comparison.batch(arguments.hostile, parse_special=True, hostile=True)
    figures = ", ".join(f"{value} {name}" for name, value in comparison.counts.items())
    print(f"{family}: seed {arguments.seed}, {figures}", flush=True)
    return comparison.counts["different"] == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--family", action="append",
                        help="may be given several times; default: all but the real ones")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--hostile", type=int, default=0,
                        help="so many texts of 4 to 64 KiB more, in each way of parsing specials")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", help="folder that tests/models/fetch.sh filled")
    arguments = parser.parse_args()
    families = arguments.family
    if not families:
        families = sorted(path.parent.name for path in FIXTURES.glob("*/tokenizer.json"))
        families += list(VARIANTS) + (list(REAL) if arguments.models else [])
    results = [compare_family(arguments, family) for family in families]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

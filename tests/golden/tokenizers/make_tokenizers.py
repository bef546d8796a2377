"""Trains the small tokenizer.json fixtures next to this file, one per family.

Run by hand (needs PyPI `tokenizers`); the results are committed. Each fixture has the published
shape of its family (normalizer, pre-tokenizer, post-processor, decoder, added tokens) and a
vocabulary of its own. Never run by the tests.
"""

import json
import pathlib
import pydoc_data.topics

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
TAIL = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
LLAMA3_REGEX = CONTRACTIONS + "\\p{N}{1,3}" + TAIL
QWEN_REGEX = CONTRACTIONS + "\\p{N}" + TAIL

SENTENCES = """
The quick brown fox jumps over the lazy dog. It's what they've said; we'll see, I'd guess.
What is the capital of France? Answer: Paris. Which city is France's capital? Answer: Paris.
Question: who wrote the novel? Context: the author was born in 1821 and died in 1881.
Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva de crapaüter en canoë au delà des îles.
Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Straße, Größe, Übermut.
El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío; añoraba a su querido cachorro.
Pchnąć w tę łódź jeża lub ośm skrzyń fig. Žluťoučký kůň úpěl ďábelské ódy. Tiếng Việt rất đẹp.
Съешь же ещё этих мягких французских булок, да выпей чаю. Столица Франции - Париж.
Ο καλύμνιος σφουγγαράς ψιθύρισε πως θα βουτήξει χωρίς να διστάζει.
東京は日本の首都です。吾輩は猫である。名前はまだ無い。人類社会のすべての構成員の固有の尊厳。
法国的首都是巴黎。我能吞下玻璃而不伤身体。人人生而自由,在尊严和权利上一律平等。
키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. 대한민국의 수도는 서울이다.
نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق
דג סקרן שט בים מאוכזב ולפתע מצא חברה. ऋषियों को सताने वाले दुष्ट राक्षसों का राजा रावण।
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน 123 4567 89012 ١٢٣٤ १२३
😀 😃 😄 👍🏽 👨‍👩‍👧‍👦 🇫🇷 🇩🇪 ❤️ ✨ 🎉 🚀 → ← ≤ ≥ ∑ ∞ √ € £ ¥ © ® ™ … “quoted” ‘single’ – —
def main(argc: int, argv: list[str]) -> int:\n    for i in range(10):\n        print(f"{i}: {argv[i]}")\n
#include <vector>\nint main() {\n\tstd::vector<int> v = {1, 2, 3};\n\treturn v.size() == 3 ? 0 : 1;\n}\r\n
SELECT name, COUNT(*) FROM users WHERE id >= 1000 GROUP BY name ORDER BY 2 DESC;\t\t\t        \n\n\n
"""


def corpus():
    lines = [line.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r")
             for line in SENTENCES.strip().split("\n")]
    topics = pydoc_data.topics.topics
    code = [topics[name] for name in sorted(topics)]
    return lines * 20 + code


def added(token_id, content, special=True, **flags):
    entry = {"id": token_id, "content": content, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": special}
    entry.update(flags)
    return entry


def train(vocabulary_size, pre_tokenizer, normalizer=None, alphabet=None):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    limit = {} if alphabet else {"limit_alphabet": 600}
    trainer = trainers.BpeTrainer(vocab_size=vocabulary_size, show_progress=False,
                                  initial_alphabet=alphabet or [], **limit)
    tokenizer.train_from_iterator(corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens, [list(pair) for pair in model["merges"]]


def byte_level(add_prefix_space, trim_offsets, use_regex):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space,
            "trim_offsets": trim_offsets, "use_regex": use_regex}


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def bpe(tokens, merges, **fields):
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
             "ignore_merges": False,
             "vocab": {token: index for index, token in enumerate(tokens)}, "merges": merges}
    model.update(fields)
    return model


def document(model, added_tokens, **parts):
    result = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens,
              "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
              "model": model}
    result.update(parts)
    return result


def as_strings(merges):
    return [left + " " + right for left, right in merges]


def template(content, token_id):
    special = {"SpecialToken": {"id": content, "type_id": 0}}
    return {"type": "TemplateProcessing",
            "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [special, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": content, "type_id": 1}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {content: {"id": content, "ids": [token_id], "tokens": [content]}}}


def train_byte_level(size, pre_tokenizer, normalizer=None):
    return train(size, pre_tokenizer, normalizer, pre_tokenizers.ByteLevel.alphabet())


def with_split(regex):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(regex), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2():
    tokens, merges = train_byte_level(2000, pre_tokenizers.ByteLevel(add_prefix_space=False))
    end = "<|endoftext|>"
    model = bpe(tokens + [end], as_strings(merges), unk_token=None, continuing_subword_prefix="",
                end_of_word_suffix="")
    return document(model, [added(len(tokens), end, normalized=True)],
                    pre_tokenizer=byte_level(False, True, True),
                    post_processor=byte_level(True, False, True),
                    decoder=byte_level(True, True, True))


SMOLLM2_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>",
                   "<file_sep>", "<filename>", "<gh_stars>", "<issue_start>", "<issue_comment>",
                   "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>",
                   "<jupyter_output>", "<jupyter_script>", "<empty_output>"]


def smollm2():
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                      pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokens, merges = train_byte_level(2000, digits)
    model = bpe(SMOLLM2_SPECIAL + tokens, as_strings(merges))
    return document(model, [added(i, content) for i, content in enumerate(SMOLLM2_SPECIAL)],
                    pre_tokenizer={"type": "Sequence", "pretokenizers": [
                        {"type": "Digits", "individual_digits": True},
                        byte_level(False, True, True)]},
                    decoder=byte_level(True, True, True))


LLAMA3_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
                  "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>",
                  "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]


def llama3():
    tokens, merges = train_byte_level(2500, with_split(LLAMA3_REGEX))
    # Whole words that no merge reaches: only ignore_merges finds them.
    extra = ["Ġuniversity", "Ġinternational", "zzzzzzzz"]
    tokens += [token for token in extra if token not in tokens]
    base = len(tokens)
    return document(bpe(tokens, merges, ignore_merges=True),
                    [added(base + i, content) for i, content in enumerate(LLAMA3_SPECIAL)],
                    pre_tokenizer={"type": "Sequence", "pretokenizers": [
                        split(LLAMA3_REGEX), byte_level(False, True, False)]},
                    post_processor={"type": "Sequence", "processors": [
                        byte_level(True, False, True), template("<|begin_of_text|>", base)]},
                    decoder=byte_level(True, True, True))


QWEN2_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>",
                 "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>",
                 "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
                 "<|image_pad|>", "<|video_pad|>"]
QWEN2_PLAIN = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
               "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]
QWEN3_PLAIN = ["<tool_response>", "</tool_response>", "<think>", "</think>"]


def qwen(size, plain, merges_as_strings):
    tokens, merges = train_byte_level(size, with_split(QWEN_REGEX), normalizers.NFC())
    base = len(tokens)
    names = QWEN2_SPECIAL + plain
    model = bpe(tokens, as_strings(merges) if merges_as_strings else merges,
                continuing_subword_prefix="", end_of_word_suffix="")
    return document(model, [added(base + i, content, special=content in QWEN2_SPECIAL)
                            for i, content in enumerate(names)],
                    normalizer={"type": "NFC"},
                    pre_tokenizer={"type": "Sequence", "pretokenizers": [
                        split(QWEN_REGEX), byte_level(False, False, False)]},
                    post_processor=byte_level(False, False, False),
                    decoder=byte_level(False, False, False))


def qwen2():
    return qwen(2000, QWEN2_PLAIN, True)


def qwen3():
    return qwen(3000, QWEN2_PLAIN + QWEN3_PLAIN, False)


def llama2():
    space = "\u2581"
    words = pre_tokenizers.Metaspace(replacement=space, prepend_scheme="first", split=True)
    tokens, merges = train(2500, words)
    specials = ["<unk>", "<s>", "</s>"]
    byte_tokens = ["<0x%02X>" % value for value in range(256)]
    # SentencePiece orders merged tokens first, by rank, and the alphabet last.
    merged = [left + right for left, right in merges]
    letters = [token for token in tokens if token not in set(merged)]
    # Runs of spaces, as Llama-2 has them.
    runs = [space * 2, space * 4, space * 8]
    merged = runs + [token for token in merged if token not in runs]
    merges = [[run[: len(run) // 2]] * 2 for run in runs] + merges
    model = bpe(specials + byte_tokens + merged + letters, merges, unk_token="<unk>",
                fuse_unk=True, byte_fallback=True)
    return document(model, [added(i, content) for i, content in enumerate(specials)],
                    normalizer={"type": "Sequence", "normalizers": [
                        {"type": "Prepend", "prepend": space},
                        {"type": "Replace", "pattern": {"String": " "}, "content": space}]},
                    post_processor=template("<s>", 1),
                    decoder={"type": "Sequence", "decoders": [
                        {"type": "Replace", "pattern": {"String": space}, "content": " "},
                        {"type": "ByteFallback"}, {"type": "Fuse"},
                        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})


def text_start(content):
    return {"Regex": "(?<!\n)^" + content}


def llmjp():
    """Unigram with byte fallback, in the form of LLM-jp's tokenizer.json."""
    space = "\u2581"
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=space, prepend_scheme="first")
    trainer = trainers.UnigramTrainer(vocab_size=2500, show_progress=False, unk_token="<unk>",
                                      special_tokens=["<unk>"])
    tokenizer.train_from_iterator(corpus(), trainer)
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"][1:]
    specials = [f"<{name}|LLM-jp>" for name in ("unk", "s", "/s", "mask", "pad", "CLS", "SEP",
                                                "EOD")]
    fixed = specials + [space * count for count in range(24, 1, -1)] + ["\n"]
    fixed += ["<0x%02X>" % value for value in range(256)]
    known = set(fixed)
    vocabulary = [[token, -80.0] for token in fixed]
    vocabulary += [piece for piece in pieces if piece[0] not in known]
    eod = template(specials[7], 7)
    eod["single"].reverse()
    return document({"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": True},
                    [added(i, content) for i, content in enumerate(specials)],
                    normalizer={"type": "Sequence", "normalizers": [
                        {"type": "Replace", "pattern": text_start(""), "content": space},
                        {"type": "Replace", "pattern": {"Regex": " "}, "content": space}]},
                    post_processor=eod,
                    decoder={"type": "Sequence", "decoders": [
                        {"type": "ByteFallback"},
                        {"type": "Replace", "pattern": {"Regex": space}, "content": " "},
                        {"type": "Fuse"},
                        {"type": "Replace", "pattern": text_start(" "), "content": ""}]})


def main():
    for make in (gpt2, smollm2, llama3, qwen2, qwen3, llama2, llmjp):
        folder = HERE / make.__name__
        folder.mkdir(exist_ok=True)
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(make(), ensure_ascii=False, separators=(",", ":")) + "\n",
                        encoding="utf-8")
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        print(make.__name__, tokenizer.get_vocab_size(), path.stat().st_size,
              tokenizer.encode("Hello, it's 12345 Straße 😀").tokens)


if __name__ == "__main__":
    main()

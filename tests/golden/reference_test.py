"""Tests of the reference, the comparer and the small models themselves.

Everything is held against a brute-force reading of the specification. Needs numpy and `tokenizers`;
no model is run and no server asked.
"""

import copy
import json
import pathlib
import random
import tempfile
import unicodedata
import unittest

import numpy as np
import tokenizers

import cases
import compare
import make_models
import reference

FAMILIES = ("gpt2", "smollm2", "llama3", "qwen2", "qwen3", "llama2")
SEED = 20261123
WORDS = ["the", " quick", "brown ", "  ", "\n", "42", "3.14", "it's", "Straße", "кот", "東京", "कि",
         "e\u0301", "\u1112\u1161\u11ab", "\U0001F468\u200d\U0001F469", "\u0323", "<tool_call>",
         "<|im_end|>", "</s>", "\t", "عاصمة", "\u212b", "q\u0307\u0323"]


def encoder_of(family):
    return reference.Encoder(make_models.TOKENIZERS / family / "tokenizer.json")


def random_texts(dice, words, count):
    return ["".join(dice.choice(words) for _ in range(dice.randrange(4))) for _ in range(count)]


class Tokens(unittest.TestCase):

    def test_nfc_with_sources_is_nfc(self):
        dice = random.Random(SEED)
        alphabet = "aeoAou \u0300\u0301\u0308\u0323\u0302\u030a\u1100\u1161\u11a8\u212b\u0958\u1e9b"
        for _ in range(3000):
            text = "".join(dice.choice(alphabet) for _ in range(dice.randrange(1, 9)))
            chars = reference.compose_nfc([reference.Char(c, i) for i, c in enumerate(text)])
            composed = "".join(char.text for char in chars)
            self.assertEqual(composed, unicodedata.normalize("NFC", text))
            self.assertEqual(composed, tokenizers.normalizers.NFC().normalize_str(text))

    def test_composed_character_belongs_to_the_earlier_segment(self):
        encoder = encoder_of("qwen2")
        tokens = encoder.encode(["xe", "\u0301"], [False, False])
        self.assertEqual({segment for _, segment in tokens}, {0})

    def test_cuts_change_segments_never_ids(self):
        dice = random.Random(SEED)
        for family in FAMILIES:
            encoder = encoder_of(family)
            for _ in range(300):
                texts = random_texts(dice, WORDS, 4)
                cut = encoder.encode(texts, [False] * 4)
                whole = encoder.tokenizer.encode("".join(texts), add_special_tokens=False)
                self.assertEqual([token_id for token_id, _ in cut], whole.ids, (family, texts))
                owners = [segment for _, segment in cut]
                if not family.startswith("qwen"):  # NFC reorders marks, with their owners.
                    self.assertEqual(owners, sorted(owners), (family, texts))

    def test_majority_on_ascii_agrees_with_the_librarys_offsets(self):
        dice = random.Random(SEED)
        words = [word for word in WORDS if word.isascii() and "<" not in word]
        for family in FAMILIES:
            encoder = encoder_of(family)
            untrimmed = tokenizers.Tokenizer.from_file(
                str(make_models.TOKENIZERS / family / "tokenizer.json"))
            untrimmed.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
            for _ in range(300):
                texts = random_texts(dice, words, 5)
                whole = "".join(texts)
                owner = [index for index, text in enumerate(texts) for _ in text]
                expected = []
                for begin, end in untrimmed.encode(whole, add_special_tokens=False).offsets:
                    votes = [0] * len(texts)
                    for place in range(begin, end):
                        votes[owner[place]] += 1
                    expected.append(votes.index(max(votes)))
                got = [segment for _, segment in encoder.encode(texts, [False] * 5)]
                self.assertEqual(got, expected, (family, texts))

    def test_tie_goes_to_the_earlier_segment(self):
        encoder = encoder_of("gpt2")
        (token, segment), = encoder.encode([" t", "he"], [False, False])
        self.assertEqual((encoder.tokenizer.id_to_token(token), segment), ("Ġthe", 0))
        (_, segment), = encoder.encode([" ", "the"], [False, False])
        self.assertEqual(segment, 1)

    def test_sentencepieces_space_counts_one_byte(self):
        encoder = encoder_of("llama2")
        # Two bytes of the second text against the one of the space.
        tokens = encoder.encode(["a ", "of"], [False, False])
        self.assertEqual([(encoder.tokenizer.id_to_token(token), segment)
                          for token, segment in tokens], [("\u2581a", 0), ("\u2581of", 1)])
        tokens = encoder.encode(["a ", "1"], [False, False])
        self.assertEqual([segment for _, segment in tokens], [0, 0])  # "▁1": a tie.

    def test_a_dummy_prefix_alone_belongs_to_the_first_text(self):
        encoder = encoder_of("llama2")
        tokens = encoder.encode(["", "\n", "\nthe"], [False] * 3)
        self.assertEqual((encoder.tokenizer.id_to_token(tokens[0][0]), tokens[0][1]),
                         ("\u2581", 1))

    def test_special_text_is_plain_unless_parsed(self):
        encoder = encoder_of("qwen2")
        end = encoder.tokenizer.token_to_id("<|im_end|>")
        for parse in (False, True):
            ids = [token for token, _ in encoder.encode(["a<|im_end|>b"], [parse])]
            self.assertEqual(end in ids, parse)
        ids = [token for token, _ in encoder.encode(["a<tool_call>b"], [False])]
        self.assertIn(encoder.tokenizer.token_to_id("<tool_call>"), ids)

    def test_special_prefix_comes_once_and_not_for_ids(self):
        encoder = encoder_of("llama2")
        self.assertEqual((encoder.prefix, encoder.suffix), ([1], []))
        segments = [{"type": "instruction", "text": "a"}, {"type": "answer_cue", "text": " b"}]
        for tokenization in ("joint", "per_segment"):
            ids, owners = reference.tokenize(
                {"segments": segments, "tokenization": tokenization}, encoder)
            self.assertEqual((ids.count(1), ids[0], owners[0]), (1, 1, reference.NO_SEGMENT))
        ids, owners = reference.tokenize(
            {"segments": [{"type": "instruction", "token_ids": [7, 8]}]}, encoder)
        self.assertEqual((ids, owners), ([7, 8], [0, 0]))

    def test_a_prompt_that_begins_with_bos_gets_one(self):
        encoder = encoder_of("llama2")
        own = {"type": "instruction", "text": "<s>a", "parse_special": True}
        cue = {"type": "answer_cue", "text": " b"}
        given = {"type": "context", "token_ids": [7]}
        for tokenization, segments in (("joint", [own, cue]), ("per_segment", [own, cue]),
                                       ("per_segment", [own, given]),
                                       ("per_segment", [{"type": "context", "token_ids": [1, 7]},
                                                        cue])):
            ids, owners = reference.tokenize(
                {"segments": segments, "tokenization": tokenization}, encoder)
            self.assertEqual((ids.count(1), ids[0], owners[0]), (1, 1, 0))
        plain = [{**own, "parse_special": False}, cue]
        ids, owners = reference.tokenize({"segments": plain}, encoder)
        self.assertEqual((ids.count(1), owners[0]), (1, reference.NO_SEGMENT))
        ids, _ = reference.tokenize({"segments": plain, "add_special_tokens": False}, encoder)
        self.assertEqual(ids.count(1), 0)

    def test_nothing_is_added_behind(self):
        encoder = encoder_of("llama2")
        encoder.suffix = [2]  # As of a tokenizer that appends EOS.
        ids, _ = reference.tokenize({"segments": [{"type": "context", "text": "a"}]}, encoder)
        self.assertEqual(ids.count(2), 0)


def seeds_mask_allows(groups):
    """The founding document's structure mask, added to the causal one: True where both are 0."""
    g_q, g_k = np.asarray(groups)[:, None], np.asarray(groups)[None, :]
    allowed_q1 = (g_q == 1) & (g_k == 1)
    allowed_qk = ((g_q >= 2) & (g_q <= 6)) & ((g_q == g_k) | (g_k == 1))
    allowed_ctx = (g_q == 0) & np.ones_like(g_k, dtype=bool)
    return (allowed_q1 | allowed_qk | allowed_ctx) & np.tri(len(groups), dtype=bool)


class Structure(unittest.TestCase):

    def test_anchored_is_the_seeds_mask(self):
        dice = random.Random(SEED)
        for _ in range(200):
            groups = [dice.randrange(7) for _ in range(dice.randrange(1, 60))]
            ours = reference.visibility(groups, reference.rule_table("anchored"))
            np.testing.assert_array_equal(ours, seeds_mask_allows(groups))

    def test_anchored_prompts_have_the_seeds_mask(self):
        encoder = encoder_of("smollm2")
        tried = 0
        for prompt in cases.cases_of("smollm2"):
            ids = any("token_ids" in segment for segment in prompt["segments"])
            if prompt.get("rule") != "anchored" or ids:
                continue
            encoded = reference.encode_prompt(prompt, encoder)
            if max(encoded.groups) <= 6:
                tried += 1
                np.testing.assert_array_equal(
                    reference.visibility(encoded.groups, encoded.visible),
                    seeds_mask_allows(encoded.groups), prompt["id"])
        self.assertGreater(tried, 10)

    def test_visibility_is_may_see(self):
        dice = random.Random(SEED)
        for rule in ("anchored", "shared", "isolated", "causal", None):
            rows = dice.randrange(1, 8)
            visible = reference.rule_table(rule or {"visible": [
                [group, dice.randrange(rows)] for group in range(rows)]})
            groups = [dice.randrange(rows) for _ in range(40)]
            matrix = reference.visibility(groups, visible)
            for query in range(40):
                for key in range(40):
                    self.assertEqual(matrix[query, key],
                                     reference.may_see(groups, visible, query, key))

    def test_presets_are_the_specifications_table(self):
        everything = set(range(64))
        expected = {"anchored": ({1}, {1, 5}), "shared": ({0, 1}, {0, 5}),
                    "isolated": ({1}, {5}), "causal": (everything, everything)}
        for rule, (one, five) in expected.items():
            visible = reference.rule_table(rule)
            self.assertEqual((visible[0], visible[1], visible[5]), (everything, one, five))

    def test_aligned_positions(self):
        policy = reference.Positions("aligned")
        groups = [0, 0, 1, 1, 1, 2, 2, 0, 1, 3, 0]
        self.assertEqual([policy.next(group) for group in groups],
                         [0, 1, 2, 3, 4, 2, 3, 5, 5, 2, 6])
        policy = reference.Positions("aligned")
        self.assertEqual([policy.next(group) for group in [2, 1, 1, 0]], [0, 0, 1, 2])
        policy = reference.Positions("sequential")
        self.assertEqual([policy.next(group) for group in groups], list(range(11)))


class Comparer(unittest.TestCase):
    """Every kind of wrong answer must be noticed."""

    def setUp(self):
        self.model = "smollm2-gqa3-d64-tied"
        self.path = cases.golden_path(self.model)
        goldens = cases.read_jsonl(self.path)[1:]
        self.results = [{"id": line["id"], "token_ids": line["token_ids"],
                         "logprobs": line["logprobs"], "finish_reason": "length",
                         "prompt_token_ids": line["prompt_token_ids"],
                         "group_ids": cases.expand_runs(line["group_ids"]),
                         "position_ids": cases.expand_ramps(line["position_ids"])}
                        for line in goldens]

    def failures(self, change=None):
        results = copy.deepcopy(self.results)
        if change is not None:
            change(results[3])
        return len(compare.compare(results, self.path).failures)

    def test_right_answers_pass(self):
        self.assertEqual(self.failures(), 0)

    def test_wrong_answers_fail(self):
        for field in ("token_ids", "prompt_token_ids", "group_ids", "position_ids"):
            def bump(result, field=field):
                result[field][-1] += 1
            self.assertEqual(self.failures(bump), 1, field)
        self.assertEqual(self.failures(lambda r: r["logprobs"].__setitem__(5, -99.0)), 1)
        self.assertEqual(self.failures(lambda r: r["logprobs"].__setitem__(5, float("nan"))), 1)
        self.assertEqual(self.failures(lambda r: r["token_ids"].pop()), 1)
        self.assertEqual(self.failures(lambda r: r.update(finish_reason="stop")), 1)
        self.assertEqual(self.failures(lambda r: r.update(error={"code": "INTERNAL"})), 1)
        self.assertEqual(self.failures(lambda r: r.update(id="other")), 1)

    def test_a_fork_is_right_and_ends_the_prompt(self):
        goldens = cases.read_jsonl(self.path)
        goldens[4]["margins"][2] = 5e-4
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "golden.jsonl")
            path.write_text("".join(json.dumps(line) + "\n" for line in goldens))
            self.results[3]["token_ids"][2:] = [0] * 14
            report = compare.compare(self.results, path)
        self.assertEqual((len(report.failures), report.forks), (0, 1))


class Goldens(unittest.TestCase):

    def test_random_models_are_those_of_the_goldens(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in make_models.MODELS:
                header = cases.read_jsonl(cases.golden_path(name))[0]
                digest = make_models.weights_digest(make_models.make_model(folder, name))
                self.assertEqual(digest, header["weights_sha256"], name)

    def test_goldens_are_what_the_reference_says_today(self):
        for name in make_models.MODELS:
            encoder = encoder_of(make_models.shape_of(name)["tokenizer"])
            goldens = cases.read_jsonl(cases.golden_path(name))[1:]
            self.assertEqual([line["id"] for line in goldens],
                             [case["id"] for case in cases.cases_of(name)])
            for case, line in zip(cases.cases_of(name), goldens):
                encoded = reference.encode_prompt(case, encoder)
                self.assertEqual(encoded.token_ids, line["prompt_token_ids"], case["id"])
                self.assertEqual(encoded.segments, cases.expand_runs(line["segments"]))
                self.assertEqual(encoded.groups, cases.expand_runs(line["group_ids"]))
                self.assertEqual(encoded.positions, cases.expand_ramps(line["position_ids"]))

    def test_rules_change_the_answers(self):
        """If the mask did not matter, the parity test would prove little."""
        for name in make_models.MODELS:
            answers = {}
            for line in cases.read_jsonl(cases.golden_path(name))[1:]:
                prompt = line["id"].split("/")[0]
                answers.setdefault(prompt, set()).add(tuple(line["token_ids"]))
            several = sum(len(different) >= 3 for different in answers.values())
            self.assertGreaterEqual(several, len(answers) * 3 // 4, name)

    def test_real_prompts_hold_what_they_promise(self):
        prompts = cases.cases_of(cases.REAL_MODELS[0])
        self.assertEqual(len(prompts), 64)
        self.assertEqual(len({prompt["id"] for prompt in prompts}), 64)
        combinations = {(prompt["rule"] if isinstance(prompt["rule"], str) else "table",
                         prompt["positions"], prompt["tokenization"]) for prompt in prompts}
        self.assertEqual(len(combinations), 20)


if __name__ == "__main__":
    print(f"seed {SEED}")
    unittest.main()

"""Random texts that a tokenizer may stumble over, for oracle.py. Deterministic by seed."""

import random

WORDS = """the of and to in is that for it as was with be by on not he his but at are this have from
or had an they which one you were all her she there would their we him been has when who will no more
if out so said what up its about than into them can only other time new some could these two may first
then do any like my now over such our man me even most made after also did many off before must well
Paris France capital question answer context document Straße naïve façade coöperate jalapeño résumé
internationalization university zzzzzzzz HTTPServer getElementById snake_case CamelCase""".split()

CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'M", "'LL",
                "'lL", "'D", "'\u017f", "'\u017fa", "'\u212a", "'rE", "'l", "'r", "'v", "''s",
                "\u2019s",
                "' s", "'", "'\u1e97", "'s's", "'x", " 's"]

SPACES = [" ", "  ", "   ", "    ", "        ", "\n", "\r\n", "\r", "\n\n", "\n\n\n", "\t", " \n",
          "\n ",
          " \r\n ", "\t\n", "\u00a0", "\u0085", "\u180e", "\u200b", "\u2003", "\u2028", "\u2029",
          "\u3000",
          "\u202f", "\ufeff", "\u1680", "\x0b", "\x0c", "\x1c", "\x1f", " \u00a0 ", "\r\r\n",
          "\n\r"]

CODE = ["def f(x):\n    return x**2  # done\n", "if (a && b) {\n\tc[i] += 1;\r\n}\r\n",
        "<div class=\"x\">",
        "SELECT * FROM t WHERE id=42;", "std::vector<int>&", "0xDEADBEEF", "1e-10", "$HOME/.cache",
        "a->b()",
        "/* ... */", "//=====//", "x = {'a': [1, 2, 3]}", "http://example.com/?q=1&r=2#frag",
        "#!/bin/sh\n",
        "@property", "!=", "...", "--", "::", "\\n", "%s\t%d", "```python\n", "{{x}}",
        "|---|---|\n"]

EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🇫🇷", "🇩🇪🇯🇵", "❤️", "✨", "🏳️‍🌈", "1️⃣", "🫨", "🧑🏿‍🚀", "☺",
         "\U0001fae8",
         "\U0001fac8", "🇫", "\u200d", "\ufe0f", "\u20e3"]

COMBINING = ["e\u0301", "a\u0308\u0323", "o\u0302\u0301", "\u0344", "\u0958", "\u09c7\u09be",
             "\u0b47\u0b56",
             "\u1100\u1161", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u11a8", "\u1161",
             "\u0f71\u0f72\u0f74",
             "q\u0307\u0323", "\u0323\u0307", "\u212b", "\u2126", "\uf900", "\ufb2c",
             "\u0041\u030a", "\u1e9b\u0323",
             "\u0300", "\u0340", "\u0374", "\u1f80", "\u03b1\u0313\u0345", "\u302a\u3099",
             "\u304b\u3099", "\u05d1\u05bc",
             "\U0001d157\U0001d165", "\U00011938", "\U00011935\U00011930", "\U000110ab",
             "\U00011099\U000110ba",
             "\u1dfa\u0316", "\u0315\u0300\u05ae\u0315", "\u0cc6\u0cc2\u0cd5", "\u1025\u102e",
             "s\u0307\u0323", "\u0338="]

RANGES = [(0x20, 0x7f), (0xa0, 0x180), (0x180, 0x250), (0x370, 0x400), (0x400, 0x530), (0x530,
                                                                                        0x590),
          (0x590, 0x600), (0x600, 0x700), (0x900, 0x980), (0x980, 0xa00), (0xe00, 0xe80), (0xf00,
                                                                                           0xfd0),
          (0x10a0, 0x1100), (0x1100, 0x1200), (0x1200, 0x1380), (0x1e00, 0x2000), (0x2000, 0x2070),
          (0x2070, 0x20d0), (0x20d0, 0x2100), (0x2150, 0x2190), (0x2190, 0x2300), (0x2460, 0x2500),
          (0x2c80, 0x2d00),
          (0x3000, 0x3100), (0x3130, 0x3190), (0x3200, 0x3300), (0x4e00, 0x9fff), (0xa4d0, 0xa500),
          (0xa640, 0xa6a0),
          (0xac00, 0xd7a4), (0xe000, 0xe010), (0xf900, 0xfb00), (0xfb00, 0xfb50), (0xfb50, 0xfe00),
          (0xfe00, 0xfe10),
          (0xff00, 0xffef), (0xfff0, 0x10000), (0x10000, 0x10100), (0x10a00, 0x10a60), (0x11000,
                                                                                        0x11100),
          (0x11900, 0x11960), (0x11d00, 0x11e00), (0x16ff0, 0x17000), (0x1d400, 0x1d800), (0x1e900,
                                                                                           0x1e960),
          (0x1f1e6, 0x1f200), (0x1f300, 0x1f700), (0x20000, 0x20100), (0x30000, 0x30100), (0xe0000,
                                                                                           0xe0080),
          (0xf0000, 0xf0010), (0x10fff0, 0x110000), (0, 0x20), (0x7f, 0xa0)]

DIGITS = ["0", "1", "7", "12", "345", "6789", "1234567", "3.14", "1,000", "٣٤", "१२३",
          "\u00b2\u00b3", "\u2153",
          "\u2167", "\u2460", "\U0001d7d9", "\U00011de3", "\U00016ff4", "〇", "三", "\u0bf0", "૧2"]

SPECIAL_LOOKALIKES = ["<|im_end", "|>", "<|", "<s>", "</s>", "<unk>", "<0x41>", "<0x0A>", "\u2581",
                      "\u2581\u2581",
                      "<|endoftext|>", "<|im_end|>", "<tool_call", "<think>", "<", ">"]


class TextGenerator:
    def __init__(self, seed, added_tokens):
        self.random = random.Random(seed)
        self.added_tokens = list(added_tokens) or ["<|x|>"]

    def _from_ranges(self):
        low, high = self.random.choice(RANGES)
        count = self.random.choice((1, 1, 2, 3, 6))
        return "".join(chr(self.random.randrange(low, high)) for _ in range(count))

    def _any_character(self):
        while True:
            c = self.random.randrange(0x110000)
            if not 0xD800 <= c < 0xE000:
                return chr(c)

    def _run(self):
        unit = self.random.choice(["a", " ", "\n", "\r\n", "1", "!", "é", "e\u0301", "\u0301", "的",
                                   "😀", "\u2581",
                                   "'s", "\t", "ab", " a", "\u200b", "<", "A", "\u1100", "٣"])
        return unit * int(2 ** self.random.uniform(1, 10))

    def _chunk(self):
        r = self.random
        kind = r.random()
        if kind < 0.30:
            return r.choice(WORDS) + r.choice((" ", "", " ", ", ", ". "))
        if kind < 0.36:
            return r.choice(WORDS) + r.choice(CONTRACTIONS)
        if kind < 0.48:
            return r.choice(SPACES)
        if kind < 0.54:
            return r.choice(CODE)
        if kind < 0.60:
            return r.choice(EMOJI)
        if kind < 0.68:
            return r.choice(COMBINING)
        if kind < 0.80:
            return self._from_ranges()
        if kind < 0.86:
            return r.choice(DIGITS)
        if kind < 0.89:
            return self._any_character()
        if kind < 0.92:
            return r.choice(SPECIAL_LOOKALIKES)
        if kind < 0.96:
            return r.choice(self.added_tokens)
        if kind < 0.97:
            return self._run()
        return r.choice(CONTRACTIONS)

    def text(self):
        count = self.random.choice((0, 1, 1, 2, 3, 4, 6, 8, 12, 20))
        return "".join(self._chunk() for _ in range(count))

    def hostile_text(self):
        """4 to 64 KiB made to be dear: long words, long runs, and repeated units."""
        r = self.random
        alphabets = ["abcdefghijklmnopqrstuvwxyz", "abAB", "aeiou\u0301\u0308\u0323", " \t\n\r",
                     "0123456789", "!?.,;:-=<>|'\"", "\u200d\ufe0f👨👩👧", "\u0301\u0323\u0344\u1dfa",
                     "".join(chr(c) for c in range(*r.choice(RANGES)) if not 0xD800 <= c < 0xE000)]
        units = WORDS + SPACES + EMOJI + COMBINING + DIGITS + SPECIAL_LOOKALIKES + ["<|im_start|"]
        units += self.added_tokens
        size = int(2 ** r.uniform(12, 16))
        pieces = []
        while size > 0:
            alphabet = r.choice(alphabets)
            unit = r.choice((r.choice(alphabet), r.choice(units), None, None))
            wanted = r.choice((size, size, size // 2 + 1, 300))
            piece = ("".join(r.choices(alphabet, k=wanted)) if unit is None else
                     unit * (wanted // len(unit) + 1))
            pieces.append(piece[:wanted])
            size -= len(pieces[-1].encode())
        return "".join(pieces)

    def segments(self, hostile=False):
        """One text, cut anywhere, also inside what looks like one character."""
        text = self.hostile_text() if hostile else self.text()
        cuts = self.random.choice((0, 0, 1, 1, 2, 3, 6))
        borders = sorted(self.random.randint(0, len(text)) for _ in range(cuts))
        return [text[a:b] for a, b in zip([0] + borders, borders + [len(text)])]

    def ids(self, size):
        """Ids as a model might emit them: any, known or not, and runs of neighbours (the byte
        tokens of SentencePiece are neighbours)."""
        r = self.random
        ids = []
        for _ in range(r.choice((0, 1, 3, 8, 20))):
            start = r.choice((r.randrange(size + 20), r.randrange(min(size, 300))))
            ids += [start] if r.random() < 0.7 else [
                max(0, start + r.randrange(-40, 40)) for _ in range(r.randrange(6))]
        return ids

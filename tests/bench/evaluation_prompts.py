"""Prompts of an evaluation run, as many as wanted and never the same twice.

Each run (a seed) has its own instruction and four solved examples,
which all of its prompts share, and every prompt asks one question in six ways: about 370 tokens.
Standard library only.
"""

import random

PARAPHRASES = 6
SHOTS = 4

# Six ways to ask for one relation of a thing.
RELATIONS = [
    ["What is the capital city of the province of {x}, where its council meets?",
     "In which city does the government of the province of {x} have its seat?",
     "Name the town from which the whole province of {x} is administered today.",
     "Which city would a letter to the governor of {x} have to be sent to?",
     "The provincial parliament of {x} sits in a city. What is that city called?",
     "Of all the towns in the province of {x}, which one is its capital?"],
    ["Who wrote the novel that was published under the title {x} and widely read?",
     "Which author do we have to thank for the well known novel {x}?",
     "Name the writer whose best known book carries the title {x}.",
     "The novel {x} was written by one person. What is the name of that person?",
     "By whom was the book {x}, which many people know, first written down?",
     "If you look at the cover of {x}, which author's name do you find there?"],
    ["Which company built the machine that is known to engineers as the {x}?",
     "Who is the manufacturer of the {x}, a machine that is still in use?",
     "Name the firm whose workshops produced the machine called the {x}.",
     "The {x} came out of the factory of one company. Which company was it?",
     "By which maker was the machine with the name {x} designed and sold?",
     "On the nameplate of a {x} stands the name of its maker. What is it?"],
    ["What language do most of the people who live on the island of {x} speak?",
     "On the island of {x}, which language is used at home by the majority?",
     "Name the language that children on the island of {x} learn first.",
     "Which tongue would a visitor hear most often in the streets of {x}?",
     "The inhabitants of the island of {x} talk to each other in which language?",
     "If you wanted to be understood by people from {x}, what should you speak?"],
]
INSTRUCTIONS = [
    "Each of the following entries asks one and the same question in several ways. Give the answer "
    "in a few words, and write nothing after it. The answer is a name; if you are not sure, write "
    "the name that seems most likely to you.\n\n",
    "Below you find questions together with their answers. Read all the ways in which the last "
    "question is asked, and answer it once, briefly. Every answer is a single name, and there is "
    "one for every question, so do not leave it empty.\n\n",
]
SYLLABLES = ["ba", "den", "for", "gal", "hin", "ka", "lor", "mer", "nis", "or", "pel", "qua", "ri",
             "sen", "tul", "ver", "wim", "yas", "zo", "ther"]


def name(rng):
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3))).capitalize()


def _shot(rng):
    """A solved example: the question in two ways, and its answer."""
    ways = rng.sample(rng.choice(RELATIONS), 2)
    thing = name(rng)
    asked = "".join(f"Question: {way.format(x=thing)}\n" for way in ways)
    return {"type": "few_shot", "text": f"{asked}Answer: {name(rng)}\n\n"}


def _questions(rng):
    ways = rng.choice(RELATIONS)
    thing = name(rng)
    return [{"type": "question", "text": f"Question: {way.format(x=thing)}\n",
             "paraphrase_index": index} for index, way in enumerate(ways)]


def make_prompts(seed, count, rule="anchored"):
    """`count` prompts of the run `seed`, as contract JSON."""
    rng = random.Random(seed)
    shared = [{"type": "instruction", "text": rng.choice(INSTRUCTIONS)}]
    shared += [_shot(rng) for _ in range(SHOTS)]
    return [{"id": f"run{seed}-{index}",
             "segments": shared + _questions(rng) + [{"type": "answer_cue", "text": "Answer:"}],
             "rule": rule, "positions": "sequential", "tokenization": "joint"}
            for index in range(count)]

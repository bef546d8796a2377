"""Three paraphrases of one question, answered together, under two visibility rules."""

import sys

from structattn import Client, StructattnError, answer_cue, few_shot, question

client = Client(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051")

segments = [
    few_shot("Q: What is the capital of Italy?\nA: Rome\n"),
    question("Q: What is the capital of France?\n", 0),
    question("Q: Which city is France's capital?\n", 1),
    question("Q: France is governed from which city?\n", 2),
    answer_cue("A:"),
]

try:
    for rule in ("anchored", "causal"):
        prompt = {"segments": segments, "rule": rule}
        seen = client.inspect(prompt)
        print(f"{rule}: {seen.visible_pairs} of {seen.causal_pairs} pairs visible;", end="")
        for chunk in client.stream(prompt, max_tokens=8, stop_strings=["\n"]):
            print(chunk.text, end="", flush=True)
        print()
except StructattnError as error:
    sys.exit(f"{error.field or 'call'}: {error}")

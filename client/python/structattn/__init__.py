"""Client of structattn, the server for structured attention.

    from structattn import Client, answer_cue, question
    client = Client("127.0.0.1:50051")
    prompt = {"segments": [question("What is the capital of France?", 0),
                           question("France's capital is called?", 1),
                           answer_cue(" The answer is")]}
    print(client.generate(prompt, max_tokens=8).text)
"""

from structattn._version import __version__
from structattn.client import (BatchResult, Chunk, Client, Generation, Inspection, StructattnError,
                               Token)
from structattn.prompt import (answer_cue, context, few_shot, instruction, question, segment,
                               separator, to_proto)

__all__ = ["BatchResult", "Chunk", "Client", "Generation", "Inspection", "StructattnError", "Token",
           "__version__", "answer_cue", "context", "few_shot", "instruction", "question", "segment",
           "separator", "to_proto"]

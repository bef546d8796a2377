"""GGUF files with the vocabulary of a tokenizer.json, as converters write them; for oracle.py."""

import gguf

PRE = {"gpt2": "gpt-2", "smollm2": "smollm", "llama3": "llama-bpe", "qwen2": "qwen2",
       "qwen3": "qwen2", "deepseek-llm": "deepseek-llm", "deepseek-coder": "deepseek-coder"}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def tokens_and_types(document, holes):
    vocabulary = document["model"]["vocab"]
    added = {token["id"]: token for token in document["added_tokens"]}
    size = max(list(vocabulary.values()) + list(added)) + 1
    tokens = [f"[PAD{i}]" for i in range(size + holes)]
    types = [UNUSED] * len(tokens)
    for token, index in vocabulary.items():
        tokens[index], types[index] = token, NORMAL
        if document["model"]["byte_fallback"] and token.startswith("<0x"):
            types[index] = BYTE
    for index, token in added.items():
        tokens[index] = token["content"]
        # Converters call Qwen's fill-in-the-middle tokens control tokens, whatever its json says.
        control = token["special"] or token["content"].startswith("<|")
        types[index] = CONTROL if control else USER_DEFINED
    return tokens, types


def write(document, path, family):
    """Byte-level vocabularies with merges; SentencePiece's with scores, the first merge best."""
    writer = gguf.GGUFWriter(str(path), "llama")
    tokens, types = tokens_and_types(document, holes=5)
    if family in PRE:
        merges = [merge if isinstance(merge, str) else " ".join(merge)
                  for merge in document["model"]["merges"]]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(PRE[family])
        writer.add_token_merges(merges)
    else:
        types[document["model"]["vocab"]["<unk>"]] = UNKNOWN
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores([float(-index) for index in range(len(tokens))])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def scored_merges(vocabulary):
    """Every way to put a token together from two others; the best token first, then the longer
    left part, then the longer right part, then by the parts' ids."""
    merges = []
    for token, index in vocabulary.items():
        if token.startswith("<") and token.endswith(">") and len(token) > 2:
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                order = (index, -len(left), -len(right), vocabulary[left], vocabulary[right])
                merges.append((order, [left, right]))
    return [merge for _, merge in sorted(merges)]

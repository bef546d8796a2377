"""Prompts as plain dicts, in the JSON form of the command line, and their way to proto.

    {"segments": [{"type": "question", "text": "...", "paraphrase_index": 0}, ...],
     "rule": "anchored" or {"visible": [[0, 1], [1], [0, 2]]},
     "positions": "sequential", "tokenization": "joint", "add_special_tokens": True}

Only names and types are checked here; what they mean is the server's to judge.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from structattn.v1 import types_pb2 as types

PROMPT_FIELDS = {"segments", "rule", "positions", "tokenization", "add_special_tokens"}
SEGMENT_FIELDS = {"type", "text", "token_ids", "paraphrase_index", "paraphrase_idx", "group",
                  "parse_special"}
# Travel beside a prompt in files; the server does not see them.
COMPANIONS = {"id", "answers", "continuations"}


def segment(kind: str, content: str | Sequence[int], **fields: Any) -> dict:
    """A segment of the given type; content is text or token ids."""
    key = "text" if isinstance(content, str) else "token_ids"
    return {"type": kind, key: content, **fields}


def instruction(content: str | Sequence[int], **fields: Any) -> dict:
    return segment("instruction", content, **fields)


def few_shot(content: str | Sequence[int], **fields: Any) -> dict:
    return segment("few_shot", content, **fields)


def context(content: str | Sequence[int], **fields: Any) -> dict:
    return segment("context", content, **fields)


def question(content: str | Sequence[int], paraphrase_index: int, **fields: Any) -> dict:
    return segment("question", content, paraphrase_index=paraphrase_index, **fields)


def separator(content: str | Sequence[int], **fields: Any) -> dict:
    return segment("separator", content, **fields)


def answer_cue(content: str | Sequence[int], **fields: Any) -> dict:
    return segment("answer_cue", content, **fields)


def _enum(enum: Any, prefix: str, word: str, field: str) -> int:
    try:
        return enum.Value(prefix + word.upper())
    except (ValueError, AttributeError):
        allowed = [name[len(prefix):].lower() for name in enum.keys()
                   if not name.endswith("_UNSPECIFIED")]
        raise ValueError(f"{field}: {word!r} is unknown; allowed are {', '.join(allowed)}") from None


def _segment_to_proto(fields: Mapping[str, Any], where: str) -> types.Segment:
    unknown = set(fields) - SEGMENT_FIELDS
    if unknown:
        raise ValueError(f"{where}.{min(unknown)}: unknown field; allowed are "
                         f"{', '.join(sorted(SEGMENT_FIELDS))}")
    if ("text" in fields) == ("token_ids" in fields):
        raise ValueError(f"{where}: one of text, token_ids is needed")
    result = types.Segment(type=_enum(types.SegmentType, "SEGMENT_TYPE_", fields.get("type"),
                                      f"{where}.type"),
                           parse_special=fields.get("parse_special", False))
    if "text" in fields:
        result.text = fields["text"]
    else:
        result.token_ids.ids.extend(fields["token_ids"])
    index = fields.get("paraphrase_index", fields.get("paraphrase_idx"))
    if index is not None:
        result.paraphrase_index = index
    if fields.get("group") is not None:
        result.group = fields["group"]
    return result


def _rule_to_proto(rule: str | Mapping[str, Any]) -> types.Rule:
    if isinstance(rule, str):
        return types.Rule(preset=_enum(types.RulePreset, "RULE_PRESET_", rule, "rule"))
    if set(rule) != {"visible"}:
        raise ValueError('rule: a preset\'s name or {"visible": [[..], ..]} is needed')
    rows = [types.VisibleGroups(groups=row) for row in rule["visible"]]
    return types.Rule(table=types.RuleTable(visible=rows))


def to_proto(prompt: Mapping[str, Any] | types.Prompt) -> types.Prompt:
    """The proto form of a prompt. ValueError names the field that is wrong."""
    if isinstance(prompt, types.Prompt):
        return prompt
    unknown = set(prompt) - COMPANIONS - PROMPT_FIELDS
    if unknown:
        raise ValueError(f"{min(unknown)}: unknown field of a prompt")
    result = types.Prompt(segments=[_segment_to_proto(fields, f"segments[{i}]")
                                    for i, fields in enumerate(prompt.get("segments", []))])
    if "rule" in prompt:
        result.rule.CopyFrom(_rule_to_proto(prompt["rule"]))
    if "positions" in prompt:
        result.positions = _enum(types.PositionPolicy, "POSITION_POLICY_", prompt["positions"],
                                 "positions")
    if "tokenization" in prompt:
        result.tokenization = _enum(types.Tokenization, "TOKENIZATION_", prompt["tokenization"],
                                    "tokenization")
    if "add_special_tokens" in prompt:
        result.add_special_tokens = prompt["add_special_tokens"]
    return result

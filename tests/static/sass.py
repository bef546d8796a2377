"""Reads SASS as nvdisasm prints it: functions, basic blocks, loops, and what one turn of a loop costs.

It knows the machine's control flow only, and no kernel by name.
"""

import dataclasses
import re

LABEL = re.compile(r"^(\.L_x?_?\w+):")
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);")
SECTION = re.compile(r"^\s*\.section\s+\.text\.([^,\s]+)")
TARGET = re.compile(r"`\(([^)]+)\)")
# Instructions after which the next one is not reached (unless predicated).
ENDS_FLOW = ("EXIT", "RET", "BRX", "JMX", "KILL")
JUMPS = ("BRA", "JMP")


@dataclasses.dataclass
class Instruction:
    opcode: str  # "HMMA.16816.F32.BF16"
    predicate: str  # "@!P0" or nothing.
    operands: str
    target: str = ""  # Label that a jump names.

    @property
    def name(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def always(self) -> bool:
        return self.predicate in ("", "@PT", "@!UPT") or self.predicate == "@UPT"


@dataclasses.dataclass
class Block:
    instructions: list[Instruction]
    successors: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Loop:
    header: int
    blocks: frozenset[int]


class Function:
    """Basic blocks in the order of their addresses; block 0 is the entry."""

    def __init__(self, items: list):
        """items: Instruction, or a label's name before the instruction it stands at."""
        self.blocks: list[Block] = []
        self._split(items)

    def _split(self, items: list) -> None:
        labels, current = {}, None
        for item in items:
            if isinstance(item, str):
                if current is None or current.instructions:
                    current = self._add()
                labels[item] = len(self.blocks) - 1
                continue
            if current is None:
                current = self._add()
            current.instructions.append(item)
            if item.name in JUMPS + ENDS_FLOW:
                current = None
        for index, block in enumerate(self.blocks):
            last = block.instructions[-1] if block.instructions else None
            if last is not None and last.name in JUMPS and last.target in labels:
                block.successors.append(labels[last.target])
            leaves = last is not None and last.name in JUMPS + ENDS_FLOW and not conditional(last)
            if not leaves and index + 1 < len(self.blocks):
                block.successors.append(index + 1)

    def _add(self) -> Block:
        self.blocks.append(Block([]))
        return self.blocks[-1]

    def instructions(self) -> list[Instruction]:
        return [i for block in self.blocks for i in block.instructions]

    def loops(self) -> list[Loop]:
        """Natural loops; back edges to one header make one loop."""
        dominators = self._dominators()
        latches: dict[int, list[int]] = {}
        for index, block in enumerate(self.blocks):
            for successor in block.successors:
                if index in dominators and successor in dominators[index]:
                    latches.setdefault(successor, []).append(index)
        before = self._predecessors()
        found = []
        for header, ends in latches.items():
            body, todo = {header}, list(ends)
            while todo:
                block = todo.pop()
                if block not in body:
                    body.add(block)
                    todo += [b for b in before[block] if b in dominators]
            found.append(Loop(header, frozenset(body)))
        return found

    def _predecessors(self) -> list[list[int]]:
        before: list[list[int]] = [[] for _ in self.blocks]
        for index, block in enumerate(self.blocks):
            for successor in block.successors:
                before[successor].append(index)
        return before

    def _dominators(self) -> dict[int, set[int]]:
        """Of every block that the entry reaches: the blocks on all ways to it, itself included."""
        reached, todo = {0}, [0]
        while todo:
            for successor in self.blocks[todo.pop()].successors:
                if successor not in reached:
                    reached.add(successor)
                    todo.append(successor)
        before = self._predecessors()
        dominators = {block: set(reached) for block in reached}
        dominators[0] = {0}
        changed = True
        while changed:
            changed = False
            for block in sorted(reached - {0}):
                ways = [dominators[b] for b in before[block] if b in reached]
                common = set.intersection(*ways) | {block}
                if common != dominators[block]:
                    dominators[block], changed = common, True
        return dominators

    def longest_turn(self, loop: Loop) -> list[Instruction]:
        """The instructions of the longest way once round the loop, inner loops gone through once: no
        warp issues more in a turn, but for further turns of inner loops."""
        order, seen = [], set()

        def visit(block: int) -> None:
            seen.add(block)
            for successor in self.blocks[block].successors:
                if successor in loop.blocks and successor not in seen:
                    visit(successor)
            order.append(block)

        visit(loop.header)
        place = {block: rank for rank, block in enumerate(reversed(order))}
        best: dict[int, tuple[int, int]] = {}  # Block: length of the rest of the turn, next block.
        for block in order:
            onward = [(best[s][0], s) for s in self.blocks[block].successors
                      if s in best and place[s] > place[block]]
            length, following = max(onward, default=(0, -1))
            best[block] = (length + len(self.blocks[block].instructions), following)
        way, block = [], loop.header
        while block >= 0:
            way += self.blocks[block].instructions
            block = best[block][1]
        return way


def conditional(instruction: Instruction) -> bool:
    """A jump may also hang on a predicate among its operands: `BRA !P0, label`."""
    return not instruction.always or bool(re.match(r"\s*!?U?P\d", instruction.operands))


def parse(text: str) -> dict[str, Function]:
    """Function of every kernel, by its symbol."""
    functions, items = {}, []
    name = None
    for line in text.split("\n") + ["\t.section\t.text.,"]:
        section = SECTION.match(line)
        if section or line.lstrip().startswith(".section\t"):
            if name is not None:
                functions[name] = Function(items)
            name, items = (section.group(1) if section else None), []
            continue
        if label := LABEL.match(line):
            items.append(label.group(1))
        elif found := INSTRUCTION.match(line):
            _, predicate, opcode, operands = found.groups()
            target = TARGET.search(operands)
            items.append(Instruction(opcode, predicate or "", operands,
                                     target.group(1) if target else ""))
    return functions

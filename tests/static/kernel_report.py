"""One table of what the compiler made of every kernel on every architecture, and its check against
budgets.txt. As a program it prints the table:

    python tests/static/kernel_report.py [PART OF A KERNEL'S NAME]

Registers, spills and static shared memory come from ptxas; threads and dynamic shared memory from
the kernel's symbol (kernels/cuda/device.cuh, Entry); blocks a multiprocessor from occupancy.cc;
the loop from the disassembly. A figure here is what the compiler says, never a measured time.

The hottest loop is the one with the most HMMA in one turn, and of several (a loop for tiles that all
rows see whole, one that masks) the shortest. Issue slots are the instructions on the longest way once
round it: no warp issues more in a turn.
"""

import collections
import dataclasses
import pathlib
import re
import sys

import sass
import toolchain

BUDGETS = pathlib.Path(__file__).with_name("budgets.txt")
# Bytes of dynamic shared memory. sm_86, sm_89 and sm_120 have no more for a thread block.
MAX_SHARED_BYTES = 99 * 1024
# No budget may allow more, but for kernels that expand each code they read for 16 rows only: these are
# bound by memory, and tensor cores wait in any case.
MAX_SLOTS_PER_HMMA = 9.0
BOUND_BY_MEMORY = re.compile(r"Int8LinearKernel<\w+, 16>")
ENTRY = re.compile(r"Entry<(?:\(anonymous namespace\)::)?(.*), (\d+), (\d+)>\(")
PTXAS_KERNEL = re.compile(r"Compiling entry function '(\w+)'")
PTXAS_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
PTXAS_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")
# What an instruction of the loop is for.
KINDS = {
    "tensor": ("HMMA", "LDSM"),
    "exp": ("MUFU",),
    "float": ("FADD", "FMUL", "FFMA", "FMNMX", "FMNMX3", "FSEL", "FSETP", "FADD2", "FMUL2", "FFMA2"),
    "convert": ("F2FP", "F2F", "F2I", "I2F", "HADD2"),
    "memory": ("LDG", "STG", "LDS", "STS", "LDGSTS", "LDC", "LDCU", "ULDC", "LD", "ST"),
    "wait": ("BAR", "LDGDEPBAR", "DEPBAR", "WARPSYNC", "BSSY", "BSYNC", "SHFL", "BRA", "NOP"),
}


@dataclasses.dataclass
class Kernel:
    name: str  # "FlashAttentionKernel<Bfloat16, 64, false>"
    arch: int
    threads: int
    dynamic_shared: int
    registers: int = 0
    static_shared: int = 0
    spilled_bytes: int = 0
    local_accesses: int = 0  # LDL and STL.
    blocks: int = 0
    hmma: int = 0  # HMMA instructions of one turn of the hottest loop.
    slots: int = 0  # Issue slots of one turn of it.
    mix: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def shared(self) -> int:
        return self.static_shared + self.dynamic_shared

    @property
    def slots_per_hmma(self) -> float:
        return self.slots / self.hmma if self.hmma else 0.0


def short_name(template: str) -> str:
    for prefix in ("structattn::cuda::", "structattn::", "(anonymous namespace)::"):
        template = template.replace(prefix, "")
    return template


def kind_of(instruction: sass.Instruction) -> str:
    return next((kind for kind, names in KINDS.items() if instruction.name in names), "integer")


def hottest_turn(function: sass.Function) -> list[sass.Instruction]:
    """Of the loops with tensor-core instructions; empty without any."""
    turns = [function.longest_turn(loop) for loop in function.loops()]
    most = max((count_hmma(turn) for turn in turns), default=0)
    return min((turn for turn in turns if most and count_hmma(turn) == most), key=len, default=[])


def count_hmma(instructions: list[sass.Instruction]) -> int:
    return sum(i.name == "HMMA" for i in instructions)


def read_ptxas(kernels: dict[str, Kernel], log: str) -> None:
    kernel = None
    for line in log.split("\n"):
        if found := PTXAS_KERNEL.search(line):
            kernel = kernels[found.group(1)]
        elif found := PTXAS_FRAME.search(line):
            kernel.spilled_bytes = int(found.group(2)) + int(found.group(3))
        elif found := PTXAS_USED.search(line):
            kernel.registers = int(found.group(1))
            kernel.static_shared = int(found.group(2) or 0)


def read_sass(kernel: Kernel, function: sass.Function) -> None:
    everything = function.instructions()
    kernel.local_accesses = sum(i.name in ("LDL", "STL") for i in everything)
    turn = hottest_turn(function)
    kernel.hmma, kernel.slots = count_hmma(turn), len(turn)
    kernel.mix = dict(collections.Counter(map(kind_of, turn)))


def read(compiled: toolchain.Compiled) -> list[Kernel]:
    functions = sass.parse(toolchain.run([toolchain.tool("nvdisasm"), "-c", compiled.path]))
    kernels = {}
    for symbol, name in zip(functions, toolchain.demangle(list(functions))):
        found = ENTRY.search(name)
        assert found, f"{name}: not made by Launch() of kernels/cuda/device.cuh"
        kernels[symbol] = Kernel(short_name(found.group(1)), compiled.arch, int(found.group(2)),
                                 int(found.group(3)))
        read_sass(kernels[symbol], functions[symbol])
    read_ptxas(kernels, compiled.log)
    return list(kernels.values())


def set_blocks(kernels: list[Kernel]) -> None:
    program = toolchain.ROOT / "build/static-evidence/occupancy"
    program.parent.mkdir(parents=True, exist_ok=True)
    toolchain.run(["g++", "-std=c++20", "-O1", "-I", toolchain.cuda_include(),
                   pathlib.Path(__file__).with_name("occupancy.cc"), "-o", program])
    lines = [f"{k.arch} {k.registers} {k.threads} {k.static_shared} {k.dynamic_shared}"
             for k in kernels]
    for kernel, blocks in zip(kernels, toolchain.run([program], input="\n".join(lines)).split()):
        kernel.blocks = int(blocks)


def all_kernels() -> list[Kernel]:
    found = [kernel for compiled in toolchain.compile_all() for kernel in read(compiled)]
    set_blocks(found)
    return sorted(found, key=lambda kernel: (kernel.name, kernel.arch))


def table(kernels: list[Kernel]) -> str:
    lines = [f"{'kernel':44} sm  regs spill shared blocks hmma slots /hmma mix of the loop"]
    for k in kernels:
        mix = " ".join(f"{kind} {count}" for kind, count in
                       sorted(k.mix.items(), key=lambda item: -item[1]))
        lines.append(f"{k.name:44} {k.arch:3} {k.registers:4} {k.spilled_bytes:5} {k.shared:6} "
                     f"{k.blocks:6} {k.hmma:4} {k.slots:5} {k.slots_per_hmma:5.2f} {mix}")
    return "\n".join(lines)


@dataclasses.dataclass
class Budget:
    registers: int
    shared: int
    blocks: int
    slots_per_hmma: float


def read_budgets(text: str) -> dict[str, Budget]:
    """Lines `registers shared blocks slots_per_hmma kernel`; # begins a comment."""
    rows = [line.split(None, 4) for line in text.split("\n")
            if line.strip() and not line.startswith("#")]
    return {name.strip(): Budget(int(registers), int(shared), int(blocks), float(slots))
            for registers, shared, blocks, slots, name in rows}


def over_budget(kernel: Kernel, budget: Budget) -> list[str]:
    place = f"{kernel.name} on sm_{kernel.arch}: "
    slots = budget.slots_per_hmma
    if not BOUND_BY_MEMORY.fullmatch(kernel.name):
        slots = min(slots, MAX_SLOTS_PER_HMMA)
    checks = [
        (kernel.registers > budget.registers,
         f"{kernel.registers} registers, allowed {budget.registers}"),
        (kernel.shared > min(budget.shared, MAX_SHARED_BYTES),
         f"{kernel.shared} bytes of shared memory, allowed {min(budget.shared, MAX_SHARED_BYTES)}"),
        (kernel.blocks < budget.blocks,
         f"{kernel.blocks} blocks fit a multiprocessor, wanted {budget.blocks}"),
        (kernel.slots_per_hmma > slots,
         f"{kernel.slots_per_hmma:.2f} issue slots per HMMA, allowed {slots}"),
        (kernel.spilled_bytes > 0, f"{kernel.spilled_bytes} bytes spilled"),
        (kernel.local_accesses > 0, f"{kernel.local_accesses} accesses to local memory"),
    ]
    return [place + what for is_over, what in checks if is_over]


def violations(kernels: list[Kernel], budgets: dict[str, Budget]) -> list[str]:
    names = {kernel.name for kernel in kernels}
    found = [f"{name}: a budget but no kernel" for name in sorted(set(budgets) - names)]
    found += [f"{name}: no line in {BUDGETS.name}" for name in sorted(names - set(budgets))]
    return found + [line for kernel in kernels if kernel.name in budgets
                    for line in over_budget(kernel, budgets[kernel.name])]


def main() -> int:
    kernels = all_kernels()
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    print(table([kernel for kernel in kernels if part in kernel.name]))
    lines = violations(kernels, read_budgets(BUDGETS.read_text(encoding="utf-8")))
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())

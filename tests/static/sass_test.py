"""sass.py finds the blocks, loops and longest turns of small programs."""

import sass

HEAD = '\t.section\t.text.{name},"ax",@progbits\n\t.sectioninfo\t@"SHI_REGISTERS=9"\n'


def program(*lines: str, name: str = "kernel") -> str:
    """Lines are instructions; one that ends with a colon is a label."""
    text, address = HEAD.format(name=name), 0
    for line in lines:
        if line.endswith(":"):
            text += line + "\n"
            continue
        text += f"        /*{address:04x}*/                   {line} ;\n"
        address += 16
    return text


def loops_of(*lines: str):
    function = sass.parse(program(*lines))["kernel"]
    return function, sorted(function.loops(), key=lambda loop: loop.header)


def opcodes(turn) -> list[str]:
    return [instruction.name for instruction in turn]


def test_reads_predicates_modifiers_and_targets():
    function = sass.parse(program("S2R R0, SR_TID.X", "@!P0 BRA `(.L_x_1)", "HMMA.16816.F32 R4, R8, R2",
                                  ".L_x_1:", "EXIT"))["kernel"]
    assert [len(block.instructions) for block in function.blocks] == [2, 1, 1]
    jump = function.blocks[0].instructions[1]
    assert (jump.name, jump.predicate, jump.target) == ("BRA", "@!P0", ".L_x_1")
    assert function.blocks[0].successors == [2, 1]
    assert function.blocks[1].successors == [2] and function.blocks[2].successors == []


def test_code_after_exit_is_reached_by_jumps_only():
    function = sass.parse(program("@P0 EXIT", "EXIT", "NOP"))["kernel"]
    assert function.blocks[0].successors == [1] and function.blocks[1].successors == []


def test_loop_is_from_header_to_back_edge():
    function, loops = loops_of("MOV R0, RZ", ".L_x_0:", "HMMA R0, R1", "FADD R2, R3",
                               "@P0 BRA `(.L_x_0)", "EXIT")
    assert len(loops) == 1
    assert opcodes(function.longest_turn(loops[0])) == ["HMMA", "FADD", "BRA"]


def test_turn_takes_the_longer_way():
    function, loops = loops_of(".L_x_0:", "@P1 BRA `(.L_x_2)", "FADD R1, R1", "FMUL R1, R1",
                               "BRA `(.L_x_3)", ".L_x_2:", "MOV R1, R2", ".L_x_3:",
                               "@P0 BRA `(.L_x_0)", "EXIT")
    assert opcodes(function.longest_turn(loops[0])) == ["BRA", "FADD", "FMUL", "BRA", "BRA"]


def test_inner_loop_is_one_turn_of_the_outer():
    function, loops = loops_of(".L_x_0:", "HMMA R0, R1", ".L_x_1:", "LDG R3, R4",
                               "@P1 BRA `(.L_x_1)", "@P0 BRA `(.L_x_0)", "EXIT")
    assert [sorted(loop.blocks) for loop in loops] == [[0, 1, 2], [1]]
    assert opcodes(function.longest_turn(loops[0])) == ["HMMA", "LDG", "BRA", "BRA"]


def test_backward_jump_without_dominance_is_no_loop():
    """Cold code behind the end that jumps back into the middle."""
    _, loops = loops_of("@P0 BRA `(.L_x_9)", "MOV R0, R1", ".L_x_1:", "EXIT", ".L_x_9:",
                        "MOV R0, R2", "BRA `(.L_x_1)")
    assert loops == []


def test_two_back_edges_to_one_header_are_one_loop():
    function, loops = loops_of(".L_x_0:", "@P2 BRA `(.L_x_0)", "HMMA R0, R1", "@P0 BRA `(.L_x_0)",
                               "EXIT")
    assert len(loops) == 1 and loops[0].blocks == {0, 1}
    assert opcodes(function.longest_turn(loops[0])) == ["BRA", "HMMA", "BRA"]


def test_functions_are_told_apart():
    text = program("EXIT", name="first") + program("MOV R0, R1", "EXIT", name="second")
    assert {name: len(f.instructions()) for name, f in sass.parse(text).items()} == {
        "first": 1, "second": 2}

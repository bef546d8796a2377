"""A static verifier (PyPI sentryward) proves small launches free of races, in every schedule; where it
cannot, it says why, and that is written down here: a kernel that it comes to support fails the test."""

import pytest

import race
import toolchain

# The emulator (tests/simt) is alone in watching those that are not race_free.
EXPECTED = {
    "RmsNormKernel<Bfloat16, 4>": "race_free",
    "SiluMulKernel<Bfloat16, 4>": "race_free",
    "EmbeddingKernel<Bfloat16, 4>": "race_free",
    "LogitsPartKernel<4>": "race_free",
    "Int8LinearFloatKernel": "race_free",
    # It does not follow the predicate that makes a copy write zeros.
    "Int8LinearKernel<Bfloat16, 16>": "unsupported cp_async_operand_scope",
    "Int8LinearKernel<Bfloat16, 64>": "unsupported cp_async_operand_scope",
    "Int8LinearKernel<Bfloat16, 96>": "unsupported cp_async_operand_scope",
    # It cannot tell the null pointer's reads, which are never executed, from the outputs.
    "PickTokensKernel<4>": "unsupported allocation_alias_relation_unknown",
    # The slot of a token is data.
    "RopeKvWriteKernel<Bfloat16>": "unsupported control_predicate_not_static",
    # So are tiles, intervals and splits.
    "FlashAttentionKernel<Bfloat16, 64, false>": "unsupported control_predicate_not_static",
    "FlashAttentionKernel<Bfloat16, 64, true>": "unsupported control_predicate_not_static",
    "MergeSplitsKernel<Bfloat16, 64>": "unsupported control_predicate_not_static",
}


@pytest.fixture(scope="module")
def launches(static_tools) -> dict[str, race.Launch]:
    try:
        toolchain.nvcc()
    except toolchain.Missing as missing:
        pytest.skip(str(missing))
    return {launch.kernel: launch for launch in race.launches()}


def test_every_launch_is_expected(launches):
    assert set(launches) == set(EXPECTED)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", EXPECTED)
def test_kernel_is_race_free_or_the_reason_is_known(launches, kernel):
    assert race.reason(race.verify(launches[kernel])) == EXPECTED[kernel]


# The sum over the warps without the barrier before it.
RACING = """
.version 8.7
.target sm_120
.address_size 64
.extern .shared .align 16 .b8 structattn_shared[];
.visible .entry racing(.param .u64 .ptr .global .align 4 racing_param_0)
.maxntid 64
{
  .reg .b32 %r<8>; .reg .b64 %rd<8>;
  ld.param.u64 %rd1, [racing_param_0];
  cvta.to.global.u64 %rd2, %rd1;
  mov.u32 %r1, %tid.x;
  shl.b32 %r2, %r1, 2;
  mov.u32 %r3, structattn_shared;
  add.s32 %r4, %r3, %r2;
  st.shared.u32 [%r4], %r1;
  @BARRIER@
  xor.b32 %r5, %r2, 128;
  add.s32 %r6, %r3, %r5;
  ld.shared.u32 %r7, [%r6];
  mul.wide.u32 %rd3, %r1, 4;
  add.s64 %rd4, %rd2, %rd3;
  st.global.u32 [%rd4], %r7;
  ret;
}
"""


@pytest.mark.parametrize("barrier, result", [("bar.sync 0;", "race_free"), ("", "potential_race")])
def test_verifier_finds_a_missing_barrier(static_tools, tmp_path, barrier, result):
    ptx = tmp_path / "racing.ptx"
    ptx.write_text(RACING.replace("@BARRIER@", barrier), encoding="utf-8")
    assert race.ask(ptx, race.request(
        race.Launch("racing", "", (1, 1), 256, ()), "racing", 64))["result"] == result

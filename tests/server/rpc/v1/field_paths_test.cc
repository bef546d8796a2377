// Every logical path that is not a field's own name.
#include "server/rpc/v1/field_paths.h"

#include <gtest/gtest.h>

namespace structattn::rpc {
namespace {

TEST(FieldPath, NamesTheFieldsOfTheWire) {
  EXPECT_EQ(FieldPath("rule"), "rule.table.visible");
  EXPECT_EQ(FieldPath("rule[2]"), "rule.table.visible[2]");
  EXPECT_EQ(FieldPath("rule[2][0]"), "rule.table.visible[2].groups[0]");
  EXPECT_EQ(FieldPath("branches[1].cue"), "branches[1].branch_cue");
  for (const char* same : {"", "rule.preset", "segments[3].paraphrase_index", "branches[1].group",
                           "sampling.logit_bias[7]", "fusion.weights[0]"}) {
    EXPECT_EQ(FieldPath(same), same);
  }
}

}  // namespace
}  // namespace structattn::rpc

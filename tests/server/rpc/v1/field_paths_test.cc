// Every logical path that is not a field's own name, and errors with these.
#include "server/rpc/v1/field_paths.h"

#include <gtest/gtest.h>

#include "server/engine/field_error.h"
#include "tests/server/rpc/in_process_server.h"

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

TEST(ToV1Status, NamesTheFieldInDetailsAndMessageAlike) {
  const grpc::Status status =
      ToV1Status(engine::InvalidField("rule[1]", "SOME_REASON", "it does not see itself"));
  EXPECT_EQ(DetailsOf(status).field, "rule.table.visible[1]");
  EXPECT_EQ(status.error_message(), "rule.table.visible[1]: it does not see itself");
  const grpc::Status same = ToV1Status(engine::InvalidField("n", "SOME_REASON", "0 is too few"));
  EXPECT_EQ(same.error_message(), "n: 0 is too few");
}

}  // namespace
}  // namespace structattn::rpc

// SHA-256 against the examples of FIPS 180-4.
#include "server/model/sha256.h"

#include <gtest/gtest.h>

namespace structattn {
namespace {

TEST(Sha256Test, EqualsTheStandardsExamples) {
  EXPECT_EQ(Sha256().Hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256 hash;
  hash.Update("abc");
  EXPECT_EQ(hash.Hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256Test, DoesNotDependOnHowTheBytesArrive) {
  Sha256 whole;
  whole.Update("structured attention");
  Sha256 parts;
  parts.Update("structured");
  parts.Update("");
  parts.Update(" attention");
  EXPECT_EQ(whole.Hex(), parts.Hex());
}

}  // namespace
}  // namespace structattn

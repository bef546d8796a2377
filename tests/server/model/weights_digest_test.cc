// The digest of weights against its definition, with values of Python's hashlib and xxhash:
//   chunks = b"".join(xxhash.xxh3_128_digest(data[i:i + 2**20]) for i in range(0, n, 2**20))
//   hashlib.sha256(b"a %d\n" % n + chunks).hexdigest()        # data[i] = i * i % 251, n bytes
#include "server/model/weights_digest.h"

#include <gtest/gtest.h>

#include <string>

namespace structattn {
namespace {

std::string Data(size_t bytes) {
  std::string data(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<char>(i * i % 251);
  return data;
}

std::string Digest(std::string_view name, std::string_view bytes, int threads = 1) {
  ThreadPool pool(threads);
  WeightsDigest digest(pool);
  digest.Add(name, bytes);
  return digest.Hex();
}

TEST(WeightsDigestTest, EqualsItsDefinition) {
  EXPECT_EQ(Digest("a", Data(0)),
            "32a52d142787b2e750b0742213fc0076703e5d4bee6f63cb3bf8bdfcffeb50c0");
  EXPECT_EQ(Digest("a", Data(3)),
            "d210fb200c012e4699314aef0e82c9e16410f5da04c06129fce1afd9c64fc965");
  EXPECT_EQ(Digest("a", Data(1048576)),
            "a27edaf7e01c2c7e49c3558f6810cad6ed79f3fa8260fd077d1c58b258b7c313");
  EXPECT_EQ(Digest("a", Data(2621447)),
            "f5d145648a4b45661f40cd01d8e5477806f79913a778e9bc102b7fb047cc8a55");
}

TEST(WeightsDigestTest, DependsOnEveryByteAndNameAndNotOnThreads) {
  std::string data = Data((3 << 20) + 5);
  const std::string digest = Digest("a", data);
  EXPECT_EQ(Digest("a", data, 4), digest);
  EXPECT_NE(Digest("b", data), digest);
  for (const size_t place : {size_t{0}, size_t{1} << 20, data.size() - 1}) {
    data[place] ^= 1;
    EXPECT_NE(Digest("a", data), digest) << place;
    data[place] ^= 1;
  }
  EXPECT_NE(Digest("a", std::string_view(data).substr(1)), digest);
}

}  // namespace
}  // namespace structattn

// Architectures that are often brought and not served, with the reason, for messages. It decides
// nothing: what is served stands in hf_config.cc.
#ifndef STRUCTATTN_SERVER_MODEL_REFUSED_ARCHITECTURES_H_
#define STRUCTATTN_SERVER_MODEL_REFUSED_ARCHITECTURES_H_

#include <string>
#include <string_view>

namespace structattn {

// " (REASON)", or nothing where there is nothing to say but that it is not served. `architecture`
// is a name in `architectures` of config.json.
std::string WhyNotServed(std::string_view architecture);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_MODEL_REFUSED_ARCHITECTURES_H_

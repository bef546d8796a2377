// --check: says on stdout what a path is, whether and how it would be served, and why not. Reads no
// weights, opens no port.
#ifndef STRUCTATTN_SERVER_CHECK_H_
#define STRUCTATTN_SERVER_CHECK_H_

#include "server/options.h"

namespace structattn {

// Of options.check_path, with the other options as they are. The exit code: kExitDrained where it
// would be served, else kExitModelRefused.
int CheckModel(const ServerOptions& options);

}  // namespace structattn

#endif  // STRUCTATTN_SERVER_CHECK_H_

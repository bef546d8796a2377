// What gRPC and Protobuf have to say goes into the server's own log.
#ifndef STRUCTATTN_SERVER_RPC_LIBRARY_LOG_H_
#define STRUCTATTN_SERVER_RPC_LIBRARY_LOG_H_

namespace structattn::rpc {

// Between the constructor and the destructor the libraries' messages are lines of the log. One at a
// time, inside the time between StartLog and StopLog.
class LibraryLog {
 public:
  LibraryLog();
  ~LibraryLog();
  LibraryLog(const LibraryLog&) = delete;
  LibraryLog& operator=(const LibraryLog&) = delete;
};

}  // namespace structattn::rpc

#endif  // STRUCTATTN_SERVER_RPC_LIBRARY_LOG_H_

// Reads prompts from files and reports on stderr what is wrong with one. It asks no server.
#ifndef STRUCTATTN_CLIENT_CLI_FILES_H_
#define STRUCTATTN_CLIENT_CLI_FILES_H_

#include <string>
#include <vector>

#include "client/result_json.h"

namespace structattn::client {

// The file's contents; "-" is standard input. Throws CLI::FileError, a usage error.
std::string ReadFile(const std::string& path);

// The file's lines that are not blank.
std::vector<std::string> ReadLines(const std::string& path);

// "error: MESSAGE" on stderr, and the segment that the field points at, if any.
void ReportError(const ErrorText& error, const v1::Prompt& prompt);

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_FILES_H_

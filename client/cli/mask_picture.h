// The visibility of a prompt as a picture, from an answer of Inspect: in the terminal's colours or
// as SVG. It only draws: what is visible is in the answer.
#ifndef STRUCTATTN_CLIENT_CLI_MASK_PICTURE_H_
#define STRUCTATTN_CLIENT_CLI_MASK_PICTURE_H_

#include <string>
#include <vector>

#include "structattn/v1/inference_service.pb.h"

namespace structattn::client {

// Consecutive tokens [begin, end) of one group.
struct TokenRun {
  int begin;
  int end;
  int group;
};
std::vector<TokenRun> TokenRuns(const v1::InspectResponse& response);

// Whether a query of `query_group` sees keys of `key_group`.
bool GroupSees(const v1::InspectResponse& response, int query_group, int key_group);

// Tokens as text, coloured by group, then the mask, at most `columns` characters wide: rows are
// queries, columns keys, two rows a line. Without `colour` groups are digits and letters.
std::string TerminalPicture(const v1::InspectResponse& response, int columns, bool colour);

// The mask as SVG, one rectangle per pair of runs: exact at any length.
std::string SvgPicture(const v1::InspectResponse& response);

}  // namespace structattn::client

#endif  // STRUCTATTN_CLIENT_CLI_MASK_PICTURE_H_

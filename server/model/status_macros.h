// Early return of absl::Status errors. Used in the server only; defines nothing but two macros.
#ifndef STRUCTATTN_SERVER_MODEL_STATUS_MACROS_H_
#define STRUCTATTN_SERVER_MODEL_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define STRUCTATTN_CONCAT_INNER(a, b) a##b
#define STRUCTATTN_CONCAT(a, b) STRUCTATTN_CONCAT_INNER(a, b)

// Returns the status of `expression` from the enclosing function unless it is OK.
#define STRUCTATTN_RETURN_IF_ERROR(expression)                   \
  do {                                                           \
    absl::Status status_of_expression = (expression);            \
    if (!status_of_expression.ok()) return status_of_expression; \
  } while (false)

// NOLINTBEGIN(bugprone-macro-parentheses): `result` and `target` are declared here, so they are no
// expressions.
#define STRUCTATTN_ASSIGN_OR_RETURN_INNER(result, target, expression) \
  auto result = (expression);                                         \
  if (!result.ok()) return result.status();                           \
  target = *std::move(result)
// NOLINTEND(bugprone-macro-parentheses)

// Assigns the value of a StatusOr to `target` (may declare it), or returns its status.
#define STRUCTATTN_ASSIGN_OR_RETURN(target, expression) \
  STRUCTATTN_ASSIGN_OR_RETURN_INNER(STRUCTATTN_CONCAT(status_or_, __LINE__), target, expression)

#endif  // STRUCTATTN_SERVER_MODEL_STATUS_MACROS_H_

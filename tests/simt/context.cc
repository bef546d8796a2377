// How reports are written and gathered. What is a fault is decided elsewhere.
#include "tests/simt/context.h"

#include <algorithm>

namespace structattn::simt {

std::string_view Name(ReportKind kind) {
  switch (kind) {
    case ReportKind::kSharedRace:
      return "race in shared memory";
    case ReportKind::kGlobalRace:
      return "race in global memory";
    case ReportKind::kCopyRace:
      return "copy into bytes in use";
    case ReportKind::kPendingCopyRead:
      return "read before the copy was waited for";
    case ReportKind::kPendingCopyWrite:
      return "write before the copy was waited for";
    case ReportKind::kUninitializedRead:
      return "read of uninitialised shared memory";
    case ReportKind::kSharedBounds:
      return "out of the bounds of shared memory";
    case ReportKind::kSharedMisaligned:
      return "misaligned in shared memory";
    case ReportKind::kGlobalBounds:
      return "out of the bounds of registered memory";
    case ReportKind::kGlobalMisaligned:
      return "misaligned in global memory";
    case ReportKind::kReadOnlyWrite:
      return "write to read-only memory";
    case ReportKind::kBankConflict:
      return "bank conflict";
    case ReportKind::kDivergentCollective:
      return "divergent collective";
    case ReportKind::kBarrierDivergence:
      return "divergent barrier";
    case ReportKind::kDeadlock:
      return "deadlock";
    case ReportKind::kPendingCopyAtExit:
      return "exit with pending copies";
  }
  return "";
}

std::string ToString(Place place) {
  return std::string(place.file_name()) + ":" + std::to_string(place.line());
}

void ReportList::Add(Report report) {
  const auto [known, is_new] =
      index_.try_emplace({report.kind, report.kernel, report.places}, reports_.size());
  if (is_new) {
    reports_.push_back(std::move(report));
  } else {
    ++reports_[known->second].times;
  }
}

std::vector<Report> ReportList::Take() {
  index_.clear();
  return std::exchange(reports_, {});
}

void Context::Add(ReportKind kind, std::vector<Party> parties, std::string detail) {
  Report report = {.kind = kind,
                   .kernel = kernel,
                   .block = block,
                   .threads = {},
                   .places = {},
                   .detail = std::move(detail)};
  for (const Party& party : parties) {
    report.threads.push_back(party.thread);
    report.places.push_back(ToString(party.place));
  }
  reports.Add(std::move(report));
  if (--reports_left <= 0) throw Abandoned();
}

namespace {

std::string ThreadName(int thread) {
  if (thread == kSeveralThreads) return "several threads";
  if (thread == kSeveralBlocks) return "several blocks";
  return "thread " + std::to_string(thread);
}

}  // namespace

std::string Describe(std::span<const Report> reports) {
  std::string text;
  for (const Report& report : reports) {
    text += std::string(Name(report.kind)) + ": " + report.kernel + ", block (";
    for (int i = 0; i < 3; ++i) text += (i == 0 ? "" : ", ") + std::to_string(report.block[i]);
    text += ")";
    for (size_t i = 0; i < report.threads.size(); ++i) {
      text += (i == 0 ? ", " : " and ") + ThreadName(report.threads[i]) + " at " + report.places[i];
    }
    text += ": " + report.detail;
    if (report.times > 1) text += " (" + std::to_string(report.times) + " times)";
    text += "\n";
  }
  return text;
}

}  // namespace structattn::simt

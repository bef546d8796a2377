// See mask_picture.h.
#include "client/cli/mask_picture.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace structattn::client {
namespace {

// They are distinct in light and dark terminals; group g takes entry g modulo their number.
struct Colour {
  int terminal;     // xterm-256 index.
  const char* svg;  // RGB.
};
constexpr std::array<Colour, 8> kColours = {{{245, "#8a8a8a"},
                                             {160, "#d7263d"},
                                             {33, "#1b7fdc"},
                                             {34, "#2a9d3a"},
                                             {172, "#d98e04"},
                                             {133, "#8e44ad"},
                                             {37, "#0f9b9b"},
                                             {168, "#d9579b"}}};
constexpr char kGroupLetters[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-";
constexpr int kSvgSide = 480;

const Colour& ColourOf(int group) { return kColours[group % kColours.size()]; }

bool Sees(const v1::InspectResponse& response, int query, int key) {
  return key <= query &&
         GroupSees(response, response.tokens(query).group(), response.tokens(key).group());
}

std::string Foreground(int group) {
  return "\x1b[38;5;" + std::to_string(ColourOf(group).terminal) + "m";
}

// Token bytes with control characters made visible; the terminal deals with incomplete characters.
std::string Printable(const std::string& bytes) {
  std::string text;
  for (const char c : bytes) {
    if (c == '\n') {
      text += "\\n\n";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      text += '.';
    } else {
      text += c;
    }
  }
  return text;
}

std::string TokenText(const v1::InspectResponse& response, bool colour) {
  std::string text;
  for (const TokenRun& run : TokenRuns(response)) {
    text += colour ? Foreground(run.group) : "[" + std::to_string(run.group) + "|";
    for (int t = run.begin; t < run.end; ++t) text += Printable(response.tokens(t).bytes());
    text += colour ? "\x1b[0m" : "]";
  }
  return text + "\n";
}

// The mask sampled on a grid: cell (row, column) shows the pair at its centre; -1 is hidden, else
// the key's group.
class Grid {
 public:
  Grid(const v1::InspectResponse& response, int side) : response_(response), side_(side) {}

  int side() const { return side_; }
  int At(int row, int column) const {
    const int query = Centre(row);
    const int key = Centre(column);
    return Sees(response_, query, key) ? response_.tokens(key).group() : -1;
  }

 private:
  int Centre(int cell) const {
    return static_cast<int>((2 * int64_t{cell} + 1) * response_.tokens_size() / (2 * side_));
  }

  const v1::InspectResponse& response_;
  const int side_;
};

// Two rows in one line: the upper half block in the foreground's, the lower in the background's
// colour.
std::string ColourCell(int upper, int lower) {
  if (upper < 0 && lower < 0) return " ";
  if (upper >= 0 && lower < 0) return Foreground(upper) + "\u2580\x1b[0m";
  if (upper < 0) return Foreground(lower) + "\u2584\x1b[0m";
  return Foreground(upper) + "\x1b[48;5;" + std::to_string(ColourOf(lower).terminal) +
         "m\u2580\x1b[0m";
}

std::string MaskText(const Grid& grid, bool colour) {
  std::string text;
  for (int row = 0; row < grid.side(); row += colour ? 2 : 1) {
    for (int column = 0; column < grid.side(); ++column) {
      const int upper = grid.At(row, column);
      if (colour) {
        const int lower = row + 1 < grid.side() ? grid.At(row + 1, column) : -1;
        text += ColourCell(upper, lower);
      } else {
        text += upper < 0 ? '.' : kGroupLetters[upper % (sizeof(kGroupLetters) - 1)];
      }
    }
    text += '\n';
  }
  return text;
}

std::string SvgPolygon(const std::string& points, int group) {
  return "<polygon points=\"" + points + "\" fill=\"" + ColourOf(group).svg + "\"/>\n";
}

std::string SvgPoint(double x, double y) {
  std::array<char, 48> buffer;
  std::snprintf(buffer.data(), buffer.size(), "%.2f,%.2f ", x, y);
  return buffer.data();
}

}  // namespace

std::vector<TokenRun> TokenRuns(const v1::InspectResponse& response) {
  std::vector<TokenRun> runs;
  for (int t = 0; t < response.tokens_size(); ++t) {
    const int group = response.tokens(t).group();
    if (runs.empty() || runs.back().group != group) runs.push_back({t, t, group});
    runs.back().end = t + 1;
  }
  return runs;
}

bool GroupSees(const v1::InspectResponse& response, int query_group, int key_group) {
  if (query_group >= response.visible_size()) return false;
  const auto& groups = response.visible(query_group).groups();
  return std::find(groups.begin(), groups.end(), key_group) != groups.end();
}

std::string TerminalPicture(const v1::InspectResponse& response, int columns, bool colour) {
  const Grid grid(response, std::min(columns, response.tokens_size()));
  return TokenText(response, colour) + "\n" + MaskText(grid, colour);
}

std::string SvgPicture(const v1::InspectResponse& response) {
  const double scale = static_cast<double>(kSvgSide) / std::max(1, response.tokens_size());
  const std::string side = std::to_string(kSvgSide);
  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + side + "\" height=\"" +
                    side + "\" viewBox=\"0 0 " + side + " " + side + "\">\n" + "<rect width=\"" +
                    side + "\" height=\"" + side + "\" fill=\"#f4f4f4\"/>\n";
  const std::vector<TokenRun> runs = TokenRuns(response);
  for (const TokenRun& query : runs) {
    const double top = query.begin * scale;
    const double bottom = query.end * scale;
    for (const TokenRun& key : runs) {
      if (key.begin > query.begin || !GroupSees(response, query.group, key.group)) continue;
      const double left = key.begin * scale;
      const double right = key.end * scale;
      // On the diagonal the causal bound leaves the lower triangle.
      const std::string upper_right = key.begin == query.begin ? "" : SvgPoint(right, top);
      svg += SvgPolygon(
          SvgPoint(left, top) + upper_right + SvgPoint(right, bottom) + SvgPoint(left, bottom),
          key.group);
    }
  }
  return svg + "</svg>\n";
}

}  // namespace structattn::client

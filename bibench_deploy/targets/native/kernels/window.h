// A sliding window over a map, in numbers that are checked once: no later sum of them overflows.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace bibench {

// A model or an input that no operator can be run on. The text is what the user reads.
class InvalidModel : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Larger maps, kernels and tensors than these are refused before memory is asked for.
constexpr int64_t kMostSize = 1 << 20;
constexpr int64_t kMostElements = int64_t{1} << 31;

inline int64_t checked(const char* what, int64_t value, int64_t least, int64_t most = kMostSize) {
  if (value < least || value > most) {
    throw InvalidModel(std::string(what) + " is " + std::to_string(value) + "; it must be from " +
                       std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

// a · b · …, where each factor is at most kMostElements; refused where it exceeds that.
inline int64_t checked_product(const char* what, std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (const int64_t factor : factors) product = checked(what, product * factor, 0, kMostElements);
  return product;
}

struct Axis {
  int64_t kernel = 1, stride = 1, dilation = 1, pad_before = 0, pad_after = 0;

  void check() const {
    checked("kernel size", kernel, 1);
    checked("stride", stride, 1);
    checked("dilation", dilation, 1);
    checked("padding", pad_before, 0);
    checked("padding", pad_after, 0);
  }
  int64_t reach() const { return (kernel - 1) * dilation + 1; }
  int64_t padded(int64_t size) const { return size + pad_before + pad_after; }
  int64_t output(int64_t size) const {
    if (padded(size) < reach()) {
      throw InvalidModel("the kernel reaches over " + std::to_string(reach()) +
                         " positions, but the padded map has " + std::to_string(padded(size)));
    }
    return (padded(size) - reach()) / stride + 1;
  }
};

struct Window {
  Axis vertical, horizontal;

  void check() const {
    vertical.check();
    horizontal.check();
  }
};

}  // namespace bibench

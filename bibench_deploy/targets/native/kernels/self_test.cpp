#include "self_test.h"

#include <cstring>
#include <vector>

#include "binary_conv.h"

namespace bibench {
namespace {

// Numbers without a pattern that a wrong index could repeat. Source: Knuth's MMIX generator.
class Random {
 public:
  uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  bool bit() { return (next() >> 7 & 1) != 0; }

 private:
  uint64_t state_ = 1;
};

constexpr int64_t kOutputs = 35, kInputs = 37, kSize = 5, kKernel = 3;
constexpr int64_t kInputBytes = (kInputs + 7) / 8, kOutputBytes = (kOutputs + 7) / 8;

void set_bit(std::vector<uint8_t>& bytes, int64_t row, int64_t row_bytes, int64_t bit) {
  bytes[row * row_bytes + bit / 8] |= static_cast<uint8_t>(1 << bit % 8);
}

}  // namespace

const char* failing_instruction_set() {
  Random random;
  std::vector<uint8_t> input(kSize * kSize * kInputBytes), weights(kOutputs * 9 * kInputBytes);
  std::vector<int> signs(kSize * kSize * kInputs), kernels(kOutputs * 9 * kInputs);
  for (size_t index = 0; index < signs.size(); ++index) {
    signs[index] = random.bit() ? -1 : 1;
    if (signs[index] < 0) set_bit(input, index / kInputs, kInputBytes, index % kInputs);
  }
  for (size_t index = 0; index < kernels.size(); ++index) {
    kernels[index] = random.bit() ? -1 : 1;
    if (kernels[index] < 0) set_bit(weights, index / kInputs, kInputBytes, index % kInputs);
  }
  std::vector<float> expected(kSize * kSize * kOutputs);
  std::vector<uint8_t> expected_signs(kSize * kSize * kOutputBytes);
  for (int64_t place = 0; place < kSize * kSize; ++place) {
    for (int64_t output = 0; output < kOutputs; ++output) {
      int dot = 0;
      for (int64_t tap = 0; tap < kKernel * kKernel; ++tap) {
        const int64_t row = place / kSize + tap / kKernel - 1, column = place % kSize + tap % kKernel - 1;
        if (row < 0 || row >= kSize || column < 0 || column >= kSize) continue;
        for (int64_t channel = 0; channel < kInputs; ++channel) {
          dot += signs[(row * kSize + column) * kInputs + channel] *
                 kernels[(output * 9 + tap) * kInputs + channel];
        }
      }
      expected[place * kOutputs + output] = static_cast<float>(dot);
      if (dot < 0) set_bit(expected_signs, place, kOutputBytes, output);
    }
  }
  LayerShape shape;
  shape.outputs = kOutputs;
  shape.group_inputs = kInputs;
  shape.window.vertical = shape.window.horizontal = {kKernel, 1, 1, 1, 1};
  const std::vector<float> ones(kOutputs, 1), zeros(kOutputs, 0);
  Epilogue epilogue;
  epilogue.scale = ones.data();
  epilogue.bias = zeros.data();
  Sequential sequential;
  for (auto set = available_instruction_sets(); *set != nullptr; ++set) {
    BinaryConv conv(shape, weights.data(), epilogue, **set);
    std::vector<float> output(expected.size());
    std::vector<uint8_t> packed(expected_signs.size());
    conv.run(1, kSize, kSize, input.data(), nullptr, output.data(), packed.data(), sequential);
    if (output != expected || packed != expected_signs) return (*set)->name;
  }
  return nullptr;
}

}  // namespace bibench

// Compares every kernel of this processor with plain loops, on random shapes.
//
// Prints one line; exits with 1 at the first difference, and says where it is. Run as
// `kernel_suite COUNT SEED`, under a sanitizer or an emulator too.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "binarize.h"
#include "binary_conv.h"
#include "float_stem.h"
#include "self_test.h"

using namespace bibench;

namespace {

std::mt19937_64 generator;

int64_t between(int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(generator);
}
bool chance(int percent) { return between(1, 100) <= percent; }
// Small multiples of a power of two: sums of them are exact in any order.
float number() { return static_cast<float>(between(-64, 64)) / 16; }

std::vector<float> numbers(size_t count) {
  std::vector<float> made(count);
  for (float& one : made) one = number();
  return made;
}

std::vector<uint8_t> pack(const std::vector<float>& values, int64_t channels) {
  const int64_t rows = static_cast<int64_t>(values.size()) / channels, bytes = (channels + 7) / 8;
  std::vector<uint8_t> packed(rows * bytes);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t channel = 0; channel < channels; ++channel) {
      if (values[row * channels + channel] < 0) packed[row * bytes + channel / 8] |= 1 << channel % 8;
    }
  }
  return packed;
}

class Threads : public Parallel {
 protected:
  void for_each(size_t count, void (*task)(void*, size_t), void* opaque) override {
    std::vector<std::thread> threads;
    for (size_t index = 0; index < count; ++index) threads.emplace_back(task, opaque, index);
    for (std::thread& thread : threads) thread.join();
  }
};

Axis random_axis(int64_t size) {
  Axis axis;
  axis.kernel = chance(30) ? 1 : between(1, 5);
  axis.stride = chance(60) ? 1 : between(1, 3);
  axis.dilation = chance(70) ? 1 : between(1, 3);
  axis.pad_before = chance(30) ? 0 : between(0, 4);
  axis.pad_after = chance(30) ? 0 : between(0, 4);
  while (axis.padded(size) < axis.reach()) ++axis.pad_after;
  return axis;
}

[[noreturn]] void fail(const char* set, const std::string& what) {
  std::printf("%s differs: %s\n", set, what.c_str());
  std::exit(1);
}

std::string describe(const LayerShape& shape, int64_t batch, int64_t height, int64_t width) {
  char text[400];
  const Axis &v = shape.window.vertical, &h = shape.window.horizontal;
  std::snprintf(text, sizeof text,
                "N %ld H %ld W %ld I %ld O %ld groups %ld k %ldx%ld s %ldx%ld d %ldx%ld p %ld,%ld,%ld,%ld "
                "pad value %d",
                long(batch), long(height), long(width), long(shape.inputs()), long(shape.outputs),
                long(shape.groups), long(v.kernel), long(h.kernel), long(v.stride), long(h.stride),
                long(v.dilation), long(h.dilation), long(v.pad_before), long(h.pad_before),
                long(v.pad_after), long(h.pad_after), shape.pad_value);
  return text;
}

void compare_binary_conv() {
  LayerShape shape;
  const int64_t batch = between(1, 3), height = between(1, 12), width = between(1, 20);
  shape.groups = chance(70) ? 1 : between(2, 4);
  shape.group_inputs = chance(20) ? 64 : between(1, chance(10) ? 400 : 70);
  shape.outputs = shape.groups * (chance(20) ? 64 : between(1, 80));
  shape.window = {random_axis(height), random_axis(width)};
  shape.pad_value = static_cast<int>(between(-1, 1));
  const int64_t rows = shape.window.vertical.output(height);
  const int64_t columns = shape.window.horizontal.output(width);
  const int64_t channels = shape.outputs, inputs = shape.inputs();

  std::vector<float> signs(batch * height * width * inputs);
  std::vector<float> weights(channels * shape.taps() * shape.group_inputs);
  for (float& sign : signs) sign = chance(50) ? -1.0f : 1.0f;
  for (float& weight : weights) weight = chance(50) ? -1.0f : 1.0f;
  std::vector<float> scale(channels);
  for (float& one : scale) one = std::ldexp(chance(50) ? 1.0f : -1.0f, static_cast<int>(between(-3, 2)));
  const std::vector<float> bias = numbers(channels), slope = numbers(channels);
  const std::vector<float> shift = numbers(channels), offset = numbers(channels);
  const std::vector<float> residual = numbers(batch * rows * columns * channels);
  Epilogue epilogue;
  epilogue.scale = scale.data();
  epilogue.bias = bias.data();
  if (chance(30)) epilogue.slope = slope.data();
  if (chance(30)) epilogue.shift = shift.data();
  if (chance(30)) epilogue.sign_offset = offset.data();
  epilogue.has_clip = chance(40);
  epilogue.low = -1;
  epilogue.high = 1.5f;
  const float* added = chance(40) ? residual.data() : nullptr;

  std::vector<float> expected(residual.size()), before_sign(residual.size());
  for (int64_t place = 0; place < batch * rows * columns; ++place) {
    const int64_t image = place / (rows * columns), row = place / columns % rows, column = place % columns;
    for (int64_t output = 0; output < channels; ++output) {
      const int64_t group = output / shape.group_outputs();
      int dot = 0;
      for (int64_t tap = 0; tap < shape.taps(); ++tap) {
        const Axis &v = shape.window.vertical, &h = shape.window.horizontal;
        const int64_t y = row * v.stride + tap / h.kernel * v.dilation - v.pad_before;
        const int64_t x = column * h.stride + tap % h.kernel * h.dilation - h.pad_before;
        const bool is_inside = y >= 0 && y < height && x >= 0 && x < width;
        for (int64_t channel = 0; channel < shape.group_inputs; ++channel) {
          const float sign =
              is_inside ? signs[((image * height + y) * width + x) * inputs + group * shape.group_inputs + channel]
                        : static_cast<float>(shape.pad_value);
          dot += static_cast<int>(sign * weights[(output * shape.taps() + tap) * shape.group_inputs + channel]);
        }
      }
      const int64_t index = place * channels + output;
      float value = static_cast<float>(dot) * scale[output] + bias[output];
      if (added) value += added[index];
      if (epilogue.slope && value < 0) value *= slope[output];
      if (epilogue.shift) value += shift[output];
      if (epilogue.has_clip) value = std::min(std::max(value, epilogue.low), epilogue.high);
      expected[index] = value;
      before_sign[index] = epilogue.sign_offset ? value + offset[output] : value;
    }
  }
  const std::vector<uint8_t> expected_signs = pack(before_sign, channels);
  const std::vector<uint8_t> packed_input = pack(signs, inputs), packed_weights = pack(weights, shape.group_inputs);
  const bool wants_numbers = chance(80), wants_signs = chance(80);
  Sequential sequential;
  Threads threads;
  Parallel& parallel = chance(10) ? static_cast<Parallel&>(threads) : sequential;
  for (auto set = available_instruction_sets(); *set != nullptr; ++set) {
    BinaryConv conv(shape, packed_weights.data(), epilogue, **set);
    std::vector<float> output(expected.size());
    std::vector<uint8_t> packed(expected_signs.size());
    for (int call = 0; call < 2; ++call) {  // the second one finds memory that was used
      std::fill(output.begin(), output.end(), -7.0f);
      std::fill(packed.begin(), packed.end(), uint8_t{85});
      conv.run(batch, height, width, packed_input.data(), added, wants_numbers ? output.data() : nullptr,
               wants_signs ? packed.data() : nullptr, parallel);
      if (wants_numbers && output != expected) fail((*set)->name, "numbers, " + describe(shape, batch, height, width));
      if (wants_signs && packed != expected_signs) fail((*set)->name, "signs, " + describe(shape, batch, height, width));
    }
  }
}

void compare_binarize() {
  const int64_t batch = between(1, 3), channels = between(1, 150), positions = between(1, 300);
  const std::vector<float> input = numbers(batch * channels * positions);
  std::vector<float> turned(input.size());
  for (size_t index = 0; index < input.size(); ++index) {
    const int64_t image = index / (channels * positions), channel = index / positions % channels;
    turned[(image * positions + index % positions) * channels + channel] = input[index];
  }
  const bool is_last = chance(50);
  const std::vector<uint8_t> expected = pack(turned, channels);
  Sequential sequential;
  for (auto set = available_instruction_sets(); *set != nullptr; ++set) {
    std::vector<uint8_t> signs(expected.size());
    std::vector<float> moved(input.size());
    binarize(**set, is_last, batch, channels, positions, is_last ? turned.data() : input.data(), signs.data(),
             moved.data(), sequential);
    if (signs != expected || moved != turned) fail((*set)->name, "Binarize of " + std::to_string(channels) + " channels");
  }
}

void compare_stem() {
  StemShape shape;
  const int64_t batch = between(1, 2), height = between(1, 20), width = between(1, 20);
  shape.inputs = between(1, 5);
  shape.outputs = between(1, 70);
  shape.convolution = {random_axis(height), random_axis(width)};
  const int64_t rows = shape.convolution.vertical.output(height), columns = shape.convolution.horizontal.output(width);
  if (chance(60)) {
    for (auto [axis, size] : {std::pair(&shape.pooling.vertical, rows), std::pair(&shape.pooling.horizontal, columns)}) {
      axis->kernel = std::min<int64_t>(size, between(1, 3));
      axis->stride = between(1, 3);
      axis->pad_before = between(0, axis->kernel - 1);
      axis->pad_after = between(0, axis->kernel - 1);
    }
  }
  shape.has_clip = chance(50);
  shape.low = -1;
  shape.high = 2;
  const int64_t taps = shape.convolution.vertical.kernel * shape.convolution.horizontal.kernel;
  const std::vector<float> input = numbers(batch * shape.inputs * height * width);
  const std::vector<float> weights = numbers(shape.outputs * shape.inputs * taps), bias = numbers(shape.outputs);
  const int64_t pooled_rows = shape.pooling.vertical.output(rows);
  const int64_t pooled_columns = shape.pooling.horizontal.output(columns);
  std::vector<float> expected(batch * pooled_rows * pooled_columns * shape.outputs);
  for (size_t index = 0; index < expected.size(); ++index) {
    const int64_t output = index % shape.outputs, place = index / shape.outputs;
    const int64_t image = place / (pooled_rows * pooled_columns);
    float largest = -INFINITY;
    for (int64_t down = 0; down < shape.pooling.vertical.kernel; ++down) {
      for (int64_t across = 0; across < shape.pooling.horizontal.kernel; ++across) {
        const int64_t row = place / pooled_columns % pooled_rows * shape.pooling.vertical.stride + down - shape.pooling.vertical.pad_before;
        const int64_t column = place % pooled_columns * shape.pooling.horizontal.stride + across - shape.pooling.horizontal.pad_before;
        if (row < 0 || row >= rows || column < 0 || column >= columns) continue;
        double sum = bias[output];
        const Axis &v = shape.convolution.vertical, &h = shape.convolution.horizontal;
        for (int64_t tap = 0; tap < taps; ++tap) {
          const int64_t y = row * v.stride + tap / h.kernel * v.dilation - v.pad_before;
          const int64_t x = column * h.stride + tap % h.kernel * h.dilation - h.pad_before;
          if (y < 0 || y >= height || x < 0 || x >= width) continue;
          for (int64_t channel = 0; channel < shape.inputs; ++channel) {
            sum += double(input[((image * shape.inputs + channel) * height + y) * width + x]) *
                   weights[(output * shape.inputs + channel) * taps + tap];
          }
        }
        largest = std::max(largest, static_cast<float>(sum));
      }
    }
    expected[index] = shape.has_clip ? std::min(std::max(largest, shape.low), shape.high) : largest;
  }
  const std::vector<float> offset = numbers(shape.outputs);
  const bool has_offset = chance(40);
  std::vector<float> before_sign = expected;
  for (size_t index = 0; has_offset && index < expected.size(); ++index) before_sign[index] += offset[index % shape.outputs];
  const std::vector<uint8_t> expected_signs = pack(before_sign, shape.outputs);
  Sequential sequential;
  Threads threads;
  Parallel& parallel = chance(10) ? static_cast<Parallel&>(threads) : sequential;
  for (auto set = available_instruction_sets(); *set != nullptr; ++set) {
    FloatStem stem(shape, weights.data(), bias.data(), has_offset ? offset.data() : nullptr, **set);
    std::vector<float> output(expected.size());
    std::vector<uint8_t> signs(expected_signs.size());
    stem.run(batch, height, width, input.data(), output.data(), signs.data(), parallel);
    if (output != expected || signs != expected_signs) {
      fail((*set)->name, "FloatStem of " + std::to_string(shape.outputs) + " channels");
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  const int shapes = count > 1 ? std::atoi(arguments[1]) : 200;
  generator.seed(count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 0);
  if (const char* failing = failing_instruction_set()) fail(failing, "the self-test");
  for (int index = 0; index < shapes; ++index) {
    compare_binary_conv();
    compare_binarize();
    compare_stem();
  }
  std::string names;
  for (auto set = available_instruction_sets(); *set != nullptr; ++set) names += std::string(" ") + (*set)->name;
  std::printf("%d shapes equal with%s\n", shapes, names.c_str());
}

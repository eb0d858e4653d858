#include "float_stem.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace bibench {
namespace {

constexpr int64_t kTasks = 8;
constexpr int64_t kLeastTask = 100000;  // multiplications

int64_t round_up(int64_t number, int64_t multiple) {
  return (number + multiple - 1) / multiple * multiple;
}

}  // namespace

void StemShape::check() const {
  convolution.check();
  pooling.check();
  checked("output channels", outputs, 1);
  checked("input channels", inputs, 1);
  for (const Axis& axis : {pooling.vertical, pooling.horizontal}) {
    // Then every window of the pooling holds a number.
    if (axis.dilation != 1 || std::max(axis.pad_before, axis.pad_after) >= axis.kernel) {
      throw InvalidModel("the pooling is dilated, or padded by as much as its kernel");
    }
  }
  const int64_t taps = checked_product(
      "weights", {convolution.vertical.kernel, convolution.horizontal.kernel, inputs});
  checked_product("weights", {taps, outputs});
}

FloatStem::FloatStem(const StemShape& shape, const float* weights, const float* bias,
                     const float* sign_offset, const InstructionSet& instruction_set)
    : shape_((shape.check(), shape)), set_(instruction_set) {
  if (sign_offset != nullptr) sign_offset_.assign(sign_offset, sign_offset + shape_.outputs);
  const int64_t lanes = set_.float_lanes;
  blocks_ = (shape_.outputs + lanes - 1) / lanes;
  lanes_ = blocks_ * lanes;
  const int64_t taps = shape_.convolution.vertical.kernel * shape_.convolution.horizontal.kernel;
  weights_ = Buffer<float>(blocks_ * taps * shape_.inputs * lanes);
  bias_ = Buffer<float>(lanes_);
  std::fill_n(weights_.data(), weights_.size(), 0.0f);
  std::fill_n(bias_.data(), bias_.size(), 0.0f);
  for (int64_t channel = 0; channel < shape_.outputs; ++channel) {
    bias_[channel] = bias[channel];
    for (int64_t input = 0; input < shape_.inputs; ++input) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t place = (channel / lanes * shape_.inputs + input) * taps + tap;
        weights_[place * lanes + channel % lanes] =
            weights[(channel * shape_.inputs + input) * taps + tap];
      }
    }
  }
}

void FloatStem::run(int64_t batch, int64_t height, int64_t width, const float* input, float* output,
                    uint8_t* signs, Parallel& parallel) {
  checked("batch", batch, 0);
  checked("height", height, 1);
  checked("width", width, 1);
  const Axis &vertical = shape_.convolution.vertical, &horizontal = shape_.convolution.horizontal;
  const Axis &pool_down = shape_.pooling.vertical, &pool_across = shape_.pooling.horizontal;
  const int64_t rows = vertical.output(height), columns = horizontal.output(width);
  const int64_t pooled_rows = pool_down.output(rows), pooled_columns = pool_across.output(columns);
  checked_product("the output", {batch, pooled_rows, pooled_columns, shape_.outputs});
  const int64_t padded_width = horizontal.padded(width), padded_height = vertical.padded(height);
  const int64_t plane_floats = checked_product("a padded plane", {padded_width, padded_height});
  const int64_t map_floats = checked_product("the padded input", {plane_floats, shape_.inputs});
  const int64_t convolved_floats = checked_product("a convolved row", {columns, lanes_});
  const int64_t pooled_floats = checked_product("a pooled row", {pooled_columns, lanes_});

  std::vector<ptrdiff_t> tap_offset;
  for (int64_t channel = 0; channel < shape_.inputs; ++channel) {
    for (int64_t down = 0; down < vertical.kernel; ++down) {
      for (int64_t across = 0; across < horizontal.kernel; ++across) {
        tap_offset.push_back(channel * plane_floats + down * vertical.dilation * padded_width +
                             across * horizontal.dilation);
      }
    }
  }

  // In floating point, which no product of these overflows.
  const double work = double(rows) * columns * lanes_ * tap_offset.size();
  const int64_t wanted = std::min<double>(kTasks, work / kLeastTask);
  const int64_t tasks = std::max<int64_t>(1, std::min(wanted, pooled_rows));
  // Each task keeps a convolved row, those of a pooling window, a pooled row, and shifted numbers.
  const int64_t task_floats =
      convolved_floats + pooled_floats + lanes_ +
      checked_product("rows of a pooling window", {pool_down.kernel, pooled_floats});
  const int64_t all_floats = round_up(map_floats, 16) + tasks * round_up(task_floats, 16);
  Workspace::Lease workspace(workspace_, all_floats * sizeof(float));
  float* padded = reinterpret_cast<float*>(workspace.data());
  float* task_memory = padded + round_up(map_floats, 16);

  for (int64_t image = 0; image < batch; ++image) {
    std::memset(padded, 0, map_floats * sizeof(float));
    const float* source = input + image * shape_.inputs * height * width;
    for (int64_t channel = 0; channel < shape_.inputs; ++channel) {
      float* target = padded + channel * plane_floats + vertical.pad_before * padded_width +
                      horizontal.pad_before;
      for (int64_t row = 0; row < height; ++row, source += width, target += padded_width) {
        std::memcpy(target, source, width * sizeof(float));
      }
    }

    const auto compute = [&](size_t task) {
      float* convolved = task_memory + task * round_up(task_floats, 16);
      float* window_rows = convolved + convolved_floats;
      float* pooled = window_rows + pool_down.kernel * pooled_floats;
      float* shifted = pooled + pooled_floats;
      // A row of the convolution, pooled across.
      const auto make_row = [&](int64_t row) {
        FloatRowJob job{};
        job.input = padded + row * vertical.stride * padded_width;
        job.input_step = horizontal.stride;
        job.tap_offset = tap_offset.data();
        job.taps = static_cast<int>(tap_offset.size());
        job.weights = weights_.data();
        job.blocks = static_cast<int>(blocks_);
        job.bias = bias_.data();
        job.output = convolved;
        job.positions = static_cast<int>(columns);
        set_.convolve_float_row(job);
        PoolRowJob pool{};
        pool.input = convolved;
        pool.columns = static_cast<int>(columns);
        pool.lanes = static_cast<int>(lanes_);
        pool.kernel = static_cast<int>(pool_across.kernel);
        pool.stride = static_cast<int>(pool_across.stride);
        pool.pad_before = static_cast<int>(pool_across.pad_before);
        pool.output = window_rows + row % pool_down.kernel * pooled_floats;
        pool.positions = static_cast<int>(pooled_columns);
        set_.pool_float_row(pool);
      };
      const int64_t first = pooled_rows * task / tasks, last = pooled_rows * (task + 1) / tasks;
      int64_t next = 0;
      for (int64_t pooled_row = first; pooled_row < last; ++pooled_row) {
        const int64_t start = pooled_row * pool_down.stride - pool_down.pad_before;
        const int64_t begin = std::max<int64_t>(0, start);
        const int64_t end = std::min(rows, start + pool_down.kernel);
        for (next = std::max(next, begin); next < end; ++next) make_row(next);
        const auto row_of = [&](int64_t row) {
          return window_rows + row % pool_down.kernel * pooled_floats;
        };
        std::memcpy(pooled, row_of(begin), pooled_floats * sizeof(float));
        for (int64_t row = begin + 1; row < end; ++row) {
          set_.take_larger(row_of(row), pooled_floats, pooled);
        }
        for (int64_t index = 0; shape_.has_clip && index < pooled_floats; ++index) {
          const float raised = pooled[index] < shape_.low ? shape_.low : pooled[index];
          pooled[index] = raised > shape_.high ? shape_.high : raised;
        }
        for (int64_t column = 0; column < pooled_columns; ++column) {
          const float* numbers = pooled + column * lanes_;
          const int64_t place = (image * pooled_rows + pooled_row) * pooled_columns + column;
          if (output != nullptr) {
            std::memcpy(output + place * shape_.outputs, numbers, shape_.outputs * sizeof(float));
          }
          if (signs == nullptr) continue;
          for (size_t channel = 0; channel < sign_offset_.size(); ++channel) {
            shifted[channel] = numbers[channel] + sign_offset_[channel];
          }
          set_.pack_signs(sign_offset_.empty() ? numbers : shifted, shape_.outputs,
                          signs + place * ((shape_.outputs + 7) / 8));
        }
      }
    };
    parallel.run(tasks, compute);
  }
}

}  // namespace bibench

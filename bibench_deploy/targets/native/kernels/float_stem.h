// The float layers in front of the first binary one, in one pass: convolution, clip, max pooling,
// signs. A row of the convolution is pooled while it is in the cache, and its map is never written.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"
#include "instruction_set.h"
#include "parallel.h"
#include "window.h"

namespace bibench {

struct StemShape {
  int64_t outputs = 0, inputs = 0;  // O, I
  Window convolution;               // padded with zeros
  Window pooling;                   // padded with nothing; a kernel of 1 × 1 pools nothing
  bool has_clip = false;            // behind the pooling, which is the same as before it
  float low = 0, high = 0;

  void check() const;
};

class FloatStem {
 public:
  // `weights`: [O, I, kH, kW]; `bias`: [O]; `sign_offset`: [O] or null, what is added to a number
  // before its sign is taken. Throws InvalidModel where the shape cannot be.
  FloatStem(const StemShape& shape, const float* weights, const float* bias,
            const float* sign_offset, const InstructionSet& instruction_set);

  // `input`: [N, I, H, W]; `output`: [N, H', W', O] or null; `signs`: [N, H', W', ⌈O / 8⌉] or null.
  void run(int64_t batch, int64_t height, int64_t width, const float* input, float* output,
           uint8_t* signs, Parallel& parallel);

  const StemShape& shape() const { return shape_; }
  int64_t output_height(int64_t height) const {
    return shape_.pooling.vertical.output(shape_.convolution.vertical.output(height));
  }
  int64_t output_width(int64_t width) const {
    return shape_.pooling.horizontal.output(shape_.convolution.horizontal.output(width));
  }

 private:
  StemShape shape_;
  const InstructionSet& set_;
  int64_t blocks_;
  int64_t lanes_;          // output channels, filled up to whole blocks
  Buffer<float> weights_;  // blocks [units, lanes of a block]
  Buffer<float> bias_;     // [lanes]
  std::vector<float> sign_offset_;
  Workspace workspace_;
};

}  // namespace bibench

// A binary convolution: bits in, float numbers and bits out.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "buffer.h"
#include "instruction_set.h"
#include "parallel.h"
#include "window.h"

namespace bibench {

// What a layer is, apart from the size of its input. Tensors are NHWC; bits are packed along the
// channels, the lowest bit first, ⌈C / 8⌉ bytes for each position; 1 is −1.
struct LayerShape {
  int64_t outputs = 0;        // O
  int64_t group_inputs = 0;   // I / group
  int64_t groups = 1;
  Window window;
  int pad_value = 0;          // what padding holds: −1, 0 or +1

  int64_t group_outputs() const { return outputs / groups; }
  int64_t inputs() const { return group_inputs * groups; }
  int64_t taps() const { return window.vertical.kernel * window.horizontal.kernel; }
  void check() const;
};

// What is done with the dot products, in the order of RowJob; null pointers leave a step out.
struct Epilogue {
  const float* scale = nullptr;  // [O], like all that are not said to be tensors
  const float* bias = nullptr;
  const float* slope = nullptr;
  const float* shift = nullptr;
  const float* sign_offset = nullptr;
  bool has_clip = false;
  float low = 0, high = 0;
};

class BinaryConv {
 public:
  // Lays the weights out for an instruction set.
  //
  // `weights`: [O, kH, kW, ⌈I / group / 8⌉] bytes. Throws InvalidModel where the shape cannot be.
  BinaryConv(const LayerShape& shape, const uint8_t* weights, const Epilogue& epilogue,
             const InstructionSet& instruction_set);

  // Convolves `batch` maps of H × W positions.
  //
  // `residual` and `output` are [N, H', W', O] and may be null; `signs`, [N, H', W', ⌈O / 8⌉],
  // likewise. May be called by several threads at once.
  void run(int64_t batch, int64_t height, int64_t width, const uint8_t* input,
           const float* residual, float* output, uint8_t* signs, Parallel& parallel);

  const LayerShape& shape() const { return shape_; }

 private:
  // The largest value of each dot product, where no bit differs. Inside the map that is the number
  // of taps times channels. Where taps lie in zero padding, these add nothing, though the padded
  // bits are zeros and count as differing where the weight is 1: taps times channels inside, plus
  // twice the ones of the weights outside. Rows and columns with the same taps outside are one
  // class.
  struct Border {
    std::vector<uint16_t> row_class, column_class;
    size_t column_classes = 0;
    Buffer<int32_t> largest_dot;  // [row classes, column classes, lanes]
  };

  std::shared_ptr<const Border> border_for(int64_t height, int64_t width);
  std::shared_ptr<const Border> make_border(int64_t height, int64_t width) const;
  void fill_input(int64_t height, int64_t width, const uint8_t* input, int64_t group,
                  uint8_t* padded) const;
  void pack_weights(const uint8_t* weights);

  LayerShape shape_;
  const InstructionSet& set_;
  int64_t position_units_, position_bytes_;  // of one position of a padded map
  int64_t group_blocks_;
  int64_t block_units_;
  size_t block_bytes_;
  size_t lanes_;                             // of all groups, each filled up to whole blocks
  Buffer<uint8_t> weights_;
  std::vector<int32_t> ones_;                // [taps, lanes]: ones of the weights
  Buffer<float> vectors_;                    // scale, bias … by lane
  Epilogue epilogue_;                        // points into `vectors_`
  Workspace workspace_;
  std::mutex border_mutex_;
  int64_t border_height_ = -1, border_width_ = -1;
  std::shared_ptr<const Border> border_;
};

}  // namespace bibench

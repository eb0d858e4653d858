#include "binary_conv.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

namespace bibench {
namespace {

int64_t divide_up(int64_t number, int64_t divisor) { return (number + divisor - 1) / divisor; }
int64_t round_up(int64_t number, int64_t multiple) { return divide_up(number, multiple) * multiple; }

// Work is divided into about so many tasks: enough for eight threads.
constexpr int64_t kTasks = 8;
// Numbers of the table of borders, times taps: what a usual network has is far below.
constexpr int64_t kMostBorder = int64_t{1} << 28;
// A task of less than so many vector operations costs more to hand over than to do.
constexpr int64_t kLeastTask = 20000;

// Copies `bits` bits from bit `first` of `source` to the front of `target`, which has whole bytes.
void copy_bits(const uint8_t* source, int64_t first, int64_t bits, uint8_t* target) {
  const int64_t bytes = divide_up(bits, 8);
  const int shift = static_cast<int>(first % 8);
  source += first / 8;
  if (shift == 0) {
    std::memcpy(target, source, bytes);
  } else {
    for (int64_t index = 0; index < bytes; ++index) {
      unsigned byte = source[index] >> shift;
      if (8 * index + 8 - shift < bits) byte |= unsigned{source[index + 1]} << (8 - shift);
      target[index] = static_cast<uint8_t>(byte);
    }
  }
  if (bits % 8) target[bytes - 1] &= static_cast<uint8_t>((1 << bits % 8) - 1);
}

// The taps of one output position that lie inside the map: from `first` to before `last`.
struct Inside {
  int64_t first, last;
  bool operator<(const Inside& other) const {
    return std::make_pair(first, last) < std::make_pair(other.first, other.last);
  }
};

Inside taps_inside(const Axis& axis, int64_t size, int64_t position) {
  const int64_t start = position * axis.stride - axis.pad_before;
  const int64_t first = start < 0 ? divide_up(-start, axis.dilation) : 0;
  const int64_t last = size > start ? divide_up(size - start, axis.dilation) : 0;
  const int64_t kept = std::min(first, axis.kernel);
  return {kept, std::max(kept, std::min(last, axis.kernel))};
}

// Numbers the different sets of taps along one axis, and gives each output position its number.
std::vector<Inside> classify(const Axis& axis, int64_t size, std::vector<uint16_t>& classes) {
  std::map<Inside, uint16_t> numbers;
  std::vector<Inside> found;
  classes.resize(axis.output(size));
  for (size_t position = 0; position < classes.size(); ++position) {
    const Inside inside = taps_inside(axis, size, position);
    const auto entry = numbers.emplace(inside, static_cast<uint16_t>(found.size()));
    if (entry.second) found.push_back(inside);
    checked("different borders", found.size(), 1, UINT16_MAX);
    classes[position] = entry.first->second;
  }
  return found;
}

}  // namespace

void LayerShape::check() const {
  window.check();
  checked("group", groups, 1);
  checked("output channels", outputs, 1);
  checked("input channels", group_inputs, 1);
  checked("pad_value", pad_value, -1, 1);
  if (outputs % groups != 0) throw InvalidModel("output channels are no multiple of the groups");
  checked_product("channels", {group_inputs, groups});
  // Dot products and twice their counts stay in 32 bits.
  checked("bits of one output", checked_product("weights", {taps(), group_inputs}), 1, 1 << 29);
  checked_product("weights", {taps(), group_inputs, outputs});
}

BinaryConv::BinaryConv(const LayerShape& shape, const uint8_t* weights, const Epilogue& epilogue,
                       const InstructionSet& instruction_set)
    : shape_((shape.check(), shape)),
      set_(shape.taps() * round_up(shape.group_inputs, 64) <= instruction_set.most_bits
               ? instruction_set
               : portable),
      epilogue_(epilogue) {
  position_units_ = divide_up(shape_.group_inputs, 8 * set_.unit_bytes);
  position_bytes_ = position_units_ * set_.unit_bytes * (set_.splits_nibbles ? 2 : 1);
  group_blocks_ = divide_up(shape_.group_outputs(), set_.lanes);
  block_units_ = shape_.taps() * position_units_;
  block_bytes_ = static_cast<size_t>(block_units_ * set_.lanes * set_.unit_bytes) *
                 (set_.splits_nibbles ? 2 : 1);
  lanes_ = shape_.groups * group_blocks_ * set_.lanes;
  pack_weights(weights);

  // Each vector is laid out by lane; what lies between the groups' channels is zero, so that these
  // lanes give 0.
  const float** vectors[] = {&epilogue_.scale, &epilogue_.bias, &epilogue_.slope, &epilogue_.shift,
                             &epilogue_.sign_offset};
  vectors_ = Buffer<float>(std::size(vectors) * lanes_);
  std::fill_n(vectors_.data(), vectors_.size(), 0.0f);
  float* place = vectors_.data();
  for (const float** vector : vectors) {
    if (*vector == nullptr) continue;
    for (int64_t channel = 0; channel < shape_.outputs; ++channel) {
      const int64_t group = channel / shape_.group_outputs(), own = channel % shape_.group_outputs();
      place[group * group_blocks_ * set_.lanes + own] = (*vector)[channel];
    }
    *vector = place;
    place += lanes_;
  }
}

void BinaryConv::pack_weights(const uint8_t* weights) {
  const int64_t tap_bytes = divide_up(shape_.group_inputs, 8);
  const int64_t unit_bytes = set_.unit_bytes, lanes = set_.lanes;
  const int64_t blocks = shape_.groups * group_blocks_;
  weights_ = Buffer<uint8_t>(blocks * block_bytes_);
  std::memset(weights_.data(), 0, weights_.size());
  ones_.assign(shape_.taps() * lanes_, 0);
  std::vector<uint8_t> tap(position_units_ * unit_bytes);
  for (int64_t channel = 0; channel < shape_.outputs; ++channel) {
    const int64_t group = channel / shape_.group_outputs(), own = channel % shape_.group_outputs();
    const int64_t block = group * group_blocks_ + own / lanes, lane = own % lanes;
    for (int64_t position = 0; position < shape_.taps(); ++position) {
      const uint8_t* source = weights + (channel * shape_.taps() + position) * tap_bytes;
      std::fill(tap.begin(), tap.end(), uint8_t{0});
      copy_bits(source, 0, shape_.group_inputs, tap.data());
      int32_t ones = 0;
      for (const uint8_t byte : tap) ones += __builtin_popcount(byte);
      ones_[position * lanes_ + block * lanes + lane] = ones;
      for (int64_t unit = 0; unit < position_units_; ++unit) {
        uint8_t* units = weights_.data() + block * block_bytes_;
        const int64_t index = position * position_units_ + unit;
        if (set_.splits_nibbles) {
          units[2 * index * lanes + lane] = tap[unit] & 15;
          units[(2 * index + 1) * lanes + lane] = tap[unit] >> 4;
        } else {
          std::memcpy(units + (index * lanes + lane) * unit_bytes, &tap[unit * unit_bytes],
                      unit_bytes);
        }
      }
    }
  }
}

std::shared_ptr<const BinaryConv::Border> BinaryConv::make_border(int64_t height,
                                                                  int64_t width) const {
  auto border = std::make_shared<Border>();
  const std::vector<Inside> rows = classify(shape_.window.vertical, height, border->row_class);
  const std::vector<Inside> columns = classify(shape_.window.horizontal, width, border->column_class);
  const bool is_zero = shape_.pad_value == 0;
  border->column_classes = columns.size();
  const int64_t numbers = checked_product(
      "the table of borders", {static_cast<int64_t>(rows.size() * columns.size()),
                               static_cast<int64_t>(lanes_)});
  checked("the table of borders times taps", numbers, 0, kMostBorder / shape_.taps());
  border->largest_dot = Buffer<int32_t>(numbers);
  int32_t* dots = border->largest_dot.data();
  for (const Inside& row : rows) {
    for (const Inside& column : columns) {
      const int64_t taps = is_zero ? (row.last - row.first) * (column.last - column.first)
                                   : shape_.taps();
      std::fill_n(dots, lanes_, static_cast<int32_t>(taps * shape_.group_inputs));
      for (int64_t tap = 0; is_zero && tap < shape_.taps(); ++tap) {
        const int64_t down = tap / shape_.window.horizontal.kernel;
        const int64_t across = tap % shape_.window.horizontal.kernel;
        const bool is_inside = down >= row.first && down < row.last && across >= column.first &&
                               across < column.last;
        if (is_inside) continue;
        const int32_t* ones = &ones_[tap * lanes_];
        for (size_t lane = 0; lane < lanes_; ++lane) dots[lane] += 2 * ones[lane];
      }
      dots += lanes_;
    }
  }
  return border;
}

std::shared_ptr<const BinaryConv::Border> BinaryConv::border_for(int64_t height, int64_t width) {
  const std::lock_guard<std::mutex> guard(border_mutex_);
  if (!border_ || border_height_ != height || border_width_ != width) {
    border_ = make_border(height, width);
    border_height_ = height;
    border_width_ = width;
  }
  return border_;
}

void BinaryConv::fill_input(int64_t height, int64_t width, const uint8_t* input, int64_t group,
                            uint8_t* padded) const {
  const Axis &vertical = shape_.window.vertical, &horizontal = shape_.window.horizontal;
  const int64_t map_bytes = divide_up(shape_.inputs(), 8);
  const int64_t unit_bytes = position_units_ * set_.unit_bytes;
  std::vector<uint8_t> filler(unit_bytes, 0), position(unit_bytes, 0);
  if (shape_.pad_value < 0) {
    std::fill(filler.begin(), filler.end(), uint8_t{255});
    std::vector<uint8_t> ones = filler;
    std::fill(filler.begin(), filler.end(), uint8_t{0});
    copy_bits(ones.data(), 0, shape_.group_inputs, filler.data());
  }
  const auto put = [&](const uint8_t* bits) {
    if (set_.splits_nibbles) {
      for (int64_t byte = 0; byte < unit_bytes; ++byte) {
        padded[2 * byte] = static_cast<uint8_t>(bits[byte] << 4);
        padded[2 * byte + 1] = bits[byte] & 0xf0;
      }
    } else {
      std::memcpy(padded, bits, unit_bytes);
    }
    padded += position_bytes_;
  };
  const auto pad = [&](int64_t positions) {
    if (shape_.pad_value >= 0) {
      std::memset(padded, 0, positions * position_bytes_);
      padded += positions * position_bytes_;
    } else {
      for (; positions > 0; --positions) put(filler.data());
    }
  };
  const int64_t padded_width = horizontal.padded(width);
  // Whole rows are copied where a position lies in the padded map as it does in the input.
  const bool is_same = shape_.groups == 1 && shape_.group_inputs % 8 == 0 && map_bytes == unit_bytes;
  pad(vertical.pad_before * padded_width);
  for (int64_t row = 0; row < height; ++row) {
    pad(horizontal.pad_before);
    if (is_same && !set_.splits_nibbles) {
      std::memcpy(padded, input, width * map_bytes);
      padded += width * map_bytes;
      input += width * map_bytes;
    } else {
      for (int64_t column = 0; column < width; ++column, input += map_bytes) {
        if (!is_same) {
          copy_bits(input, group * shape_.group_inputs, shape_.group_inputs, position.data());
        }
        put(is_same ? input : position.data());
      }
    }
    pad(horizontal.pad_after);
  }
  pad(vertical.pad_after * padded_width);
}

void BinaryConv::run(int64_t batch, int64_t height, int64_t width, const uint8_t* input,
                     const float* residual, float* output, uint8_t* signs, Parallel& parallel) {
  checked("batch", batch, 0);
  checked("height", height, 1);
  checked("width", width, 1);
  const bool is_pointwise = shape_.taps() == 1 && shape_.window.vertical.stride == 1 &&
                            shape_.window.horizontal.stride == 1 &&
                            shape_.window.vertical.padded(0) + shape_.window.horizontal.padded(0) == 0;
  if (is_pointwise) {  // every position by itself: one long row
    width = checked_product("positions", {batch, height, width});
    batch = height = 1;
    if (width == 0) return;
  }
  const Axis &vertical = shape_.window.vertical, &horizontal = shape_.window.horizontal;
  const int64_t rows = vertical.output(height), columns = horizontal.output(width);
  checked_product("the output", {batch, rows, columns, shape_.outputs});
  const int64_t padded_width = horizontal.padded(width);
  const int64_t row_bytes = checked_product("a padded row", {padded_width, position_bytes_});
  const int64_t map_bytes =
      checked_product("the padded input", {row_bytes, vertical.padded(height)});
  const int64_t all_bytes = checked_product("the padded input", {map_bytes, shape_.groups});
  const std::shared_ptr<const Border> border = border_for(height, width);

  // One run for each row of the kernel, or for each tap where taps are apart.
  const bool is_dense = horizontal.dilation == 1;
  std::vector<ptrdiff_t> run_offset;
  for (int64_t down = 0; down < vertical.kernel; ++down) {
    for (int64_t across = 0; across < (is_dense ? 1 : horizontal.kernel); ++across) {
      run_offset.push_back(down * vertical.dilation * row_bytes +
                           across * horizontal.dilation * position_bytes_);
    }
  }

  // Bits of a group that begin inside a byte cannot be written by it: they are packed afterwards.
  const bool packs_afterwards = signs != nullptr && shape_.groups > 1 && shape_.group_outputs() % 8;
  Buffer<float> unpacked;
  const int64_t map_outputs = rows * columns * shape_.outputs;
  if (packs_afterwards && (output == nullptr || epilogue_.sign_offset != nullptr)) {
    unpacked = Buffer<float>(map_outputs);
  }

  const int64_t parts = divide_up(group_blocks_, set_.part_blocks);
  // In floating point, which no product of these overflows.
  const double work = double(rows) * columns * shape_.groups * group_blocks_ * block_units_;
  const int64_t tasks = std::max<int64_t>(1, std::min<double>(kTasks, work / kLeastTask));
  const int64_t channel_tasks = std::min(shape_.groups * parts, tasks);
  const int64_t row_tasks = std::min(rows, divide_up(tasks, channel_tasks));
  const int64_t scratch_bytes = &set_ == &portable ? 16 * block_units_ : 0;
  Workspace::Lease workspace(workspace_, round_up(all_bytes, 64) +
                                             scratch_bytes * channel_tasks * row_tasks);
  uint8_t* scratch = workspace.data() + round_up(all_bytes, 64);

  const int64_t sign_bytes = divide_up(shape_.outputs, 8);
  for (int64_t image = 0; image < batch; ++image) {
    for (int64_t group = 0; group < shape_.groups; ++group) {
      fill_input(height, width, input, group, workspace.data() + group * map_bytes);
    }
    const auto compute = [&](size_t task) {
      const int64_t channel_task = task / row_tasks, row_task = task % row_tasks;
      const int64_t first_row = rows * row_task / row_tasks;
      const int64_t last_row = rows * (row_task + 1) / row_tasks;
      const int64_t all_parts = shape_.groups * parts;
      const int64_t last_part = all_parts * (channel_task + 1) / channel_tasks;
      for (int64_t part = all_parts * channel_task / channel_tasks; part < last_part; ++part) {
        const int64_t group = part / parts, block = part % parts * set_.part_blocks;
        const int64_t first_block = group * group_blocks_ + block;
        const int64_t lane = first_block * set_.lanes, own = block * set_.lanes;
        const int64_t channel = group * shape_.group_outputs() + own;
        RowJob job{};
        job.input_step = horizontal.stride * position_bytes_;
        job.run_offset = run_offset.data();
        job.run_count = static_cast<int>(run_offset.size());
        job.run_units = static_cast<int>(position_units_ * (is_dense ? horizontal.kernel : 1));
        job.weights = weights_.data() + first_block * block_bytes_;
        job.block_bytes = block_bytes_;
        job.blocks = static_cast<int>(std::min<int64_t>(set_.part_blocks, group_blocks_ - block));
        job.channels = static_cast<int>(
            std::min<int64_t>(job.blocks * set_.lanes, shape_.group_outputs() - own));
        job.border_class = border->column_class.data();
        job.border_step = lanes_;
        const auto from_lane = [&](const float* vector) {
          return vector == nullptr ? nullptr : vector + lane;
        };
        job.scale = from_lane(epilogue_.scale);
        job.bias = from_lane(epilogue_.bias);
        job.slope = from_lane(epilogue_.slope);
        job.shift = from_lane(epilogue_.shift);
        job.sign_offset = from_lane(epilogue_.sign_offset);
        job.has_clip = epilogue_.has_clip;
        job.low = epilogue_.low;
        job.high = epilogue_.high;
        job.channel_step = shape_.outputs;
        job.sign_step = sign_bytes;
        job.positions = static_cast<int>(columns);
        job.scratch = scratch + task * scratch_bytes;
        for (int64_t row = first_row; row < last_row; ++row) {
          const int64_t position = (image * rows + row) * columns;
          job.input = workspace.data() + group * map_bytes + row * vertical.stride * row_bytes;
          job.border = border->largest_dot.data() +
                       border->row_class[row] * border->column_classes * lanes_ + lane;
          job.residual = residual ? residual + position * shape_.outputs + channel : nullptr;
          job.output = output ? output + position * shape_.outputs + channel : nullptr;
          if (packs_afterwards) {
            if (unpacked.size() > 0 && output == nullptr) {
              job.output = unpacked.data() + row * columns * shape_.outputs + channel;
            }
          } else if (signs != nullptr) {
            job.signs = signs + position * sign_bytes + channel / 8;
          }
          set_.convolve_row(job);
        }
      }
    };
    parallel.run(channel_tasks * row_tasks, compute);
    if (packs_afterwards) {
      for (int64_t position = 0; position < rows * columns; ++position) {
        const int64_t place = image * rows * columns + position;
        const float* values = output ? output + place * shape_.outputs
                                     : unpacked.data() + position * shape_.outputs;
        if (epilogue_.sign_offset != nullptr) {
          float* shifted = unpacked.data() + position * shape_.outputs;
          for (int64_t channel = 0; channel < shape_.outputs; ++channel) {
            const int64_t group = channel / shape_.group_outputs();
            const int64_t own = channel % shape_.group_outputs();
            shifted[channel] =
                values[channel] + epilogue_.sign_offset[group * group_blocks_ * set_.lanes + own];
          }
          values = shifted;
        }
        set_.pack_signs(values, shape_.outputs, signs + place * sign_bytes);
      }
    }
    input += height * width * divide_up(shape_.inputs(), 8);
  }
}

}  // namespace bibench

// Any processor: two output channels in the 64-bit halves of a vector, 64 bits of input at a time.
//
// Without a popcount instruction, counting bits is what costs. Eight words are added up first as
// columns of bits (Harley and Seal's carry-save adders): ones, twos and fours stay in words, and
// only every eighth word is counted. Source: Warren, Hacker's Delight, 2nd edition, section 5-1.
#include <cstring>

#include "float_row.h"
#include "instruction_set.h"

namespace bibench {
namespace {

constexpr int kLanes = 2;
constexpr int kGroup = 8;

// The compiler makes SSE2 or NEON of it, or two scalar registers where there is neither.
typedef uint64_t Words __attribute__((vector_size(16)));

inline Words load(const uint64_t* source) {
  Words words;
  std::memcpy(&words, source, sizeof words);
  return words;
}

inline void add_carrying(Words& sum, Words& carry, Words a, Words b) {
  const Words half = sum ^ a;
  carry = (sum & a) | (half & b);
  sum = half ^ b;
}

inline Words popcount(Words words) {
  constexpr uint64_t pairs = 0x5555555555555555, nibbles = 0x3333333333333333;
  constexpr uint64_t bytes = 0x0f0f0f0f0f0f0f0f;
  words -= (words >> 1) & pairs;
  words = (words & nibbles) + ((words >> 2) & nibbles);
  words = (words + (words >> 4)) & bytes;
  words += words >> 8;
  words += words >> 16;
  words += words >> 32;
  return words & 0x7f;
}

// How many bits of `signs` and of each lane's weights differ; `units` is a multiple of eight.
inline Words count_differing(const uint64_t* signs, const uint64_t* weights, int units) {
  Words ones = {}, twos = {}, fours = {}, eights = {};
  for (int unit = 0; unit < units; unit += kGroup, signs += 2 * kGroup, weights += 2 * kGroup) {
    const auto differing = [&](int word) { return load(signs + 2 * word) ^ load(weights + 2 * word); };
    Words twos_of[4], fours_of[2], eight;
    add_carrying(ones, twos_of[0], differing(0), differing(1));
    add_carrying(ones, twos_of[1], differing(2), differing(3));
    add_carrying(twos, fours_of[0], twos_of[0], twos_of[1]);
    add_carrying(ones, twos_of[2], differing(4), differing(5));
    add_carrying(ones, twos_of[3], differing(6), differing(7));
    add_carrying(twos, fours_of[1], twos_of[2], twos_of[3]);
    add_carrying(fours, eight, fours_of[0], fours_of[1]);
    eights += popcount(eight);
  }
  return 8 * eights + 4 * popcount(fours) + 2 * popcount(twos) + popcount(ones);
}

inline float finish(const RowJob& job, int64_t differing, int position, int lane) {
  const int32_t border = job.border[job.border_class[position] * job.border_step + lane];
  const double dot = static_cast<double>(border - 2 * differing);
  // In double precision, so that it rounds once as a fused multiplication and addition does.
  float value = static_cast<float>(dot * job.scale[lane] + job.bias[lane]);
  const size_t place = position * job.channel_step + lane;
  if (job.residual) value += job.residual[place];
  if (job.slope && value < 0) value *= job.slope[lane];
  if (job.shift) value += job.shift[lane];
  if (job.has_clip) {
    value = value < job.low ? job.low : value;
    value = value > job.high ? job.high : value;
  }
  if (job.output) job.output[place] = value;
  return job.sign_offset ? value + job.sign_offset[lane] : value;
}

void convolve_row(const RowJob& job) {
  const int units = (job.run_count * job.run_units + kGroup - 1) / kGroup * kGroup;
  const uint64_t* all_weights = reinterpret_cast<const uint64_t*>(job.weights);
  const size_t block_words = job.block_bytes / sizeof(uint64_t);
  // What a position reads, each word twice, so that both lanes can load it.
  uint64_t* patch = job.scratch;
  for (int position = 0; position < job.positions; ++position) {
    uint64_t differing[kLanes];
    uint8_t* packed = job.signs ? job.signs + position * job.sign_step : nullptr;
    const uint8_t* first_tap = job.input + position * job.input_step;
    int filled = 0;
    for (int run = 0; run < job.run_count; ++run) {
      for (int unit = 0; unit < job.run_units; ++unit, ++filled) {
        uint64_t word;
        std::memcpy(&word, first_tap + job.run_offset[run] + 8 * unit, 8);
        patch[2 * filled] = patch[2 * filled + 1] = word;
      }
    }
    for (; filled < units; ++filled) patch[2 * filled] = patch[2 * filled + 1] = 0;
    unsigned signs = 0;
    for (int block = 0; block < job.blocks; ++block) {
      const Words count = count_differing(patch, all_weights + block * block_words, units);
      std::memcpy(differing, &count, sizeof count);
      for (int half = 0; half < kLanes; ++half) {
        const int lane = block * kLanes + half;
        if (lane >= job.channels) break;
        const float value = finish(job, static_cast<int64_t>(differing[half]), position, lane);
        signs |= unsigned{value < 0} << (lane % 8);
        if (packed && (lane % 8 == 7 || lane + 1 == job.channels)) {
          packed[lane / 8] = static_cast<uint8_t>(signs);
          signs = 0;
        }
      }
    }
  }
}

void pack_signs(const float* values, size_t count, uint8_t* signs) {
  for (; count > 0; ++signs) {
    const size_t some = count < 8 ? count : 8;
    unsigned mask = 0;
    for (size_t lane = 0; lane < some; ++lane) mask |= unsigned{values[lane] < 0} << lane;
    *signs = static_cast<uint8_t>(mask);
    values += some;
    count -= some;
  }
}

void convolve_float_row(const FloatRowJob& job) { float_row<4, 4, 2>(job); }

}  // namespace

const InstructionSet portable = {"portable", 8, kLanes, kGroup, false, int64_t{1} << 30, 1 << 20,
                                 4, convolve_row, convolve_float_row, pack_signs};

}  // namespace bibench

// Any processor: 16 output channels in the bytes of a vector, 8 bits of input at a time.
//
// Without a popcount instruction, counting bits is what costs. Eight vectors are added up first as
// columns of bits (Harley and Seal's carry-save adders): ones, twos and fours stay as they are, and
// only every eighth vector is counted. Source: Warren, Hacker's Delight, 2nd edition, section 5-1.
#include <cstring>

#include "float_row.h"
#include "instruction_set.h"

namespace bibench {
namespace {

constexpr int kLanes = 16;
constexpr int kGroup = 8;
// A group adds at most 8 to a byte.
constexpr int kMostGroups = 255 / 8;

// The compiler makes SSE2 or NEON of it, or scalar registers where there is neither.
typedef uint64_t Words __attribute__((vector_size(kLanes)));

inline Words load(const void* source) {
  Words words;
  std::memcpy(&words, source, sizeof words);
  return words;
}

inline void add_carrying(Words& sum, Words& carry, Words a, Words b) {
  const Words half = sum ^ a;
  carry = (sum & a) | (half & b);
  sum = half ^ b;
}

// The bits of each byte.
inline Words popcount(Words words) {
  constexpr uint64_t pairs = 0x5555555555555555, nibbles = 0x3333333333333333;
  constexpr uint64_t bytes = 0x0f0f0f0f0f0f0f0f;
  words -= (words >> 1) & pairs;
  words = (words & nibbles) + ((words >> 2) & nibbles);
  return (words + (words >> 4)) & bytes;
}

inline void add_bytes(Words words, int32_t weight, int32_t* sums) {
  uint8_t bytes[kLanes];
  std::memcpy(bytes, &words, sizeof bytes);
  for (int lane = 0; lane < kLanes; ++lane) sums[lane] += weight * bytes[lane];
}

// How many bits of the input and of each lane's weights differ. `patch` has each byte of the input
// in all lanes.
inline void count_differing(const uint8_t* patch, const uint8_t* weights, int units,
                            int32_t* differing) {
  Words ones = {}, twos = {}, fours = {}, rest = {};
  const auto next = [&] {
    const Words word = load(patch) ^ load(weights);
    patch += kLanes;
    weights += kLanes;
    return word;
  };
  for (int groups = units / kGroup; groups > 0; groups -= kMostGroups) {
    Words eights = {};
    const int some = groups < kMostGroups ? groups : kMostGroups;
    for (int group = 0; group < some; ++group) {
      Words first_twos, second_twos, first_fours, second_fours, eight;
      Words a = next(), b = next();
      add_carrying(ones, first_twos, a, b);
      a = next(), b = next();
      add_carrying(ones, second_twos, a, b);
      add_carrying(twos, first_fours, first_twos, second_twos);
      a = next(), b = next();
      add_carrying(ones, first_twos, a, b);
      a = next(), b = next();
      add_carrying(ones, second_twos, a, b);
      add_carrying(twos, second_fours, first_twos, second_twos);
      add_carrying(fours, eight, first_fours, second_fours);
      eights += popcount(eight);
    }
    add_bytes(eights, 8, differing);
  }
  for (int unit = units / kGroup * kGroup; unit < units; ++unit) rest += popcount(next());
  // At most 56, 8, 16 and 32: their sum stays within a byte.
  add_bytes(rest + popcount(ones) + 2 * popcount(twos) + 4 * popcount(fours), 1, differing);
}

// What is done with the dot products of one block at one position; gives the signs. Whole vectors
// are computed, though only `count` lanes are output channels: the compiler makes vectors of it.
inline unsigned finish(const RowJob& job, const int32_t* differing, int position, int lane,
                       int count) {
  const int32_t* border = job.border + job.border_class[position] * job.border_step + lane;
  const size_t place = position * job.channel_step + lane;
  float value[kLanes];
  for (int own = 0; own < kLanes; ++own) {
    const float dot = static_cast<float>(border[own] - 2 * differing[own]);
    value[own] = dot * job.scale[lane + own] + job.bias[lane + own];
  }
  if (job.residual) {
    for (int own = 0; own < count; ++own) value[own] += job.residual[place + own];
  }
  if (job.slope) {
    for (int own = 0; own < kLanes; ++own) {
      value[own] *= value[own] < 0 ? job.slope[lane + own] : 1;
    }
  }
  if (job.shift) {
    for (int own = 0; own < kLanes; ++own) value[own] += job.shift[lane + own];
  }
  if (job.has_clip) {
    for (int own = 0; own < kLanes; ++own) {
      const float raised = value[own] < job.low ? job.low : value[own];
      value[own] = raised > job.high ? job.high : raised;
    }
  }
  if (job.output) std::memcpy(job.output + place, value, count * sizeof(float));
  if (job.sign_offset) {
    for (int own = 0; own < kLanes; ++own) value[own] += job.sign_offset[lane + own];
  }
  unsigned signs = 0;
  for (int own = 0; own < count; ++own) signs |= unsigned{value[own] < 0} << own;
  return signs;
}

void convolve_row(const RowJob& job) {
  const int units = job.run_count * job.run_units;
  uint8_t* patch = job.scratch;
  for (int position = 0; position < job.positions; ++position) {
    const uint8_t* first_tap = job.input + position * job.input_step;
    uint8_t* place = patch;
    for (int run = 0; run < job.run_count; ++run) {
      for (int unit = 0; unit < job.run_units; ++unit, place += kLanes) {
        const uint64_t in_all_bytes = first_tap[job.run_offset[run] + unit] * 0x0101010101010101u;
        const Words in_all_lanes = {in_all_bytes, in_all_bytes};
        std::memcpy(place, &in_all_lanes, sizeof in_all_lanes);
      }
    }
    for (int block = 0; block < job.blocks; ++block) {
      int32_t differing[kLanes] = {};
      count_differing(patch, job.weights + block * job.block_bytes, units, differing);
      const int left = job.channels - block * kLanes, count = left < kLanes ? left : kLanes;
      const unsigned signs = finish(job, differing, position, block * kLanes, count);
      if (job.signs == nullptr) continue;
      uint8_t* packed = job.signs + position * job.sign_step + block * kLanes / 8;
      packed[0] = static_cast<uint8_t>(signs);
      if (count > 8) packed[1] = static_cast<uint8_t>(signs >> 8);
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

void pool_float_row(const PoolRowJob& job) { pool_row<4>(job); }

void take_larger(const float* source, size_t count, float* target) {
  larger_of_both(source, count, target);
}

}  // namespace

const InstructionSet portable = {"portable", 1, kLanes, false, int64_t{1} << 30, 1 << 20, 4,
                                 convolve_row, convolve_float_row, pool_float_row, take_larger,
                                 pack_signs};

}  // namespace bibench

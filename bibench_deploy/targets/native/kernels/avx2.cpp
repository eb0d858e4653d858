// AVX2, which has no popcount: 32 output channels in bytes, four bits of input at a time.
//
// In a table of 16 × 16 numbers, row a holds the popcounts of a ^ 0, a ^ 1 … a ^ 15. A nibble of
// the input chooses the row, and a byte shuffle looks up 32 nibbles of weights in it: exclusive
// or and popcount in one instruction. Sums stay in bytes as long as these hold them.
#include <immintrin.h>

#include <cstring>

#include "float_row.h"
#include "instruction_set.h"
#include "pieces.h"

namespace bibench {
namespace {

constexpr int kLanes = 32;
constexpr int kMostPositions = 4;
// A unit of 8 bits adds at most 8 to a byte.
constexpr int kMostUnits = 255 / 8;

struct NibbleTable {
  alignas(16) uint8_t counts[256];
  constexpr NibbleTable() : counts() {
    for (int a = 0; a < 16; ++a) {
      for (int b = 0; b < 16; ++b) {
        const int differing = a ^ b;
        counts[16 * a + b] = static_cast<uint8_t>((differing & 1) + (differing >> 1 & 1) +
                                                  (differing >> 2 & 1) + (differing >> 3));
      }
    }
  }
};
constexpr NibbleTable kTable;

inline __m256i table_row(uint8_t nibble_times_16) {
  const __m128i* row = reinterpret_cast<const __m128i*>(kTable.counts + nibble_times_16);
  return _mm256_broadcastsi128_si256(_mm_load_si128(row));
}

inline __m256i load(const void* source) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(source));
}

inline void add_to(uint16_t* sums, __m128i bytes) {
  const __m256i sum = _mm256_add_epi16(load(sums), _mm256_cvtepu8_epi16(bytes));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), sum);
}

// The first `count` lanes of eight.
inline __m256i lane_mask(int count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
}

// What is done with the dot products of eight lanes, at `kPositions` positions; in steps as avx512.cpp
// does it.
template <int kPositions>
inline void finish(const RowJob& job, const uint16_t* differing, size_t differing_step,
                   int position, int lane) {
  const int left = job.channels - lane;
  if (left <= 0) return;
  const bool is_whole = left >= 8;
  const __m256i mask = lane_mask(left);
  const __m256 zero = _mm256_setzero_ps();
  const size_t step = job.channel_step;
  const size_t first = position * step + lane;
  __m256 value[kPositions];

  const __m256 scale = _mm256_loadu_ps(job.scale + lane), bias = _mm256_loadu_ps(job.bias + lane);
  const int32_t* border = job.border + lane;
  const uint16_t* border_class = job.border_class + position;
#pragma GCC unroll 4
  for (int p = 0; p < kPositions; ++p, differing += differing_step) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(differing));
    const __m256i twice = _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 1);
    const __m256i dot = _mm256_sub_epi32(load(border + border_class[p] * job.border_step), twice);
    value[p] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, bias);
  }
  if (job.residual != nullptr) {
    const float* residual = job.residual + first;
#pragma GCC unroll 4
    for (int p = 0; p < kPositions; ++p, residual += step) {
      value[p] = _mm256_add_ps(value[p], _mm256_maskload_ps(residual, mask));
    }
  }
  if (job.slope != nullptr) {
    const __m256 slope = _mm256_loadu_ps(job.slope + lane);
#pragma GCC unroll 4
    for (int p = 0; p < kPositions; ++p) {
      const __m256 negative = _mm256_cmp_ps(value[p], zero, _CMP_LT_OQ);
      value[p] = _mm256_blendv_ps(value[p], _mm256_mul_ps(value[p], slope), negative);
    }
  }
  if (job.shift != nullptr) {
    const __m256 shift = _mm256_loadu_ps(job.shift + lane);
#pragma GCC unroll 4
    for (int p = 0; p < kPositions; ++p) value[p] = _mm256_add_ps(value[p], shift);
  }
  if (job.has_clip) {
    const __m256 low = _mm256_set1_ps(job.low), high = _mm256_set1_ps(job.high);
#pragma GCC unroll 4
    for (int p = 0; p < kPositions; ++p) {
      value[p] = _mm256_min_ps(high, _mm256_max_ps(low, value[p]));
    }
  }
  if (job.output != nullptr) {
    float* output = job.output + first;
#pragma GCC unroll 4
    for (int p = 0; p < kPositions; ++p, output += step) {
      if (is_whole) {
        _mm256_storeu_ps(output, value[p]);
      } else {
        _mm256_maskstore_ps(output, mask, value[p]);
      }
    }
  }
  if (job.signs == nullptr) return;
  if (job.sign_offset != nullptr) {
    const __m256 sign_offset = _mm256_loadu_ps(job.sign_offset + lane);
#pragma GCC unroll 4
    for (int p = 0; p < kPositions; ++p) value[p] = _mm256_add_ps(value[p], sign_offset);
  }
  const int kept = is_whole ? 255 : (1 << left) - 1;
  const size_t sign_step = job.sign_step;
  uint8_t* packed = job.signs + position * sign_step + lane / 8;
#pragma GCC unroll 4
  for (int p = 0; p < kPositions; ++p, packed += sign_step) {
    const int signs = _mm256_movemask_ps(_mm256_cmp_ps(value[p], zero, _CMP_LT_OQ));
    *packed = static_cast<uint8_t>(signs & kept);
  }
}

template <int kPositions, int kBlocks>
inline void convolve(const RowJob& job, int position, int block) {
  uint16_t differing[kPositions][kBlocks * kLanes] = {};
  const uint8_t* first_tap = job.input + position * job.input_step;
  const uint8_t* weights = job.weights + block * job.block_bytes;
  for (int run = 0; run < job.run_count; ++run) {
    const uint8_t* input = first_tap + job.run_offset[run];
    for (int left = job.run_units; left > 0; left -= kMostUnits) {
      __m256i count[kPositions][kBlocks];
#pragma GCC unroll 4
      for (int p = 0; p < kPositions; ++p) {
#pragma GCC unroll 2
        for (int b = 0; b < kBlocks; ++b) count[p][b] = _mm256_setzero_si256();
      }
      const int units = left < kMostUnits ? left : kMostUnits;
#pragma GCC unroll 2
      for (int unit = 0; unit < units; ++unit, input += 2, weights += 2 * kLanes) {
        __m256i low[kBlocks], high[kBlocks];
#pragma GCC unroll 2
        for (int b = 0; b < kBlocks; ++b) {
          low[b] = load(weights + b * job.block_bytes);
          high[b] = load(weights + b * job.block_bytes + kLanes);
        }
#pragma GCC unroll 4
        for (int p = 0; p < kPositions; ++p) {
          const __m256i low_row = table_row(input[p * job.input_step]);
          const __m256i high_row = table_row(input[p * job.input_step + 1]);
#pragma GCC unroll 2
          for (int b = 0; b < kBlocks; ++b) {
            const __m256i low_count = _mm256_shuffle_epi8(low_row, low[b]);
            const __m256i high_count = _mm256_shuffle_epi8(high_row, high[b]);
            count[p][b] = _mm256_add_epi8(count[p][b], low_count);
            count[p][b] = _mm256_add_epi8(count[p][b], high_count);
          }
        }
      }
#pragma GCC unroll 4
      for (int p = 0; p < kPositions; ++p) {
#pragma GCC unroll 2
        for (int b = 0; b < kBlocks; ++b) {
          uint16_t* sums = differing[p] + b * kLanes;
          add_to(sums, _mm256_castsi256_si128(count[p][b]));
          add_to(sums + 16, _mm256_extracti128_si256(count[p][b], 1));
        }
      }
    }
  }
  for (int lane = 0; lane < kBlocks * kLanes; lane += 8) {
    finish<kPositions>(job, differing[0] + lane, kBlocks * kLanes, position, block * kLanes + lane);
  }
}

template <int kBlocks>
void convolve_blocks(const RowJob& job, int block) {
  for_each_piece<kMostPositions>(job.positions, [&](auto count, int position) {
    convolve<decltype(count)::value, kBlocks>(job, position, block);
  });
}

void convolve_row(const RowJob& job) {
  int block = 0;
  for (; block + 2 <= job.blocks; block += 2) convolve_blocks<2>(job, block);
  if (block < job.blocks) convolve_blocks<1>(job, block);
}

void pack_signs(const float* values, size_t count, uint8_t* signs) {
  const __m256 zero = _mm256_setzero_ps();
  for (; count >= 8; count -= 8, values += 8, ++signs) {
    const __m256 negative = _mm256_cmp_ps(_mm256_loadu_ps(values), zero, _CMP_LT_OQ);
    *signs = static_cast<uint8_t>(_mm256_movemask_ps(negative));
  }
  if (count > 0) {
    const __m256i kept = lane_mask(static_cast<int>(count));
    const __m256 negative = _mm256_cmp_ps(_mm256_maskload_ps(values, kept), zero, _CMP_LT_OQ);
    *signs = static_cast<uint8_t>(_mm256_movemask_ps(negative));
  }
}

void convolve_float_row(const FloatRowJob& job) { float_row<8, 6, 2>(job); }

void pool_float_row(const PoolRowJob& job) { pool_row<8>(job); }

void take_larger(const float* source, size_t count, float* target) {
  larger_of_both(source, count, target);
}

}  // namespace

const InstructionSet avx2 = {"avx2", 1, kLanes, true, 65535, 2, 8,
                             convolve_row, convolve_float_row, pool_float_row, take_larger,
                             pack_signs};

}  // namespace bibench

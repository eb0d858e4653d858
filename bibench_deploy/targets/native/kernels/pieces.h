// A row of output positions in pieces whose length the compiler knows, for whatever vectors the
// including file is compiled for.
#pragma once

namespace bibench {
namespace {

template <int kCount>
struct Count {
  static constexpr int value = kCount;
};

template <int kCount, typename Compute>
inline void compute_piece(int count, int position, const Compute& compute) {
  if constexpr (kCount > 1) {
    if (count != kCount) return compute_piece<kCount - 1>(count, position, compute);
  }
  compute(Count<kCount>(), position);
}

// Calls compute(Count<n>, first position) for pieces of n ≤ kMost positions. As few pieces as
// possible, and as equal as possible: of at most 6, 14 positions are 5, 5 and 4, not twice 6 and 2.
template <int kMost, typename Compute>
inline void for_each_piece(int positions, const Compute& compute) {
  const int pieces = (positions + kMost - 1) / kMost;
  for (int piece = 0, position = 0; piece < pieces; ++piece) {
    const int left_pieces = pieces - piece;
    const int count = (positions - position + left_pieces - 1) / left_pieces;
    compute_piece<kMost>(count, position, compute);
    position += count;
  }
}

}  // namespace
}  // namespace bibench

#include "binarize.h"

#include <algorithm>
#include <cstring>

namespace bibench {
namespace {

constexpr int64_t kTasks = 8;
constexpr int64_t kLeastTask = 50000;  // numbers
// Tiles of so many channels and positions are turned within the first-level cache.
constexpr int64_t kTile = 32;

}  // namespace

void binarize(const InstructionSet& set, bool channels_last, int64_t batch, int64_t channels,
              int64_t positions, const float* input, uint8_t* signs, float* moved,
              Parallel& parallel) {
  const int64_t sign_bytes = (channels + 7) / 8;
  const int64_t all = batch * positions;
  const int64_t wanted = std::min({kTasks, all / kTile, all * channels / kLeastTask});
  const int64_t tasks = std::max<int64_t>(1, wanted);
  parallel.run(tasks, [&](size_t task) {
    const int64_t first = all * task / tasks, last = all * (task + 1) / tasks;
    if (channels_last) {
      for (int64_t place = first; signs != nullptr && place < last; ++place) {
        set.pack_signs(input + place * channels, channels, signs + place * sign_bytes);
      }
      if (moved != nullptr) {
        const size_t bytes = (last - first) * channels * sizeof(float);
        std::memcpy(moved + first * channels, input + first * channels, bytes);
      }
      return;
    }
    for (int64_t start = first; start < last;) {
      // A tile stays within one image.
      const int64_t image = start / positions, position = start % positions;
      const int64_t count = std::min({kTile, last - start, positions - position});
      const float* source = input + image * channels * positions + position;
      for (int64_t channel = 0; channel < channels; channel += kTile) {
        float turned[kTile][kTile];
        const int64_t width = std::min(kTile, channels - channel);
        for (int64_t c = 0; c < width; ++c) {
          for (int64_t p = 0; p < count; ++p) {
            turned[p][c] = source[(channel + c) * positions + p];
          }
        }
        for (int64_t p = 0; p < count; ++p) {
          if (moved != nullptr) {
            float* target = moved + (start + p) * channels + channel;
            std::memcpy(target, turned[p], width * sizeof(float));
          }
          if (signs != nullptr) {
            set.pack_signs(turned[p], width, signs + (start + p) * sign_bytes + channel / 8);
          }
        }
      }
      start += count;
    }
  });
}

}  // namespace bibench

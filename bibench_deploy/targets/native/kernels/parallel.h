// How operators divide their work: ONNX Runtime's own threads, or none in tests.
#pragma once

#include <cstddef>

namespace bibench {

// Calls `task(index)` for every index below `count`, in any order, maybe at the same time.
class Parallel {
 public:
  virtual ~Parallel() = default;

  template <class Task>
  void run(size_t count, const Task& task) {
    if (count == 1) return task(0);
    for_each(count, [](void* opaque, size_t index) { (*static_cast<const Task*>(opaque))(index); },
             const_cast<Task*>(&task));
  }

 protected:
  virtual void for_each(size_t count, void (*task)(void*, size_t), void* opaque) = 0;
};

class Sequential : public Parallel {
 protected:
  void for_each(size_t count, void (*task)(void*, size_t), void* opaque) override {
    for (size_t index = 0; index < count; ++index) task(opaque, index);
  }
};

}  // namespace bibench

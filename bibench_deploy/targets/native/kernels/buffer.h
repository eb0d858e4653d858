// Memory that is aligned for every vector, and a store of it that threads may share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace bibench {

// Uninitialised numbers on a 64-byte boundary, with room behind the last one for a whole vector.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t count) : size_(count) {
    if (count > SIZE_MAX / sizeof(T) - 128) throw std::bad_alloc();
    const size_t bytes = (count * sizeof(T) + 127) / 64 * 64;
    data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
    if (!data_) throw std::bad_alloc();
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  T& operator[](size_t index) { return data_.get()[index]; }
  const T& operator[](size_t index) const { return data_.get()[index]; }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

// Keeps the working memory of an operator from one call to the next, one buffer for each call that
// runs at the same time: memory that is fresh from the system costs more than the layer itself.
class Workspace {
 public:
  class Lease {
   public:
    Lease(Workspace& owner, size_t bytes) : owner_(owner), buffer_(owner.take(bytes)) {}
    ~Lease() { owner_.give_back(std::move(buffer_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    uint8_t* data() { return buffer_.data(); }

   private:
    Workspace& owner_;
    Buffer<uint8_t> buffer_;
  };

 private:
  Buffer<uint8_t> take(size_t bytes) {
    {
      const std::lock_guard<std::mutex> guard(mutex_);
      if (!free_.empty()) {
        Buffer<uint8_t> buffer = std::move(free_.back());
        free_.pop_back();
        if (buffer.size() >= bytes) return buffer;
      }
    }
    return Buffer<uint8_t>(bytes);
  }
  void give_back(Buffer<uint8_t> buffer) noexcept {
    const std::lock_guard<std::mutex> guard(mutex_);
    try {
      free_.push_back(std::move(buffer));
    } catch (const std::bad_alloc&) {  // then it is freed
    }
  }
  std::mutex mutex_;
  std::vector<Buffer<uint8_t>> free_;
};

}  // namespace bibench

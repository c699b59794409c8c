// An allocator that keeps the memory of objects that ended for the next ones of their type. For objects that every request
// has and that are larger than what malloc keeps at hand (1 KiB): from there on glibc tidies its lists at each allocation.
//
//   auto flight = std::allocate_shared<Flight>(Recycled<Flight>(), …);
//
// Threads: any.  Bounds: kKeptMax objects of each type, for the process's life.
#pragma once

#include <cstddef>
#include <mutex>
#include <new>
#include <vector>

namespace capstan::gateway {

template <class T>
class Recycled {
 public:
  using value_type = T;
  static constexpr std::size_t kKeptMax = 256;

  Recycled() = default;
  template <class Other>
  Recycled(const Recycled<Other>&) {}

  T* allocate(std::size_t count) {
    if (count == 1) {
      Kept& kept = kept_ones();
      const std::scoped_lock lock(kept.mutex);
      if (!kept.memory.empty()) {
        void* const last = kept.memory.back();  // the one used last is the likeliest to be in the cache
        kept.memory.pop_back();
        return static_cast<T*>(last);
      }
    }
    return static_cast<T*>(::operator new(count * sizeof(T)));
  }
  void deallocate(T* memory, std::size_t count) {
    if (count == 1) {
      Kept& kept = kept_ones();
      const std::scoped_lock lock(kept.mutex);
      if (kept.memory.size() < kKeptMax) return kept.memory.push_back(memory);
    }
    ::operator delete(memory);
  }
  template <class Other>
  bool operator==(const Recycled<Other>&) const {
    return true;
  }

 private:
  struct Kept {
    std::mutex mutex;
    std::vector<void*> memory;
  };
  // Never destroyed: objects may end after everything static has.
  static Kept& kept_ones() {
    static Kept& kept = *new Kept;
    return kept;
  }
};

}  // namespace capstan::gateway

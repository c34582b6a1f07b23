// Memory that kernels write, watched for races: a pointer whose reads and writes are recorded.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace simulator {

// Who reads or writes, and when: barriers separate epochs.
struct Moment {
    std::uint64_t thread;
    std::uint32_t epoch;
};

// Records the first fault of a launch. Defined in `group.h`.
void fault(const std::string &text);
// The running thread, numbered within its group and within the launch.
Moment moment_in_group();
Moment moment_in_launch();

// The last accesses of one number.
struct Accesses {
    Moment write = {};
    Moment read = {};
    bool written = false;
    bool is_read = false;
    // True if more than one thread has read it in the epoch of `read`.
    bool read_by_several = false;

    // The race that this access is a part of, or null.
    const char *record_write(Moment now) {
        const char *race = nullptr;
        if (written && write.epoch == now.epoch && write.thread != now.thread) {
            race = "is written by two threads without a barrier between";
        } else if (is_read && read.epoch == now.epoch && (read_by_several || read.thread != now.thread)) {
            race = "is written by a thread after another read it, without a barrier between";
        }
        written = true;
        write = now;
        return race;
    }
    const char *record_read(Moment now) {
        const char *race = nullptr;
        if (written && write.epoch == now.epoch && write.thread != now.thread) {
            race = "is read by a thread after another wrote it, without a barrier between";
        }
        bool same = is_read && read.epoch == now.epoch;
        read_by_several = same && (read_by_several || read.thread != now.thread);
        is_read = true;
        read = now;
        return race;
    }
};

// The accesses of one array. An array of a group has a length, and nothing in it may be read before it is written. One
// of the device holds what earlier launches left, and lies where the sanitizer knows its end. No barrier orders
// accesses of the device's memory by different threads of a launch.
class Watch {
  public:
    Watch(std::string name, bool of_group, const void *base, std::size_t count)
        : name(std::move(name)), of_group(of_group), base(base), accesses(of_group ? count : 0) {}

    // Records an access of the number at `at`, of `bytes` bytes. False if it is outside.
    bool record(const void *at, std::size_t bytes, bool write) {
        const char *race;
        if (of_group) {
            auto index = (std::intptr_t(at) - std::intptr_t(base)) / std::intptr_t(bytes);
            if (index < 0 || std::size_t(index) >= accesses.size()) {
                fault(name + "[" + std::to_string(index) + "] is past the end of " + std::to_string(accesses.size()));
                return false;
            }
            Accesses &found = accesses[std::size_t(index)];
            if (!write && !found.written) {
                fault(name + "[" + std::to_string(index) + "] is read before it is written");
            }
            race = write ? found.record_write(moment_in_group()) : found.record_read(moment_in_group());
        } else {
            Accesses &found = of_device[at];
            race = write ? found.record_write(moment_in_launch()) : found.record_read(moment_in_launch());
        }
        if (race) {
            fault(name + " " + race);
        }
        return true;
    }

  private:
    std::string name;
    bool of_group;
    const void *base;
    std::vector<Accesses> accesses;
    std::unordered_map<const void *, Accesses> of_device;
};

// A pointer to watched numbers.
template <typename T> class Watched {
  public:
    class Number {
      public:
        Number(T *at, Watch *watch) : at(at), watch(watch) {}
        operator T() const { return watch->record(at, sizeof(T), false) ? *at : T(); }
        Number &operator=(T value) {
            if (watch->record(at, sizeof(T), true)) {
                *at = value;
            }
            return *this;
        }
        Number &operator=(const Number &other) { return *this = T(other); }
        Number(const Number &) = default;

      private:
        T *at;
        Watch *watch;
    };

    Watched(T *at, Watch *watch) : at(at), watch(watch) {}
    template <typename I> Number operator[](I index) const { return Number(at + index, watch); }
    template <typename I> Watched operator+(I count) const { return Watched(at + count, watch); }

  private:
    T *at;
    Watch *watch;
};

} // namespace simulator

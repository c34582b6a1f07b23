// Runs a group's threads as fibers in lockstep. Every thread runs to its next exchange of lanes or barrier, in an order
// that a seed gives; then all lanes of a simdgroup exchange at once, or all threads pass the barrier. A simdgroup whose
// lanes do not all come to the exchange, or a group whose threads do not all come to the barrier, is a fault.
#pragma once
#include "fiber.h"
#include "half.h"
#include "watch.h"
#include <algorithm>
#include <tuple>
#include <utility>
#include <functional>
#include <map>
#include <numeric>

typedef signed char schar;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;

namespace simulator {

constexpr uint LANE_COUNT = 32;
constexpr uint THREADS_MAX = 1024;

enum class State { ready, exchange, barrier, done };

struct Thread {
    Fiber fiber;
    State state = State::done;
    // What it gives to an exchange and gets, or the site of the barrier that it waits at.
    uint value = 0;
    uint mask = 0;
};

// An array of the group's memory.
struct Array {
    std::unique_ptr<unsigned char[]> bytes;
    std::unique_ptr<Watch> watch;
};

// What one thread of the processor runs: a launch, group after group.
struct Launch {
    std::vector<Thread> threads;
    std::map<int, Array> arrays;
    std::function<void()> kernel;
    uint count = 0;
    uint group[3] = {};
    uint group_number = 0;
    uint running = 0;
    uint epoch = 0;
    std::uint64_t seed = 0;
    std::string first_fault;

    std::uint64_t random() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        return seed;
    }
};

// The launch of this thread of the processor. Looked up at every step of a fiber, so without a call.
inline thread_local Launch *launch __attribute__((tls_model("initial-exec"))) = nullptr;

inline void fault(const std::string &text) {
    if (launch->first_fault.empty()) {
        const uint *at = launch->group;
        launch->first_fault = text + " (group " + std::to_string(at[0]) + ", " + std::to_string(at[1]) + ", " +
                             std::to_string(at[2]) + ", thread " + std::to_string(launch->running) + ")";
    }
}

inline Moment moment_in_group() { return Moment{launch->running, launch->epoch}; }
inline Moment moment_in_launch() {
    return Moment{std::uint64_t(launch->group_number) * THREADS_MAX + launch->running, 0};
}

template <typename Place> Place place() {
    uint thread = launch->running;
    return Place{launch->group[0],     launch->group[1],     launch->group[2], thread,
                 thread % LANE_COUNT, thread / LANE_COUNT};
}

inline void wait_as(State state) {
    Thread &thread = launch->threads[launch->running];
    thread.state = state;
    thread.fiber.leave();
}

// Waits at the barrier number `site` of the source.
inline void barrier(uint site) {
    launch->threads[launch->running].value = site;
    wait_as(State::barrier);
}

inline uint exchange(uint value, uint mask) {
    Thread &thread = launch->threads[launch->running];
    thread.value = value;
    thread.mask = mask;
    wait_as(State::exchange);
    return thread.value;
}

// The group's array that is declared at `place`: the first thread makes it. It holds no usable number.
template <typename T> Watched<T> threadgroup(int place, std::size_t count) {
    Array &array = launch->arrays[place];
    if (!array.watch) {
        array.bytes.reset(new unsigned char[count * sizeof(T)]);
        std::memset(array.bytes.get(), 0xff, count * sizeof(T));
        std::string name = "array " + std::to_string(launch->arrays.size()) + " of the group";
        array.watch.reset(new Watch(name, true, array.bytes.get(), count));
    }
    return Watched<T>(reinterpret_cast<T *>(array.bytes.get()), array.watch.get());
}

inline void thread_main() {
    for (;;) {
        Thread &thread = launch->threads[launch->running];
        thread.fiber.entered();
        // A fiber that is done begins anew in the next group.
        for (;;) {
            launch->kernel();
            wait_as(State::done);
        }
    }
}

// Lets the lanes of a simdgroup exchange, if all of them have come to it.
inline bool exchange_simdgroup(uint first) {
    auto begin = launch->threads.begin() + first, end = begin + LANE_COUNT;
    auto waits = [](const Thread &thread) { return thread.state == State::exchange; };
    if (std::none_of(begin, end, waits)) {
        return false;
    }
    if (!std::all_of(begin, end, waits)) {
        fault("an exchange of lanes that some lanes of the simdgroup do not come to");
        return false;
    }
    uint values[LANE_COUNT];
    std::transform(begin, end, values, [](const Thread &thread) { return thread.value; });
    for (uint lane = 0; lane < LANE_COUNT; lane++) {
        Thread &thread = begin[lane];
        uint from = lane ^ thread.mask;
        if (from >= LANE_COUNT) {
            fault("an exchange with lane " + std::to_string(from) + " of 32");
            return false;
        }
        thread.value = values[from];
        thread.state = State::ready;
    }
    return true;
}

inline void shuffle(std::vector<uint> &order) {
    for (std::size_t at = order.size(); at > 1; at--) {
        std::swap(order[at - 1], order[launch->random() % at]);
    }
}

// Runs the group until all of its threads are done. False after a fault.
inline bool run_group() {
    launch->epoch = 0;
    launch->arrays.clear();
    std::vector<uint> order(launch->count);
    std::iota(order.begin(), order.end(), 0);
    for (uint at = 0; at < launch->count; at++) {
        launch->threads[at].state = State::ready;
    }
    shuffle(order);
    for (;;) {
        // Turns begin anywhere in the order, which is another one after every barrier.
        uint turn = uint(launch->random() % launch->count);
        for (uint turns = 0; turns < launch->count; turns++) {
            turn = turn + 1 < launch->count ? turn + 1 : 0;
            uint thread = order[turn];
            if (launch->threads[thread].state == State::ready) {
                launch->running = thread;
                launch->threads[thread].fiber.enter();
            }
        }
        bool exchanged = false;
        for (uint first = 0; first < launch->count; first += LANE_COUNT) {
            exchanged |= exchange_simdgroup(first);
        }
        if (!launch->first_fault.empty()) {
            return false;
        }
        if (exchanged) {
            continue;
        }
        auto begin = launch->threads.begin(), end = begin + launch->count;
        auto is = [](State state) { return [state](const Thread &thread) { return thread.state == state; }; };
        if (std::all_of(begin, end, is(State::done))) {
            return true;
        }
        // Those of another site are other barriers.
        uint site = begin->value;
        auto at_site = [site](const Thread &thread) { return thread.value == site; };
        if (!std::all_of(begin, end, is(State::barrier)) || !std::all_of(begin, end, at_site)) {
            fault("a barrier that some threads of the group do not come to");
            return false;
        }
        std::for_each(begin, end, [](Thread &thread) { thread.state = State::ready; });
        launch->epoch++;
        shuffle(order);
    }
}

// Runs `kernel` in all groups, in an order that the seed gives. The text of the first fault, or an empty one.
inline std::string run(const uint *groups, uint threads, std::uint64_t seed, std::function<void()> kernel) {
    // Its fibers' stacks are kept for the thread's next launch.
    static thread_local std::unique_ptr<Launch> own;
    if (!own) {
        own.reset(new Launch());
        launch = own.get();
    }
    launch->kernel = std::move(kernel);
    launch->count = threads;
    launch->seed = seed | 1;
    launch->first_fault.clear();
    if (launch->threads.size() < threads) {
        launch->threads = std::vector<Thread>(threads);
    }
    for (uint at = 0; at < threads; at++) {
        launch->threads[at].fiber.prepare(thread_main);
    }
    uint count = groups[0] * groups[1] * groups[2];
    std::vector<uint> order(count);
    std::iota(order.begin(), order.end(), 0);
    shuffle(order);
    for (uint number : order) {
        launch->group_number = number;
        launch->group[0] = number % groups[0];
        launch->group[1] = number / groups[0] % groups[1];
        launch->group[2] = number / groups[0] / groups[1];
        if (!run_group()) {
            break;
        }
    }
    return launch->first_fault;
}

} // namespace simulator

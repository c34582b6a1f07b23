// A shared library of all kernels under the simulator, which is called by a kernel's name.
#include "../kernels/dialect/sim.h"
#include "../kernels/all.h"

namespace {

using Buffers = void *const *;

// A kernel as the library calls it.
struct Entry {
    uint buffers;
    uint sizes_bytes;
    std::string (*run)(const uint *groups, uint threads, std::uint64_t seed, Buffers buffers, const void *sizes);
};

// The argument that a kernel takes in place `index`: what it reads, what it writes, or its sizes.
template <typename T> struct Argument;
template <typename T> struct Argument<const T *> {
    Argument(void *buffer, uint) : at(static_cast<const T *>(buffer)) {}
    const T *get() { return at; }
    const T *at;
};
template <typename T> struct Argument<simulator::Watched<T>> {
    Argument(void *buffer, uint index)
        : at(static_cast<T *>(buffer)), watch("buffer " + std::to_string(index), false, buffer, 0) {}
    simulator::Watched<T> get() { return simulator::Watched<T>(at, &watch); }
    T *at;
    simulator::Watch watch;
};
template <typename T> struct Argument<const T &> {
    Argument(void *buffer, uint) : at(static_cast<const T *>(buffer)) {}
    const T &get() { return *at; }
    const T *at;
};
template <typename T> struct Bytes_of;
template <typename T> struct Bytes_of<const T &> { static constexpr uint count = sizeof(T); };

template <typename Kernel, Kernel kernel> struct Call;
template <typename... Parameters, void (*kernel)(Parameters...)> struct Call<void (*)(Parameters...), kernel> {
    static constexpr uint count = sizeof...(Parameters);
    using Last = typename std::tuple_element<count - 1, std::tuple<Parameters...>>::type;

    template <std::size_t... index>
    static std::string run_with(std::index_sequence<index...>, const uint *groups, uint threads, std::uint64_t seed,
                                void **places) {
        std::tuple<Argument<Parameters>...> arguments{Argument<Parameters>(places[index], index)...};
        return simulator::run(groups, threads, seed, [&] { kernel(std::get<index>(arguments).get()...); });
    }
    static std::string run(const uint *groups, uint threads, std::uint64_t seed, Buffers buffers, const void *sizes) {
        void *places[count];
        std::copy(buffers, buffers + count - 1, places);
        places[count - 1] = const_cast<void *>(sizes);
        return run_with(std::make_index_sequence<count>(), groups, threads, seed, places);
    }
    static Entry entry() { return Entry{count - 1, Bytes_of<Last>::count, run}; }
};

const std::map<std::string, Entry> &kernels() {
#define ENTRY(name) {#name, Call<decltype(&name), &name>::entry()},
#define ENTRIES_OF(Format, name)                                                                                       \
    ENTRY(product_##name##_1) ENTRY(product_##name##_2) ENTRY(product_##name##_4) ENTRY(product_##name##_8)            \
    ENTRY(gated_##name##_1) ENTRY(gated_##name##_2) ENTRY(gated_##name##_4) ENTRY(gated_##name##_8)
    static const std::map<std::string, Entry> all = {
        FOR_EACH_FORMAT(ENTRIES_OF) ENTRY(rms_norm) ENTRY(write_heads_f16) ENTRY(write_heads_q8_0) ENTRY(attend_f16)
        ENTRY(attend_q8_0) ENTRY(merge_attention) ENTRY(find_unusable) ENTRY(choose_token)
    };
    return all;
}

std::string run_checked(const char *name, const uint *groups, uint threads, Buffers buffers, uint buffer_count,
                        const void *sizes, uint sizes_bytes, std::uint64_t seed) {
    auto found = kernels().find(name);
    if (found == kernels().end()) {
        return "there is no such kernel";
    }
    const Entry &entry = found->second;
    if (entry.buffers != buffer_count || entry.sizes_bytes != sizes_bytes) {
        return "takes " + std::to_string(entry.buffers) + " buffers and " + std::to_string(entry.sizes_bytes) +
               " bytes of sizes, found " + std::to_string(buffer_count) + " and " + std::to_string(sizes_bytes);
    }
    if (threads == 0 || threads > simulator::THREADS_MAX || threads % simulator::LANE_COUNT != 0) {
        return "groups of " + std::to_string(threads) + " threads: expected a multiple of 32 up to 1024";
    }
    return entry.run(groups, threads, seed, buffers, sizes);
}

} // namespace

// Runs a kernel. 0 if all went well; else 1, and the fault as a text that ends with a zero.
extern "C" int baton_simulate(const char *name, const uint *groups, uint threads, void *const *buffers,
                              uint buffer_count, const void *sizes, uint sizes_bytes, std::uint64_t seed, char *message,
                              std::size_t message_bytes) {
    std::string fault = run_checked(name, groups, threads, buffers, buffer_count, sizes, sizes_bytes, seed);
    std::size_t length = std::min(fault.size(), message_bytes - 1);
    std::memcpy(message, fault.data(), length);
    message[length] = 0;
    return fault.empty() ? 0 : 1;
}

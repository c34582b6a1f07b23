// Chooses a token of a row of logits: the likeliest, of equal ones the first, or one that is drawn at a temperature.
// The random number of a position comes from a counter, as in `stages/src/sampling`: a replay draws the same token.

#define CHOOSE_SIMDGROUPS 8
#define CHOOSE_THREADS (CHOOSE_SIMDGROUPS * LANES)

struct ChooseSizes {
    uint vocabulary;
};

// The rule of a row, which is read from six numbers.
struct ChoiceRule {
    // One by the temperature. 0 to choose the likeliest token.
    float sharpness;
    // The least weight of a token that may be drawn, where the likeliest has 1.
    float least;
    uint position;
    uint choice;
    uint seed_low;
    uint seed_high;
};

inline ChoiceRule rule_of(IN(uint) rules, uint row) {
    IN(uint) numbers = rules + 6 * row;
    ChoiceRule rule;
    rule.sharpness = from_bits(numbers[0]);
    rule.least = from_bits(numbers[1]);
    rule.position = numbers[2];
    rule.choice = numbers[3];
    rule.seed_low = numbers[4];
    rule.seed_high = numbers[5];
    return rule;
}

// A number from 0 up to 1 with 24 random bits: the first of those of Philox 4x32-10.
inline float random_of(ChoiceRule rule) {
    uint counter[4] = {rule.position, rule.choice, 0, 0};
    uint key[2] = {rule.seed_low, rule.seed_high};
    for (uint round = 0; round < 10; round++) {
        uint high_0 = product_high(0xd2511f53u, counter[0]);
        uint low_0 = 0xd2511f53u * counter[0];
        uint high_1 = product_high(0xcd9e8d57u, counter[2]);
        uint low_1 = 0xcd9e8d57u * counter[2];
        counter[0] = high_1 ^ counter[1] ^ key[0];
        counter[1] = low_1;
        counter[2] = high_0 ^ counter[3] ^ key[1];
        counter[3] = low_0;
        key[0] = key[0] + 0x9e3779b9u;
        key[1] = key[1] + 0xbb67ae85u;
    }
    return float(counter[0] >> 8) * (1.0f / 16777216.0f);
}

// The weight of a token's logit. 0 if it may not be drawn.
inline float weight_of(float logit, float largest, ChoiceRule rule) {
    float weight = exponential((logit - largest) * rule.sharpness);
    return weight >= rule.least ? weight : 0.0f;
}

// The likeliest token of the row, for all threads.
inline uint likeliest_of(IN(float) row, uint vocabulary, SHARED(float) largests, SHARED(uint) tokens, Place place) {
    uint token = vocabulary;
    float largest = HIDDEN_SCORE;
    for (uint at = place.thread; at < vocabulary; at += CHOOSE_THREADS) {
        if (token == vocabulary || row[at] > largest) {
            token = at;
            largest = row[at];
        }
    }
    for (uint mask = LANES / 2; mask > 0; mask /= 2) {
        float other = exchange_lanes(largest, mask);
        uint other_token = exchange_lanes(token, mask);
        bool better = other > largest || (other == largest && other_token < token);
        largest = better ? other : largest;
        token = better ? other_token : token;
    }
    if (place.lane == 0) {
        largests[place.simdgroup] = largest;
        tokens[place.simdgroup] = token;
    }
    group_barrier();
    largest = largests[0];
    token = tokens[0];
    for (uint at = 1; at < CHOOSE_SIMDGROUPS; at++) {
        float other = largests[at];
        uint other_token = tokens[at];
        bool better = other > largest || (other == largest && other_token < token);
        largest = better ? other : largest;
        token = better ? other_token : token;
    }
    // Logits that are no numbers may leave none.
    return token < vocabulary ? token : 0;
}

// The token at which the running sum of weights, in the order of tokens, passes a random part of their sum. A thread
// has a run of neighbouring tokens. For the first thread alone.
inline uint drawn_of(IN(float) row, float largest, uint vocabulary, SHARED(float) run_sums, ChoiceRule rule) {
    float sum = 0.0f;
    for (uint at = 0; at < CHOOSE_THREADS; at++) {
        sum = sum + run_sums[at];
    }
    float left = random_of(rule) * sum;
    uint run = 0;
    uint last_run = 0;
    for (uint at = 0; at < CHOOSE_THREADS; at++) {
        float of_run = run_sums[at];
        if (of_run > 0.0f) {
            last_run = at;
        }
    }
    while (run < last_run && left >= run_sums[run]) {
        left = left - run_sums[run];
        run++;
    }
    uint run_tokens = (vocabulary + CHOOSE_THREADS - 1) / CHOOSE_THREADS;
    uint end = (run + 1) * run_tokens < vocabulary ? (run + 1) * run_tokens : vocabulary;
    uint last = 0;
    for (uint token = run * run_tokens; token < end; token++) {
        float weight = weight_of(row[token], largest, rule);
        if (weight > 0.0f) {
            last = token;
            if (left < weight) {
                break;
            }
            left = left - weight;
        }
    }
    return last;
}

// `chosen` gets two numbers a row: the token, and the bits of the logarithm of its probability, which is no number if a
// logit is none.
KERNEL(choose_token)
(INPUT(0, float, logits), INPUT(1, uint, rules), OUTPUT(2, uint, chosen), SIZES(3, ChooseSizes)) {
    THREADGROUP(float, largests, CHOOSE_SIMDGROUPS);
    THREADGROUP(uint, tokens, CHOOSE_SIMDGROUPS);
    THREADGROUP(float, sums, CHOOSE_SIMDGROUPS);
    THREADGROUP(float, run_sums, CHOOSE_THREADS);
    Place place = PLACE;
    IN(float) row = logits + size_t(place.group_x) * sizes.vocabulary;
    ChoiceRule rule = rule_of(rules, place.group_x);
    uint token = likeliest_of(row, sizes.vocabulary, largests, tokens, place);
    float largest = row[token];

    uint run_tokens = (sizes.vocabulary + CHOOSE_THREADS - 1) / CHOOSE_THREADS;
    float run_sum = 0.0f;
    float sum = 0.0f;
    for (uint at = place.thread * run_tokens; at < (place.thread + 1) * run_tokens && at < sizes.vocabulary; at++) {
        sum = sum + exponential(row[at] - largest);
        run_sum = run_sum + weight_of(row[at], largest, rule);
    }
    run_sums[place.thread] = run_sum;
    sum = sum_of_simdgroups(sum_of_lanes(sum), sums, place, CHOOSE_SIMDGROUPS);
    if (place.thread == 0) {
        if (rule.sharpness > 0.0f) {
            token = drawn_of(row, largest, sizes.vocabulary, run_sums, rule);
        }
        chosen[2 * place.group_x] = token;
        chosen[2 * place.group_x + 1] = to_bits(row[token] - largest - logarithm(sum));
    }
}

//! llama.cpp's greedy continuations of twenty prompts, and a function that gets a cluster's own.

use serde_json::Value;

use super::cluster::Cluster;

/// llama.cpp's greedy continuation of one prompt.
pub(crate) struct Golden {
    pub(crate) name: String,
    pub(crate) prompt: Vec<u32>,
    pub(crate) tokens: Vec<u32>,
    /// Difference between each token's logit and that of the runner-up.
    pub(crate) gaps: Vec<f64>,
    pub(crate) runners_up: Vec<u32>,
}

/// The integers of a JSON array.
pub(crate) fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as u32).collect()
}

/// The twenty cases.
pub(crate) fn golden() -> Vec<Golden> {
    let file: Value = serde_json::from_str(include_str!("../data/smollm2_greedy.json")).unwrap();
    let case = |case: &Value| Golden {
        name: case["name"].as_str().unwrap().to_owned(),
        prompt: numbers(&case["ids"]),
        tokens: numbers(&case["tokens"]),
        gaps: case["gaps"].as_array().unwrap().iter().map(|gap| gap.as_f64().unwrap()).collect(),
        runners_up: numbers(&case["runners_up"]),
    };
    file["cases"].as_array().unwrap().iter().map(case).collect()
}

/// The ids that the cluster generates after each prompt. All prompts run at once.
pub(crate) fn answers(cluster: &Cluster, golden: &[Golden]) -> Vec<Vec<u32>> {
    std::thread::scope(|scope| {
        let ask = |case| scope.spawn(move || cluster.complete(case, 64).0);
        let running: Vec<_> = golden.iter().map(|case| ask(&case.prompt)).collect();
        running.into_iter().map(|answer| answer.join().unwrap()).collect()
    })
}

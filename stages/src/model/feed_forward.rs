//! The part of a layer that computes each position by itself.

/// The feed-forward part of a layer.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedForward {
    /// One network, for every row.
    Dense(DenseSpec),
    /// Several, of which each row chooses a few.
    Experts(ExpertsSpec),
    /// One without a gate.
    Plain(PlainSpec),
}

/// A network without a gate: `down(gelu(up(x) + bias)) + bias`, with the exact GELU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlainSpec {
    /// Values between the matrices.
    pub width: usize,
}

/// A mixture of experts, which are gated networks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertsSpec {
    /// Number of experts.
    pub count: usize,
    /// Number of experts that each row chooses.
    pub chosen: usize,
    /// Values between an expert's matrices.
    pub width: usize,
    /// The function of their gates.
    pub activation: Activation,
    /// The choice of experts.
    pub routing: Routing,
    /// True if a tensor is added to scores for the choice alone.
    pub selection_bias: bool,
    /// True if logits, gates, ups and downs have biases.
    pub biases: bool,
    /// True if one tensor makes each expert's gate and the values that it is multiplied with, one after the other.
    pub fused: bool,
    /// True if each expert has a factor of its result.
    pub scales: bool,
    /// True if the router, the experts and the network beside them have norms of their own: what the layer's norm
    /// makes is the input of the network alone.
    pub own_norms: bool,
    /// The network that every row passes through as well.
    pub shared: Option<SharedSpec>,
}

/// A router's constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// The scores of a router's logits.
    pub score: RouterScore,
    /// True if the weights of the chosen experts are divided by their sum.
    pub normalise: bool,
    /// Factor of the weights.
    pub scale: f32,
    /// Number of equal groups of experts, and the number of groups that a row's experts come from.
    pub groups: Option<(usize, usize)>,
    /// True if weights are factors of the experts' inputs, not of their results.
    pub weigh_inputs: bool,
}

/// The scores that experts are chosen and weighed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterScore {
    /// The softmax of all logits.
    Softmax,
    /// The sigmoid of each logit.
    Sigmoid,
    /// The logits for the choice, and the sigmoid of each as its weight.
    SigmoidOfChosen,
    /// The logits for the choice, and the softmax of the chosen ones as weights.
    SoftmaxOfChosen,
}

/// The network beside the experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SharedSpec {
    /// The network.
    pub dense: DenseSpec,
    /// True if its result is multiplied with the sigmoid of a further product of each row.
    pub gated: bool,
}

/// A gated network: `down(activation(gate(x)) * up(x))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenseSpec {
    /// Values between the matrices.
    pub width: usize,
    /// The function of the gate.
    pub activation: Activation,
    /// True if one tensor makes the gate and the values that it is multiplied with, one after the other.
    pub fused: bool,
}

/// The function that a gate is passed through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x / (1 + e^(-2 u))` with `u = sqrt(2 / pi) * (x + 0.044715 x^3)`: GELU by its usual approximation with `tanh`.
    Gelu,
    /// `x / (1 + e^(-alpha x))` with `x` of at most `limit`, and what it is multiplied with within `limit`, plus one.
    ClampedSwiglu {
        /// The slope.
        alpha: f32,
        /// The bound.
        limit: f32,
    },
}

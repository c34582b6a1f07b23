//! The part of a layer that computes each position by itself.

/// The feed-forward part of a layer.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedForward {
    /// One network, for every row.
    Dense(DenseSpec),
}

/// A gated network: `down(activation(gate(x)) * up(x))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenseSpec {
    /// Values between the matrices.
    pub width: usize,
    /// The function of the gate.
    pub activation: Activation,
}

/// The function that a gate is passed through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
}

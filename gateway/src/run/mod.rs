//! The verbs that keep running: `up`, `stage`, `gateway`. This module puts the crates together.

mod answer_grammar;
mod children;
mod closable_pipeline;
mod deployment_stages;
mod deployments;
mod error;
mod gateway;
mod gateway_server;
mod generation_config;
mod grammars;
mod key_file;
mod limits;
mod live_members;
mod load_bar;
mod memory;
mod model;
mod model_description;
mod model_files;
mod neighbour;
mod other_clusters;
mod other_model;
#[cfg_attr(not(feature = "tls"), path = "no_own_layers.rs")]
mod own_layers;
mod own_store;
mod reasons;
mod served_cluster;
#[cfg_attr(not(feature = "tls"), path = "no_share.rs")]
mod share;
mod stage;
mod stop;
mod store_clusters;
mod supervise;
mod switch;
mod text;
mod up;

pub use error::RunError;
pub use gateway::gateway;
pub use live_members::LiveMembers;
pub use other_model::OtherModel;
pub use stage::stage;
pub use switch::{SwitchError, SwitchWay, switch};
pub use up::up;

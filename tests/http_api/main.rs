//! The HTTP door on a real socket, before a pipeline and a text model that do real arithmetic.

mod answers;
mod bench;
mod browsers;
mod client;
mod cluster;
mod connections;
mod double;
mod leaving;
mod refusals;
mod streams;
mod unread;
mod wire;

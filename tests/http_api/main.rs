//! The HTTP server on a real socket, with doubles of the pipeline and the text model that do real arithmetic.

mod answers;
mod bench;
mod browsers;
mod client;
mod cluster;
mod connections;
mod disconnects;
mod double;
mod raw_input;
mod refusals;
mod streams;
mod unread_bodies;

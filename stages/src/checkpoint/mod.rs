//! A model as its files hold it: metadata and tensors, in GGUF's vocabulary, lying in one or more files.
//!
//! A [`Checkpoint`] has checked headers and keeps nothing mapped. Its metadata has the keys, and its tensors have the
//! names, that model families read from GGUF files, whatever form the files have. A tensor lies in one or several
//! pieces of files, each mapped in place; one in an order that no kernel reads says how it is copied. This module knows
//! forms of files (one GGUF file, a split one, a Hugging Face folder), and no arithmetic.

mod error;
mod fingerprint;
mod gguf_set;
mod header;
mod hugging_face;
mod open;
mod part;
mod tensor_info;

pub use error::{FileChanged, FileStamp, OpenError};
pub use header::Header;
pub use open::Checkpoint;
pub(crate) use part::Part;
pub use tensor_info::{Piece, Repacked, Source, TensorInfo};

//! The x86-64 instruction sets.

pub(super) mod amx;
pub(super) mod avx2;
pub(super) mod avx512;

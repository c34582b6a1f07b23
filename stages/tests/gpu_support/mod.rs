//! The simulated GPU, and helpers that fill and read its buffers.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::PathBuf;

use stages::format::Format;
use stages::gpu::{DeviceBuffer, Gpu, GpuError, Kernel, Launch, SimBuffer, SimGpu, View};

/// Environment variable with the path of the library that `etc/check-msl` builds.
const LIBRARY: &str = "BATON_SIM_KERNELS";
/// Environment variable with the names of formats, comma by comma: those that the library has, if it has not all.
const FORMATS: &str = "BATON_SIM_FORMATS";

/// A simulated GPU whose threads take turns in the order of `seed`.
#[expect(clippy::disallowed_methods, reason = "a switch of these tests, no setting")]
pub fn open(seed: u64) -> SimGpu {
    let library = std::env::var_os(LIBRARY).expect("etc/check-msl runs these tests, and sets BATON_SIM_KERNELS");
    SimGpu::open(&PathBuf::from(library), seed).expect("the simulator loads")
}

/// The formats that the library has kernels for, of those that the runner knows.
#[expect(clippy::disallowed_methods, reason = "a switch of these tests, no setting")]
pub fn formats() -> Vec<Format> {
    let only = std::env::var(FORMATS).ok();
    let has = |format: &Format| only.as_deref().is_none_or(|only| only.split(',').any(|name| name == format.name()));
    let known = |format: &Format| Kernel::Product(*format, stages::gpu::RowsAtOnce::One).name().is_some();
    Format::ALL.into_iter().filter(known).filter(has).collect()
}

/// A buffer with these bytes.
pub fn bytes(gpu: &mut SimGpu, bytes: &[u8]) -> SimBuffer {
    let buffer = gpu.allocate(bytes.len()).expect("there is memory");
    buffer.write(0, bytes);
    buffer
}

/// A buffer with these numbers.
pub fn floats(gpu: &mut SimGpu, values: &[f32]) -> SimBuffer {
    bytes(gpu, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

/// As above.
pub fn words(gpu: &mut SimGpu, values: &[u32]) -> SimBuffer {
    bytes(gpu, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

/// The first numbers of a buffer.
pub fn read_words(buffer: &SimBuffer, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * count];
    buffer.read(0, &mut bytes);
    bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

/// As above.
pub fn read_floats(buffer: &SimBuffer, count: usize) -> Vec<f32> {
    read_words(buffer, count).into_iter().map(f32::from_bits).collect()
}

/// Runs a kernel with buffers that it reads and buffers that it writes.
pub fn launch(
    gpu: &mut SimGpu,
    kernel: Kernel,
    groups: [u32; 3],
    [inputs, outputs]: [&[&SimBuffer]; 2],
    sizes: &[u32],
) -> Result<(), GpuError> {
    let views = |buffers: &[&'_ SimBuffer]| buffers.iter().map(|buffer| (*buffer).clone()).collect::<Vec<_>>();
    let (inputs, outputs) = (views(inputs), views(outputs));
    let [inputs, outputs] = [&inputs, &outputs].map(|buffers| buffers.iter().map(View::from).collect::<Vec<_>>());
    gpu.encode(&Launch { kernel, groups, inputs: &inputs, outputs: &outputs, sizes })?;
    gpu.finish()
}

//! Nothing to build: the build-dependency beside this file makes cargo unpack a `protoc`, which `etc/protoc` finds.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}

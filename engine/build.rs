//! Builds nothing. It is here for the build-dependency `protoc-bin-vendored`: cargo unpacks that crate, and
//! `etc/protoc` finds the `protoc` in it for the build script of `etcd-client`.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}

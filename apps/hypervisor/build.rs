//! Links the image by its own script; nothing where it is an empty program.

fn main() {
    println!("cargo:rerun-if-changed=linker.ld");
    let bare = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none");
    if !bare {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = format!("-T{folder}/linker.ld");
    let arguments =
        ["-no-pie", "-static", "--build-id=none", "-zmax-page-size=0x1000", "--no-dynamic-linker"];
    for argument in arguments.into_iter().chain([script.as_str()]) {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}

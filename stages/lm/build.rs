//! Compiles the GPU kernels where the feature `cuda` asks for them; needs `nvcc` then, and no GPU.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    {
        println!("cargo::rerun-if-changed=kernels");
        let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
        cudaforge::KernelBuilder::new()
            .source_glob("kernels/*.cu")
            .watch(["kernels/attention.cuh", "kernels/common.cuh", "kernels/tile.cuh"])
            .arg("-O3")
            .build_ptx()
            .and_then(|ptx| ptx.write(out.join("ptx.rs")))
            .expect("nvcc compiles the kernels");
    }
}

//! Compiles the GPU kernels where the feature `cuda` asks for them; needs `nvcc` then, and no GPU.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    kernels::compile();
}

#[cfg(feature = "cuda")]
mod kernels {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// GPUs that get machine code: A100, RTX 30, RTX 40, H100, B200. Others compile the PTX of 8.0 when they load it.
    const ARCHITECTURES: &str = "80 86 89 90 100";

    /// Writes a `.fatbin` for each `kernels/*.cu`, and `kernels.rs`: a match from the name of a file to its bytes.
    pub fn compile() {
        println!("cargo::rerun-if-changed=kernels");
        for name in ["HALFTONE_CUDA_ARCHITECTURES", "NVCC", "CUDA_HOME", "CUDA_PATH"] {
            println!("cargo::rerun-if-env-changed={name}");
        }
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
        let mut sources: Vec<PathBuf> = std::fs::read_dir("kernels")
            .expect("the kernels are in this package")
            .map(|entry| entry.expect("a readable folder").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
            .collect();
        sources.sort();
        let nvcc = nvcc();
        std::thread::scope(|scope| {
            for source in &sources {
                let (nvcc, out) = (&nvcc, &out);
                scope.spawn(move || compile_one(nvcc, source, out));
            }
        });
        let mut table = String::from("Ok(match file {\n");
        for source in &sources {
            let name = stem(source);
            table += &format!("    {name:?} => include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.fatbin\")),\n");
        }
        table += "    _ => return Err(Error::internal(format!(\"no kernels in {file}\"))),\n})\n";
        std::fs::write(out.join("kernels.rs"), table).expect("cargo's folder can be written to");
    }

    fn stem(source: &Path) -> &str {
        source.file_stem().and_then(|stem| stem.to_str()).expect("our own names")
    }

    fn compile_one(nvcc: &Path, source: &Path, out: &Path) {
        let architectures = std::env::var("HALFTONE_CUDA_ARCHITECTURES").unwrap_or(ARCHITECTURES.to_owned());
        let mut command = Command::new(nvcc);
        command.args(["-O3", "-std=c++17", "-lineinfo", "-fatbin", "-compress-mode=size"]);
        command.arg("-gencode=arch=compute_80,code=compute_80");
        for number in architectures.split_whitespace() {
            command.arg(format!("-gencode=arch=compute_{number},code=sm_{number}"));
        }
        command.arg("-o").arg(out.join(stem(source)).with_extension("fatbin")).arg(source);
        let status = command.status().unwrap_or_else(|error| {
            panic!("nvcc is needed for the feature `cuda` ({}: {error}); set CUDA_HOME or NVCC", nvcc.display())
        });
        assert!(status.success(), "nvcc compiles {}", source.display());
    }

    /// The CUDA compiler: `NVCC`, that of `CUDA_HOME` or `CUDA_PATH`, the one in `PATH`, or where installers put it.
    fn nvcc() -> PathBuf {
        if let Some(nvcc) = std::env::var_os("NVCC") {
            return nvcc.into();
        }
        let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        homes
            .map(|home| home.join("bin"))
            .chain(std::env::split_paths(&path))
            .chain([PathBuf::from("/usr/local/cuda/bin")])
            .map(|folder| folder.join("nvcc"))
            .find(|nvcc| nvcc.is_file())
            .unwrap_or_else(|| "nvcc".into())
    }
}

//! Kernels without a GPU: their sources compiled for the processor by the C++ compiler of the machine, on tensors of
//! the CPU. See `tests/emulator`.

use super::{Beside, Launch, Operand, Product};
use crate::{DType, Device, Error, Result};
use candle_core::{CpuStorage, Shape, Storage, Tensor};
use half::bf16;
use std::cell::{Cell, RefCell};
use std::collections::hash_map::DefaultHasher;
use std::ffi::{CStr, CString, c_char, c_void};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Bytes on both sides of a fresh tensor that nobody may touch. They are NaN to who reads them.
const GUARD: usize = 256;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    /// True where products have nothing beside them, as without cublasLt.
    static PARTED: Cell<bool> = const { Cell::new(false) };
    /// True where nothing is recorded, as with `HALFTONE_CUDA_GRAPHS=0`.
    static UNRECORDED: Cell<bool> = const { Cell::new(false) };
    /// The kernels and products since the last look.
    static CALLS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// The kernels and products of work that is being recorded.
    static RECORDED: RefCell<Option<Vec<Recorded>>> = const { RefCell::new(None) };
    /// Fresh tensors with their guards, and how many bytes lie between these.
    static FRESH: RefCell<Vec<(Tensor, usize)>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn is_on() -> bool {
    ON.get()
}

/// Runs something with CPU tensors taken for those of a GPU. `None`, and the reason once on the terminal, where there
/// is no compiler.
pub(crate) fn emulated<T>(work: impl FnOnce() -> T) -> Option<T> {
    library().as_ref().ok()?;
    ON.set(true);
    let result = work();
    ON.set(false);
    for (whole, size) in FRESH.take() {
        let start = whole_address(&whole);
        // SAFETY: the tensor holds as many bytes, and lives.
        let bytes = unsafe { std::slice::from_raw_parts(start as *const u8, size + 2 * GUARD) };
        let intact = bytes[..GUARD].iter().chain(&bytes[GUARD + size..]).all(|&byte| byte == 0xff);
        assert!(intact, "a kernel wrote beyond a tensor of {size} bytes");
    }
    Some(result)
}

/// Runs something as on a machine without cublasLt.
pub(crate) fn in_parts<T>(work: impl FnOnce() -> T) -> T {
    PARTED.set(true);
    let result = work();
    PARTED.set(false);
    result
}

/// True where work is recorded.
pub(crate) fn records() -> bool {
    ON.get() && !UNRECORDED.get()
}

/// Runs something that records nothing.
pub(crate) fn unrecorded<T>(work: impl FnOnce() -> T) -> T {
    UNRECORDED.set(true);
    let result = work();
    UNRECORDED.set(false);
    result
}

/// The kernels that were launched and the products (`product`) since the last look, in their order.
pub(crate) fn calls() -> Vec<String> {
    CALLS.take()
}

type Emulate =
    unsafe extern "C" fn(*const c_char, *const u32, u32, u32, *const c_char, *mut *mut c_void) -> *const c_char;

/// The entry of the library, built where it has not been since the sources changed.
fn library() -> &'static Result<Emulate, String> {
    static LIBRARY: OnceLock<Result<Emulate, String>> = OnceLock::new();
    LIBRARY.get_or_init(|| loaded().inspect_err(|reason| skipped("GPU kernels are not emulated", reason)))
}

/// Says on the terminal, past the capture of tests that pass, what a machine cannot test.
///
/// # Panics
/// Where `HALFTONE_REQUIRE` asks for the emulator.
fn skipped(what: &str, reason: &str) {
    let required = std::env::var("HALFTONE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == "emulator"), "{what}, and HALFTONE_REQUIRE says it must: {reason}");
    let _ = writeln!(std::io::stderr(), "{what}: {reason}");
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn loaded() -> Result<Emulate, String> {
    built().and(Err("only done on Linux on x86-64".to_owned()))
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn loaded() -> Result<Emulate, String> {
    let path = CString::new(built()?.into_os_string().into_encoded_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: the library was built from our sources, and `emulate` has this signature there.
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        if library.is_null() {
            return Err("the library cannot be loaded".to_owned());
        }
        let entry = libc::dlsym(library, c"emulate".as_ptr());
        if entry.is_null() {
            return Err("the library has no entry".to_owned());
        }
        Ok(std::mem::transmute::<*mut c_void, Emulate>(entry))
    }
}

fn built() -> Result<PathBuf, String> {
    // A machine with a GPU has better to do.
    if std::env::var_os("HALFTONE_TEST_DEVICE").is_some() {
        return Err("HALFTONE_TEST_DEVICE names a device".to_owned());
    }
    let root = harness::root().join("stages/lm");
    let mut hasher = DefaultHasher::new();
    for folder in ["kernels", "tests/emulator"] {
        let files = std::fs::read_dir(root.join(folder)).map_err(|error| format!("{folder}: {error}"))?;
        let mut files: Vec<PathBuf> = files.filter_map(|file| Some(file.ok()?.path())).collect();
        files.sort();
        for file in files {
            std::fs::read(&file).map_err(|error| error.to_string())?.hash(&mut hasher);
        }
    }
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = test.parent().ok_or("the test has no folder")?;
    let library = folder.join(format!("emulator-{:016x}.so", hasher.finish()));
    if library.exists() {
        return Ok(library);
    }
    let fresh = folder.join(format!("emulator-{}.so", std::process::id()));
    let output = Command::new("c++")
        .args(["-std=c++17", "-O2", "-w", "-fPIC", "-ftls-model=initial-exec", "-shared", "-U_FORTIFY_SOURCE", "-o"])
        .arg(&fresh)
        .arg(root.join("tests/emulator/emulator.cpp"))
        .output()
        .map_err(|error| format!("no C++ compiler `c++` ({error})"))?;
    assert!(output.status.success(), "c++: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&fresh, &library).map_err(|error| error.to_string())?;
    Ok(library)
}

/// A program that runs all kernels, `tests/emulator/checks.cpp`.
pub(crate) struct Checks {
    _folder: tempfile::TempDir,
    program: PathBuf,
}

impl Checks {
    /// Built with what looks at each access of a kernel. `None`, and the reason on the terminal, where it cannot be.
    pub fn watched() -> Option<Checks> {
        let watch = ["-fsanitize=thread", "-fno-threadsafe-statics", "-DWATCHED", "-c"];
        let build = [("checks.cpp", &watch[..]), ("watch.cpp", &["-c"])];
        Checks::built("accesses of GPU kernels are not looked at", &build, &[])
    }

    /// Built with AddressSanitizer and UndefinedBehaviorSanitizer. To optimise it would take longer than it saves.
    pub fn sanitized() -> Option<Checks> {
        let sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
        let compile = [&sanitizers[..], &["-O0", "-c"]].concat();
        Checks::built("GPU kernels do not run under sanitizers", &[("checks.cpp", &compile)], &sanitizers)
    }

    /// The stand-in for a driver that `tests/gpu-rehearsal.sh` builds. None where there is no compiler.
    pub fn stand_in() -> Option<Checks> {
        let build = [("driver.cpp", &["-O0", "-fPIC", "-c"][..])];
        Checks::built("the stand-in for a driver is not compiled", &build, &["-shared"])
    }

    fn built(otherwise: &str, sources: &[(&str, &[&str])], link: &[&str]) -> Option<Checks> {
        let from = harness::root().join("stages/lm/tests/emulator");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = folder.path().join("checks");
        let run = |arguments: &[&str], files: &[PathBuf], to: &Path| -> Result<(), String> {
            let output = Command::new("c++")
                .args(["-std=c++17", "-O2", "-w"])
                .args(arguments)
                .args(files)
                .arg("-o")
                .arg(to)
                .output()
                .map_err(|error| format!("no C++ compiler `c++` ({error})"))?;
            let errors = String::from_utf8_lossy(&output.stderr);
            if errors.contains("asan") || errors.contains("ubsan") || errors.contains("fsanitize") {
                return Err(format!("the C++ compiler lacks a sanitizer: {errors}"));
            }
            assert!(output.status.success(), "c++: {errors}");
            Ok(())
        };
        let mut objects = Vec::new();
        for (source, arguments) in sources {
            let object = folder.path().join(source).with_extension("o");
            run(arguments, &[from.join(source)], &object).map_err(|reason| skipped(otherwise, &reason)).ok()?;
            objects.push(object);
        }
        run(link, &objects, &program).map_err(|reason| skipped(otherwise, &reason)).ok()?;
        Some(Checks { _folder: folder, program })
    }

    /// Runs it with an environment variable, such as one that takes a barrier away; gives all it says, and whether it
    /// went well.
    pub fn run(&self, name: &str, value: &str) -> (String, bool) {
        let mut command = Command::new(&self.program);
        // Stacks of fibers are not those that a checker of returns knows.
        command.env("ASAN_OPTIONS", "detect_stack_use_after_return=0").env(name, value);
        let output = command.output().expect("a program that was just built");
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&text).into_owned(), output.status.success())
    }
}

fn whole_address(tensor: &Tensor) -> u64 {
    let (storage, _) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => data.as_ptr() as u64,
        Storage::Cpu(CpuStorage::F64(data)) => data.as_ptr() as u64,
        Storage::Cpu(CpuStorage::BF16(data)) => data.as_ptr() as u64,
        Storage::Cpu(CpuStorage::U32(data)) => data.as_ptr() as u64,
        _ => panic!("emulated kernels for {:?}", tensor.dtype()),
    }
}

pub(crate) fn address(tensor: &Tensor) -> Result<u64> {
    Ok(whole_address(tensor) + (tensor.layout().start_offset() * tensor.dtype().size_in_bytes()) as u64)
}

pub(crate) fn fresh(shape: Shape, dtype: DType) -> Result<Tensor> {
    let size = dtype.size_in_bytes();
    let (count, guard) = (shape.elem_count(), GUARD / size);
    let all = count + 2 * guard;
    let whole = match dtype {
        DType::F32 => Tensor::from_vec(vec![f32::from_bits(u32::MAX); all], all, &Device::Cpu)?,
        DType::F64 => Tensor::from_vec(vec![f64::from_bits(u64::MAX); all], all, &Device::Cpu)?,
        DType::BF16 => Tensor::from_vec(vec![bf16::from_bits(u16::MAX); all], all, &Device::Cpu)?,
        dtype => return Err(Error::internal(format!("emulated kernels for {dtype:?}"))),
    };
    FRESH.with_borrow_mut(|all| all.push((whole.clone(), count * size)));
    Ok(whole.narrow(0, guard, count)?.reshape(shape)?)
}

/// A kernel with its arguments.
struct Kernel {
    file: &'static str,
    name: String,
    kinds: String,
    values: Vec<u64>,
    grid: [u32; 2],
    threads: u32,
    shared: u32,
}

pub(crate) fn launch(call: &Launch, grid: [u32; 2], threads: u32, shared: usize) -> Result<()> {
    let (name, kinds, values) = (call.name.clone(), call.kinds.clone(), call.values.clone());
    let kernel = Kernel { file: call.file, name, kinds, values, grid, threads, shared: shared as u32 };
    let recorded = RECORDED.with_borrow_mut(|recorded| match recorded {
        Some(recorded) => {
            recorded.push(Recorded::Kernel(kernel));
            Ok(())
        }
        None => Err(kernel),
    });
    recorded.or_else(|kernel| kernel.run())
}

impl Kernel {
    fn run(&self) -> Result<()> {
        let emulate = library().as_ref().map_err(|reason| Error::internal(reason.clone()))?;
        CALLS.with_borrow_mut(|calls| calls.push(self.name.clone()));
        let mut values = self.values.clone();
        let mut args: Vec<*mut c_void> = values.iter_mut().map(|value| (&raw mut *value).cast()).collect();
        let (name, kinds) = (c_string(&self.name)?, c_string(&self.kinds)?);
        let (name, kinds, grid) = (name.as_ptr(), kinds.as_ptr(), self.grid.as_ptr());
        // SAFETY: the addresses are those of live tensors. Kernels write to tensors that are only lent for reading here;
        // no one else looks at them meanwhile, as on a GPU.
        let what = unsafe { emulate(name, grid, self.threads, self.shared, kinds, args.as_mut_ptr()) };
        if what.is_null() {
            return Ok(());
        }
        // SAFETY: not null, so that it is a text that stays until the next launch.
        let what = unsafe { CStr::from_ptr(what) }.to_string_lossy();
        Err(Error::internal(format!("{}.cu: {what}", self.file)))
    }
}

/// A matrix of a product that is kept.
struct Kept {
    tensor: Tensor,
    start: usize,
    stride: usize,
    transposed: bool,
}

impl Kept {
    fn of(operand: Operand) -> Kept {
        let Operand { tensor, start, stride, transposed } = operand;
        Kept { tensor: tensor.clone(), start, stride, transposed }
    }

    fn operand(&self) -> Operand<'_> {
        let Kept { tensor, start, stride, transposed } = self;
        Operand { tensor, start: *start, stride: *stride, transposed: *transposed }
    }
}

enum Recorded {
    Kernel(Kernel),
    Product { a: Kept, b: Kept, c: Option<Kept>, d: Kept, sizes: [usize; 3], bias: Option<Tensor> },
}

impl Recorded {
    /// # Panics
    /// On sums beside a product: only a backward has them.
    fn of(product: &Product) -> Recorded {
        let Product { a, b, c, d, sizes, beside } = *product;
        let bias = match beside {
            Beside::Nothing => None,
            Beside::Bias(bias) => Some(bias.clone()),
            Beside::Sums(_) => panic!("a backward is recorded"),
        };
        Recorded::Product { a: Kept::of(a), b: Kept::of(b), c: c.map(Kept::of), d: Kept::of(d), sizes, bias }
    }
}

/// Recorded kernels and products. Tensors that were fresh in it live until the emulation ends.
pub(crate) struct Graph(Vec<Recorded>);

impl Graph {
    pub fn record(work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        RECORDED.set(Some(Vec::new()));
        let done = work();
        let recorded = RECORDED.take().unwrap_or_default();
        done.map(|()| Graph(recorded))
    }

    pub fn run(&self) -> Result<()> {
        CALLS.with_borrow_mut(|calls| calls.push("graph".to_owned()));
        self.0.iter().try_for_each(|recorded| match recorded {
            Recorded::Kernel(kernel) => kernel.run(),
            Recorded::Product { a, b, c, d, sizes, bias } => {
                let beside = bias.as_ref().map_or(Beside::Nothing, Beside::Bias);
                let (a, b, c, d) = (a.operand(), b.operand(), c.as_ref().map(Kept::operand), d.operand());
                multiplied(&Product { a, b, c, d, sizes: *sizes, beside })
            }
        })
    }
}

pub(crate) fn overwrite(tensor: &Tensor, numbers: &[u32]) -> Result<()> {
    let to = address(tensor)? as *mut u32;
    // SAFETY: the tensor has as many numbers; see `launch`.
    unsafe { std::ptr::copy_nonoverlapping(numbers.as_ptr(), to, numbers.len()) };
    Ok(())
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::internal("a name with a zero byte"))
}

/// The numbers of op(matrix) [rows, columns], in f64; the columns of the matrix lie `stride` apart.
fn numbers(operand: &Operand, rows: usize, columns: usize) -> Result<Vec<f64>> {
    let data = operand.tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let at = |row: usize, column: usize| {
        let (row, column) = if operand.transposed { (column, row) } else { (row, column) };
        assert!(row < operand.stride, "a matrix within its columns");
        data[operand.start + row + column * operand.stride]
    };
    Ok((0..rows * columns).map(|i| at(i / columns, i % columns)).collect())
}

/// c = op(a) op(b), or c += op(a) op(b), by the definition of cublasGemmEx: op(a) is [m, k], op(b) is [k, n], c is [m,
/// n].
pub(crate) fn gemm(a: Operand, b: Operand, c: Operand, sizes: [usize; 3], added: bool) -> Result<()> {
    multiplied(&Product { a, b, c: added.then_some(c), d: c, sizes, beside: Beside::Nothing })
}

/// The same with something beside it, by the definition of cublasLtMatmul; false where there is none.
pub(crate) fn product(product: &Product) -> Result<bool> {
    if PARTED.get() {
        return Ok(false);
    }
    multiplied(product).map(|()| true)
}

fn multiplied(product: &Product) -> Result<()> {
    let taken = RECORDED.with_borrow_mut(|recorded| recorded.as_mut().map(|all| all.push(Recorded::of(product))));
    if taken.is_some() {
        return Ok(());
    }
    CALLS.with_borrow_mut(|calls| calls.push("product".to_owned()));
    let Product { a, b, c, d, sizes: [m, n, k], beside } = *product;
    let (a, b) = (numbers(&a, m, k)?, numbers(&b, k, n)?);
    let mut base = c.map_or(Ok(vec![0.0; m * n]), |c| numbers(&Operand { transposed: false, ..c }, m, n))?;
    match beside {
        Beside::Nothing => (),
        Beside::Bias(bias) => {
            let bias = numbers(&Operand { tensor: bias, start: 0, stride: m, transposed: false }, m, 1)?;
            base.iter_mut().enumerate().for_each(|(i, number)| *number += bias[i / n]);
        }
        Beside::Sums(sums) => {
            let of = |column: usize| (0..k).map(|i| b[i * n + column]).sum();
            write(&Operand { tensor: sums, start: 0, stride: n, transposed: false }, n, 1, |row, _| of(row))?;
        }
    }
    let sum = |row: usize, column: usize| (0..k).map(|i| a[row * k + i] * b[i * n + column]).sum::<f64>();
    write(&d, m, n, |row, column| base[row * n + column] + sum(row, column))
}

/// Writes the numbers of a matrix [rows, columns].
fn write(to: &Operand, rows: usize, columns: usize, number: impl Fn(usize, usize) -> f64) -> Result<()> {
    let last = to.start + (columns - 1) * to.stride + rows;
    assert!(rows <= to.stride && last <= to.tensor.elem_count(), "a product within its tensor");
    let start = to.address()?;
    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        let at = row + column * to.stride;
        // SAFETY: within the tensor, as checked above; see `launch`.
        unsafe {
            match to.tensor.dtype() {
                DType::BF16 => *(start as *mut bf16).add(at) = bf16::from_f64(number(row, column)),
                _ => *(start as *mut f32).add(at) = number(row, column) as f32,
            }
        }
    }
    Ok(())
}

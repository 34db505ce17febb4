//! Tiles on x86: packed by AVX-512, multiplied by the matrix unit or by vectors.

use super::block::{BLOCK, Block, SIDE, TILE};
use std::arch::asm;
use std::arch::x86_64::*;

/// True where vectors pack tiles, and multiply them.
pub(super) fn has_vectors() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// True where vectors multiply numbers in bf16 faster than in f32: on an AMD EPYC trainings took two thirds of the time in
/// f32, on an Intel Xeon more than all of it.
pub(super) fn has_fast_vectors() -> bool {
    // SAFETY: every x86-64 processor has this instruction. (It is safe to call in newer versions of Rust.)
    #[allow(unused_unsafe)]
    let vendor = unsafe { __cpuid(0) };
    let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat();
    has_vectors() && name == b"AuthenticAMD"
}

/// True where there is a matrix unit for bf16, and the operating system lets this process use it.
pub(super) fn has_amx() -> bool {
    const TILE_AND_BF16: u32 = 1 << 24 | 1 << 22;
    // SAFETY: every x86-64 processor has this instruction. (It is safe to call in newer versions of Rust.)
    #[allow(unused_unsafe)]
    let features = unsafe { if __cpuid(0).eax < 7 { 0 } else { __cpuid_count(7, 0).edx } };
    features & TILE_AND_BF16 == TILE_AND_BF16 && permitted()
}

#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: asks the kernel for a permission; no memory is involved.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Palette 1, and 16 rows of 64 bytes for each of the eight tiles.
#[repr(C, align(64))]
struct Config([u8; 64]);

static CONFIG: Config = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Config(bytes)
};

pub(super) unsafe fn configure() {
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) };
}

pub(super) unsafe fn release() {
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// 32 x 32 outputs in four tiles.
pub(super) unsafe fn add_tiles(block: &Block, out: *mut f32, stride: usize, fresh: bool) {
    let (a, b) = (block.a.as_ptr(), block.b.as_ptr());
    unsafe {
        asm!(
            "test {fresh:e}, {fresh:e}",
            "jnz 2f",
            "tileloadd tmm0, [{c0} + {stride}]",
            "tileloadd tmm1, [{c0} + {stride} + 64]",
            "tileloadd tmm2, [{c1} + {stride}]",
            "tileloadd tmm3, [{c1} + {stride} + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "tileloadd tmm4, [{a0} + {line}]",
            "tileloadd tmm6, [{b0} + {line}]",
            "tileloadd tmm7, [{b1} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {line}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 1024",
            "add {a1}, 1024",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {run}",
            "jnz 3b",
            "tilestored [{c0} + {stride}], tmm0",
            "tilestored [{c0} + {stride} + 64], tmm1",
            "tilestored [{c1} + {stride}], tmm2",
            "tilestored [{c1} + {stride} + 64], tmm3",
            fresh = in(reg) u32::from(fresh),
            c0 = in(reg) out,
            c1 = in(reg) out.add(SIDE * stride),
            stride = in(reg) stride * 4,
            line = in(reg) 64usize,
            a0 = inout(reg) a => _,
            a1 = inout(reg) a.add(block.run * TILE) => _,
            b0 = inout(reg) b => _,
            b1 = inout(reg) b.add(block.panel) => _,
            run = inout(reg) block.run => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// 32 x 32 outputs, eight rows at a time.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn add_vectors(block: &Block, out: *mut f32, stride: usize, fresh: bool) {
    const ROWS: usize = 8;
    for first in (0..BLOCK).step_by(ROWS) {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        unsafe {
            if !fresh {
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (half, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm512_loadu_ps(out.add((first + i) * stride + half * SIDE));
                    }
                }
            }
            let a = block.a.as_ptr().add(first / SIDE * block.run * TILE + first % SIDE * SIDE);
            let b = block.b.as_ptr();
            for tile in 0..block.run {
                for pair in 0..SIDE {
                    let at = tile * TILE + pair * SIDE;
                    let right = [b, b.add(block.panel)]
                        .map(|b| std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(b.add(at).cast())));
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let left = _mm512_set1_epi32(*a.add(tile * TILE + i * SIDE + pair) as i32);
                        let left = std::mem::transmute::<__m512i, __m512bh>(left);
                        sums[0] = _mm512_dpbf16_ps(sums[0], left, right[0]);
                        sums[1] = _mm512_dpbf16_ps(sums[1], left, right[1]);
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                for (half, sum) in sums.iter().enumerate() {
                    _mm512_storeu_ps(out.add((first + i) * stride + half * SIDE), *sum);
                }
            }
        }
    }
}

/// A tile of 16 outer indices, `stride` apart, whose 32 inner numbers stand side by side.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack_rows(data: *const f32, stride: usize, turned: bool, into: &mut [u32]) {
    assert!(into.len() == TILE);
    let mut rows = [_mm512_setzero_si512(); SIDE];
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: the caller answers for the tile within its matrix.
        let (low, high) =
            unsafe { (_mm512_loadu_ps(data.add(i * stride)), _mm512_loadu_ps(data.add(i * stride + SIDE))) };
        // SAFETY: both are 512 bits.
        *row = unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) };
    }
    store(if turned { transposed(rows) } else { rows }, into);
}

/// A tile of 32 inner indices, `stride` apart, whose 16 outer numbers stand side by side.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack_columns(data: *const f32, stride: usize, turned: bool, into: &mut [u32]) {
    assert!(into.len() == TILE);
    let mut interleave = [0i16; 2 * SIDE];
    for i in 0..SIDE {
        interleave[2 * i] = i as i16;
        interleave[2 * i + 1] = (SIDE + i) as i16;
    }
    // SAFETY: the array is 512 bits.
    let interleave = unsafe { _mm512_loadu_si512(interleave.as_ptr().cast()) };
    let mut rows = [_mm512_setzero_si512(); SIDE];
    for (pair, row) in rows.iter_mut().enumerate() {
        // SAFETY: the caller answers for the tile within its matrix.
        let (even, odd) = unsafe {
            let data = data.add(2 * pair * stride);
            (_mm512_loadu_ps(data), _mm512_loadu_ps(data.add(stride)))
        };
        // SAFETY: both are 512 bits.
        let both = unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even)) };
        *row = _mm512_permutexvar_epi16(interleave, both);
    }
    store(if turned { transposed(rows) } else { rows }, into);
}

#[target_feature(enable = "avx512f")]
fn store(rows: [__m512i; SIDE], into: &mut [u32]) {
    for (row, into) in rows.iter().zip(into.chunks_exact_mut(SIDE)) {
        // SAFETY: 16 words.
        unsafe { _mm512_storeu_si512(into.as_mut_ptr().cast(), *row) };
    }
}

/// 16 x 16 words with rows and columns exchanged.
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; SIDE]) -> [__m512i; SIDE] {
    let mut r = rows;
    let mut t = rows;
    // Within groups of 128 bits: words, then pairs of words.
    for i in (0..SIDE).step_by(2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for i in (0..SIDE).step_by(4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // The groups themselves: r[4 g + j] holds, in group l, column 4 l + j of rows 4 g .. 4 g + 4.
    for j in 0..4 {
        let low = _mm512_shuffle_i32x4::<0b10_00_10_00>(r[j], r[4 + j]); // groups 0 2 of both
        let high = _mm512_shuffle_i32x4::<0b11_01_11_01>(r[j], r[4 + j]); // groups 1 3
        let low2 = _mm512_shuffle_i32x4::<0b10_00_10_00>(r[8 + j], r[12 + j]);
        let high2 = _mm512_shuffle_i32x4::<0b11_01_11_01>(r[8 + j], r[12 + j]);
        t[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low, low2);
        t[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low, low2);
        t[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(high, high2);
        t[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(high, high2);
    }
    t
}

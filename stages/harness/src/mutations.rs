//! Bytes that are nearly right.

use rand::Rng;
use rand::rngs::StdRng;

/// Changes one to three places: bits, bytes, pieces that are lost, repeated or made up, and extreme numbers.
pub fn mutated(bytes: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len().max(1));
        let end = (at + rng.random_range(1..64)).min(bytes.len());
        match rng.random_range(0..8) {
            _ if bytes.is_empty() => {}
            0 | 1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = [0, 0xff, b'"', b'{', b'[', b'\n', b'-', b'9'][rng.random_range(0..8)],
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece.repeat(rng.random_range(1..40)));
            }
            6 => {
                let noise: Vec<u8> = (0..rng.random_range(1..16)).map(|_| rng.random()).collect();
                bytes.splice(at..at, noise);
            }
            _ => extreme(&mut bytes, at, rng),
        }
    }
    bytes
}

/// Puts an extreme number in place of the next one in the text, or of four bytes.
fn extreme(bytes: &mut Vec<u8>, at: usize, rng: &mut StdRng) {
    let numbers = ["1e309", "-1", "99999999999999999999", "4294967295", "2147483648", "0", "1e-400", "NaN"];
    match bytes[at..].iter().position(u8::is_ascii_digit) {
        Some(digit) if rng.random_bool(0.7) => {
            let start = at + digit;
            let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            bytes.splice(start..start + length, numbers[rng.random_range(0..numbers.len())].bytes());
        }
        _ => {
            let end = (at + 4).min(bytes.len());
            let value = [0_u32, u32::MAX, 0x7fff_ffff, 0x8000_0000, 1][rng.random_range(0..5)].to_le_bytes();
            bytes.splice(at..end, value);
        }
    }
}

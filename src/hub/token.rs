//! The token that the hub knows the user by.

use kit::Result;

/// The longest file that can hold a token, bytes.
const LONGEST: u64 = 64 << 10;

/// `HF_TOKEN`, else the file `token` in `HF_HOME`, where there is one.
///
/// # Errors
/// When the file is a pipe or a device, cannot be read, or is too long.
pub fn token() -> Result<Option<String>> {
    let given = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    if let Some(token) = std::env::var("HF_TOKEN").ok().and_then(given) {
        return Ok(Some(token));
    }
    let path = models::hub_home().join("token");
    if path.exists() { kit::read_small(&path, LONGEST).map(given) } else { Ok(None) }
}

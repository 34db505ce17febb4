//! The form in which operands are packed: tiles of words, a word being two numbers in bf16.

/// Rows and columns of words in a tile.
pub(super) const SIDE: usize = 16;
/// Words of a tile.
pub(super) const TILE: usize = SIDE * SIDE;
/// Rows and columns of the output that are computed at once: two tiles each way.
pub(super) const BLOCK: usize = 2 * SIDE;

/// Two panels of a and two of b, over a run of tiles.
pub(super) struct Block<'a> {
    /// Two panels, one after the other.
    pub(super) a: &'a [u32],
    /// Two panels, `panel` words apart.
    pub(super) b: &'a [u32],
    pub(super) panel: usize,
    pub(super) run: usize,
}

//! Bytes that are worth comparing: no two words alike, none of them zero.

/// The word at `index` of the pattern `seed` (the finaliser of splitmix64).
pub(crate) const fn word(seed: u64, index: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index).wrapping_add(1);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) | 1
}

/// Fills `words` with the pattern `seed`.
pub(crate) fn fill(words: &mut [u64], seed: u64) {
    for (index, slot) in (0..).zip(words) {
        *slot = word(seed, index);
    }
}

/// Index of the first word that is not the pattern's, if any.
pub(crate) fn first_difference(words: &[u64], seed: u64) -> Option<usize> {
    (0..).zip(words).position(|(index, found)| *found != word(seed, index))
}

/// `len` bytes of the pattern `seed`.
pub(crate) fn bytes(len: usize, seed: u64) -> Vec<u8> {
    (0..).flat_map(|index| word(seed, index).to_le_bytes()).take(len).collect()
}

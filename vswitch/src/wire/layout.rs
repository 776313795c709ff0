//! Fields of a header of fixed length. That a field lies inside its header is checked when the call compiles,
//! so nothing here, nor in the views built on it, can panic. Leaves out headers of variable length: a view
//! checks those itself, once.

/// The `N` bytes at `AT`.
#[inline(always)]
pub(super) fn get<const AT: usize, const N: usize, const LEN: usize>(header: &[u8; LEN]) -> [u8; N] {
    const { assert!(AT + N <= LEN, "the field reaches beyond its header") };
    let mut value = [0; N];
    value.copy_from_slice(&header[AT..AT + N]);
    value
}

/// The big-endian 16-bit word at `AT`.
#[inline(always)]
pub(super) fn be16<const AT: usize, const LEN: usize>(header: &[u8; LEN]) -> u16 {
    u16::from_be_bytes(get::<AT, 2, LEN>(header))
}

/// The big-endian 32-bit word at `AT`.
#[inline(always)]
pub(super) fn be32<const AT: usize, const LEN: usize>(header: &[u8; LEN]) -> u32 {
    u32::from_be_bytes(get::<AT, 4, LEN>(header))
}

/// The big-endian 64-bit word at `AT`.
#[inline(always)]
pub(super) fn be64<const AT: usize, const LEN: usize>(header: &[u8; LEN]) -> u64 {
    u64::from_be_bytes(get::<AT, 8, LEN>(header))
}

/// The 32-bit word at `AT` in the machine's order.
#[inline(always)]
pub(super) fn ne32<const AT: usize, const LEN: usize>(header: &[u8; LEN]) -> u64 {
    u32::from_ne_bytes(get::<AT, 4, LEN>(header)).into()
}

/// The 64-bit word at `AT` in the machine's order.
#[inline(always)]
pub(super) fn ne64<const AT: usize, const LEN: usize>(header: &[u8; LEN]) -> u64 {
    u64::from_ne_bytes(get::<AT, 8, LEN>(header))
}

/// Replaces the `N` bytes at `AT`.
#[inline(always)]
pub(super) fn put<const AT: usize, const N: usize, const LEN: usize>(header: &mut [u8; LEN], value: [u8; N]) {
    const { assert!(AT + N <= LEN, "the field reaches beyond its header") };
    header[AT..AT + N].copy_from_slice(&value);
}

//! What is kept.

/// Bytes that may be kept.
#[derive(Debug)]
pub struct Reservation {
    max: u64,
}

impl Reservation {
    /// A reservation of at most `max` bytes.
    pub fn new(max: u64) -> Self {
        Self { max }
    }

    /// Whether `bytes` in all may be kept.
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        bytes <= self.max
    }
}

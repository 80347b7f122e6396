//! What is asked for, request after request; always the same sequence from the same seed.

use std::sync::Arc;

use super::{Ask, Judge};
use crate::content::Object;

/// Says what is asked for next.
pub(crate) trait Mix: Send + 'static {
    /// The next question.
    fn next(&mut self) -> Ask;
}

/// The same question again and again.
#[derive(Clone, Debug)]
pub(crate) struct Repeat(pub(crate) Ask);

impl Mix for Repeat {
    fn next(&mut self) -> Ask {
        self.0.clone()
    }
}

/// What browsers ask of a node that serves login widgets.
///
/// Of a hundred requests, two are for tenants that nobody asked for before, five for one script and ten for the other, and
/// the rest for configurations of known tenants by Zipf's law with exponent 1. Five of a hundred bring the entity tag
/// of an earlier answer. All say what browsers say about codings.
pub(crate) struct Workload {
    random: fastrand::Rng,
    scripts: [Object; 2],
    zipf: Arc<Zipf>,
    next_unknown: u64,
    judge: Arc<Judge>,
    conditions_due: f64,
}

/// What Chromium says.
pub(crate) const BROWSER: &str = "gzip, deflate, br, zstd";

/// The share of questions with a condition.
const CONDITIONAL: f64 = 0.05;

impl Workload {
    /// The workload: `scripts` with the larger last; unknown tenants begin at `unknown`.
    pub(crate) fn new(scripts: [Object; 2], zipf: Arc<Zipf>, unknown: u64, judge: Arc<Judge>) -> Self {
        Self {
            random: fastrand::Rng::with_seed(unknown),
            scripts,
            zipf,
            next_unknown: unknown,
            judge,
            conditions_due: 0.0,
        }
    }
}

impl Mix for Workload {
    fn next(&mut self) -> Ask {
        let [small, large] = self.scripts;
        let object = match self.random.u32(..100) {
            0..2 => {
                self.next_unknown += 1;
                Object::Tenant(self.next_unknown)
            }
            2..7 => large,
            7..17 => small,
            _ => Object::Tenant(self.zipf.draw(self.random.f64())),
        };
        // What a question without a known tag could not bring, a later one does.
        self.conditions_due += CONDITIONAL;
        let conditional = self.conditions_due >= 1.0 && self.judge.knows_tag(object);
        if conditional {
            self.conditions_due -= 1.0;
        }
        Ask {
            object,
            accepts: Some(BROWSER),
            conditional,
        }
    }
}

/// Zipf's law with exponent 1 over `count` numbers.
#[derive(Debug)]
pub(crate) struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    /// The law over `0..count`.
    pub(crate) fn new(count: u64) -> Self {
        let mut sum = 0.0;
        let cumulated = (1..=count)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        Self { cumulated }
    }

    /// The number at a random place between 0 and 1. Neighbours in rank are not neighbours in number.
    pub(crate) fn draw(&self, place: f64) -> u64 {
        let count = self.cumulated.len().max(1) as u64;
        let sum = self.cumulated.last().copied().unwrap_or_default();
        let rank = self
            .cumulated
            .partition_point(|cumulated| *cumulated < place * sum) as u64;
        rank.min(count - 1).wrapping_mul(STRIDE) % count
    }
}

/// A prime larger than any number of tenants.
const STRIDE: u64 = 2_147_483_647;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_gives_every_number_and_the_first_far_more_often_than_the_last() {
        let zipf = Zipf::new(1000);
        let mut counts = vec![0_u32; 1000];
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..200_000 {
            counts[usize::try_from(zipf.draw(random.f64())).unwrap()] += 1;
        }
        let of_rank = |rank: u64| counts[usize::try_from(rank.wrapping_mul(STRIDE) % 1000).unwrap()];
        // The harmonic number of 1000 is 7.485: 200,000 / 7.485 for the first, a tenth of that for the tenth.
        assert!((25_000..28_500).contains(&of_rank(0)), "{}", of_rank(0));
        assert!((2_300..3_000).contains(&of_rank(9)), "{}", of_rank(9));
        assert!(counts.iter().all(|count| *count > 0));
    }
}

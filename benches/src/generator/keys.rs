//! Which key a request is for. Pure.

use super::random::Random;

/// How requests spread over the keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Each key as often as any other.
    Uniform,
    /// The key of rank `n` as often as 1/n to the power of this exponent, above 0 and up to 5.
    Zipfian(f64),
    /// One after the other, round and round.
    Sequential,
}

/// Draws the numbers of keys.
#[derive(Debug)]
pub(super) struct Keys {
    count: u64,
    draw: Draw,
}

#[derive(Debug)]
enum Draw {
    Uniform,
    Sequential { next: u64 },
    Zipfian(Zipf),
}

impl Keys {
    /// Numbers from 0 to `count` - 1; a sequence begins at `first`.
    pub(super) fn new(distribution: Distribution, count: u64, first: u64) -> Self {
        let draw = match distribution {
            Distribution::Uniform => Draw::Uniform,
            Distribution::Sequential => Draw::Sequential { next: first },
            Distribution::Zipfian(exponent) => Draw::Zipfian(Zipf::new(count, exponent)),
        };
        Self { count, draw }
    }

    pub(super) fn next(&mut self, random: &mut Random) -> u64 {
        match &mut self.draw {
            Draw::Uniform => random.below(self.count),
            Draw::Sequential { next } => {
                let key = *next;
                *next = if key + 1 == self.count { 0 } else { key + 1 };
                key
            }
            Draw::Zipfian(zipf) => zipf.rank(random) - 1,
        }
    }
}

/// Rejection-inversion sampling (Hörmann and Derflinger, 1996): no table and no sum over all keys, whatever their number.
#[derive(Debug)]
struct Zipf {
    exponent: f64,
    count: f64,
    /// The integral of the density up to the first rank and to the last.
    area_first: f64,
    area_last: f64,
    /// Within so much of a rank a draw is taken without looking closer.
    sure: f64,
}

impl Zipf {
    fn new(count: u64, exponent: f64) -> Self {
        let mut zipf =
            Self { exponent, count: count as f64, area_first: 0.0, area_last: 0.0, sure: 0.0 };
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.area_last = zipf.area(zipf.count + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.area(2.5) - zipf.density(2.0));
        zipf
    }

    fn density(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// The integral of the density from 1 to `x`.
    fn area(&self, x: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { x.ln() } else { (power * x.ln()).exp_m1() / power }
    }

    fn inverse(&self, area: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { area.exp() } else { ((power * area).ln_1p() / power).exp() }
    }

    /// From 1 to the number of keys.
    fn rank(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.area_last + random.unit() * (self.area_first - self.area_last);
            let x = self.inverse(area);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.sure || area >= self.area(rank + 0.5) - self.density(rank) {
                return rank as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(distribution: Distribution, keys: u64, draws: usize) -> Vec<u64> {
        let (mut random, mut draw) = (Random::new(3), Keys::new(distribution, keys, 0));
        let mut counts = vec![0; keys as usize];
        for _ in 0..draws {
            counts[draw.next(&mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_keys_reach_all_alike() {
        let counts = counts(Distribution::Uniform, 10, 100_000);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn sequential_keys_come_in_order_and_begin_again() {
        assert_eq!(counts(Distribution::Sequential, 3, 7), [3, 2, 2]);
        let mut keys = Keys::new(Distribution::Sequential, 5, 3);
        let drawn: Vec<u64> = (0..4).map(|_| keys.next(&mut Random::new(1))).collect();
        assert_eq!(drawn, [3, 4, 0, 1]);
    }

    #[test]
    fn zipfian_ranks_are_as_frequent_as_the_law_says() {
        for exponent in [0.5, 0.99, 1.0, 2.0] {
            let counts = counts(Distribution::Zipfian(exponent), 1000, 1_000_000);
            let weights: Vec<f64> = (1..=1000).map(|n| f64::from(n).powf(-exponent)).collect();
            let sum: f64 = weights.iter().sum();
            for rank in [0, 1, 2, 9, 99] {
                let expected = weights[rank] / sum * 1e6;
                let off = (counts[rank] as f64 - expected).abs();
                // Six standard deviations.
                assert!(
                    off < 6.0 * expected.sqrt() + 1.0,
                    "{exponent} {rank}: {off} of {expected}"
                );
            }
        }
    }

    #[test]
    fn one_key_is_enough_for_each_way() {
        let ways = [Distribution::Uniform, Distribution::Zipfian(0.99), Distribution::Sequential];
        assert!(ways.into_iter().all(|way| counts(way, 1, 10) == [10]));
    }
}
